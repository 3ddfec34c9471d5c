"""Where the Kubernetes of a new cluster comes from: upstream's releases, or Debian's source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from sykube.errors import UsageError
from sykube.host.download import Downloader, DownloadError
from sykube.host.host import Host
from sykube.image import oci, upstream, versions
from sykube.image.choice import AUTO, DEBIAN, UPSTREAM, Choice
from sykube.image.mirrors import Mirrors
from sykube.image.versions import DebianRelease, Upstream

# For a text of ten letters: a network that takes longer is not one to download 200 MB by, and
# whoever has none shall not wait.
_ANSWER_S = 3.0


def choose(
    host: Host,
    source: str,
    version: str,
    mirrors: Mirrors,
    downloader: Downloader,
    fitting: Sequence[str] | None = None,
) -> Choice:
    """Where Kubernetes comes from.

    What is asked for is taken or refused. Debian's stands in where nothing is asked for and
    upstream's release site does not answer; a mirror that the user names is asked for.

    Args:
        source: one of SOURCES.
        version: stable, a minor version, an exact one; empty for any.
        fitting: minor versions that will do where none is asked for; all if None.

    Raises:
        UsageError: the version is none, or the source does not have it.
        SykubeError: upstream was asked for, and does not have it or does not answer.
    """
    debian, supported = versions.DEBIAN.kubernetes_version, upstream.minors()
    debians = version in _names(debian)
    if source == DEBIAN:
        if version and not debians:
            raise UsageError(
                f"Debian has no Kubernetes {version}, only {debian}",
                resolution=f"Leave the version out, or take it from upstream: --source {UPSTREAM}",
            )
        return Choice(DEBIAN, debian, "asked for")
    if source == AUTO and debians:
        return Choice(DEBIAN, debian, f"{debian} is the version of Debian")
    if source == UPSTREAM or version or mirrors.kubernetes_is_mirrored:
        any_of = supported if version or fitting is None else fitting
        found = upstream.resolve(host, version or upstream.STABLE, any_of, mirrors, downloader)
        return _upstream(found, mirrors)
    if oci.machine(host) not in upstream.ARCHITECTURES:
        why = f"upstream has no releases of containerd for {oci.machine(host)}"
        return Choice(DEBIAN, debian, why)
    try:
        quick = downloader.with_timeout(_ANSWER_S * host.patience)
        any_of = supported if fitting is None else fitting
        found = upstream.resolve(host, upstream.STABLE, any_of, mirrors, quick)
    except DownloadError as error:
        return Choice(DEBIAN, debian, f"{mirrors.kubernetes} does not answer ({error.details})")
    return _upstream(found, mirrors)


def obtain(
    host: Host,
    choice: Choice,
    mirrors: Mirrors,
    downloader: Downloader,
    step: Callable[[str], contextlib.AbstractContextManager[None]],
    note: Callable[[str], None],
) -> DebianRelease | Upstream:
    """What a node image is built of; upstream's files are downloaded where they are not cached.

    Args:
        step: opens a step of the user interface, where something is to be downloaded.
        note: told how far it is.

    Raises:
        SykubeError: a file cannot be had, or is not what its checksum says.
    """
    if choice.source == DEBIAN:
        return versions.DEBIAN
    release = upstream.Release.of(choice.kubernetes)
    files = upstream.fetch(host, release, mirrors, downloader, step, note)
    return _made_of(release, mirrors, files)


def cached(host: Host, choice: Choice, mirrors: Mirrors) -> DebianRelease | Upstream | None:
    """As `obtain`, where the cache has all of it; asks nobody."""
    if choice.source == DEBIAN:
        return versions.DEBIAN
    release = upstream.Release.of(choice.kubernetes)
    files = upstream.cached(host, release, mirrors)
    return _made_of(release, mirrors, files) if files else None


def _made_of(release: upstream.Release, mirrors: Mirrors, files: upstream.Downloads) -> Upstream:
    return Upstream(release.kubernetes, release.containerd, release.runc, mirrors.images, files)


def _upstream(found: upstream.Version, mirrors: Mirrors) -> Choice:
    remark = f"; {found.remark}" if found.remark else ""
    return Choice(UPSTREAM, found.kubernetes, f"a release of {mirrors.kubernetes}{remark}")


def _names(version: str) -> tuple[str, ...]:
    """What a user may call a version."""
    return (version, f"v{version}", version.rpartition(".")[0])
