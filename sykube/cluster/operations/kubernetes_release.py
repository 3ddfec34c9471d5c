"""Which Kubernetes a new cluster or node image gets, and how it is had."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import cgroup_version
from sykube.errors import UsageError
from sykube.host import apt
from sykube.host.host import Host
from sykube.host.proxies import Proxies
from sykube.image import build, mirrors, versions
from sykube.image.choice import AUTO, DEBIAN, SOURCES, UPSTREAM, VARIABLE, Choice
from sykube.image.mirrors import Mirrors
from sykube.image.node_image import NodeImage
from sykube.image.versions import DebianRelease, Upstream
from sykube.ui import Ui

if TYPE_CHECKING:
    from sykube.cluster.operations.archive import Snapshot
    from sykube.host.download import Downloader

# What images are known by does not depend on where they were downloaded from.
ANY_MIRROR = apt.Mirror("")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class KubernetesRelease:
    """A Kubernetes that was chosen.

    Attributes:
        auth_file: credentials for the registry of its container images.
        certificates: PEM files of authorities that the registry may have.
        environment: variables for building, with the proxies that were asked for.
    """

    host: Host
    choice: Choice
    mirrors: Mirrors
    downloader: Downloader
    auth_file: Path | None
    certificates: tuple[Path, ...]
    environment: Mapping[str, str]

    def cached_image(self) -> NodeImage | None:
        """The node image where it is in the cache and up to date; nobody is asked for anything."""
        from sykube.image import source

        found = source.cached(self.host, self.choice, self.mirrors)
        return build.cached(self.host, found, ANY_MIRROR) if found else None

    def obtain(self, ui: Ui) -> DebianRelease | Upstream:
        """What a node image is built of, downloaded where the cache lacks it.

        Raises:
            SykubeError: a file cannot be had, or is not what its checksum says.
        """
        from sykube.image import source

        found = source.obtain(
            self.host, self.choice, self.mirrors, self.downloader, ui.step, ui.note
        )
        if isinstance(found, Upstream):
            return dataclasses.replace(
                found, auth_file=self.auth_file, authorities=self.certificates
            )
        return found


def choose(
    host: Host,
    spec: ClusterSpec,
    ui: Ui,
    *,
    proxies: Proxies | None = None,
    authorities: Sequence[str] = (),
    fitting: Sequence[str] | None = None,
) -> KubernetesRelease:
    """Choose by what is asked for and, where that says no exact version, by the release site.

    Args:
        proxies: instead of the caller's own, where there are any.
        authorities: certificates in PEM that servers may have beside the system's.
        fitting: minor versions that will do where none is asked for; any if None.

    Raises:
        UsageError: what is asked for cannot be.
        SykubeError: it is not there, or the release site does not answer.
    """
    proxies = proxies or Proxies()
    # These take as long to import as most commands take.
    from sykube.host.download import Access, Downloader
    from sykube.image import source, upstream

    chosen = mirrors.chosen(spec.sites, os.environ)
    asked = _source(spec, os.environ)
    downloader = Downloader(Access(proxies, tuple(authorities)))

    def of(choice: Choice) -> KubernetesRelease:
        return KubernetesRelease(
            host,
            choice,
            chosen,
            downloader,
            Path(spec.registry_auth) if spec.registry_auth else None,
            tuple(map(Path, spec.ca_certificates)),
            proxies.variables(()) if choice.source == UPSTREAM else {},
        )

    anything = asked == AUTO and not (spec.kubernetes_version or chosen.kubernetes_is_mirrored)
    if host.grants.rootless and not chosen.kubernetes_is_mirrored:
        # What is not built yet takes many minutes, or is root's to build.
        for built in of_built(host, of, fitting):
            if _is_meant(built.choice, asked, spec.kubernetes_version):
                return built
    # Where nothing is asked for it is over at once, and of Debian's there is nothing to ask.
    patiently = asked != DEBIAN and not anything
    if patiently and spec.kubernetes_version:
        upstream.parse_version(spec.kubernetes_version, upstream.minors())
    asking = ui.step(f"Asking {chosen.kubernetes}") if patiently else contextlib.nullcontext()
    with asking:
        choice = source.choose(host, asked, spec.kubernetes_version, chosen, downloader, fitting)
    return of(choice)


def of_built(
    host: Host, of: Callable[[Choice], KubernetesRelease], fitting: Sequence[str] | None = None
) -> list[KubernetesRelease]:
    """What there are node images of in the caches that are up to date, the newest version first.

    Args:
        of: a release of that choice.
        fitting: minor versions that will do; any if None.
    """
    found = {
        (image.source, image.versions()["kubernetes"].removeprefix("v"))
        for image in build.list_images(host)
    }
    fit = [each for each in found if fitting is None or each[1].rpartition(".")[0] in fitting]
    newest = sorted(fit, key=lambda each: [*map(int, _NUMBER.findall(each[1]))], reverse=True)
    why = "the newest that a node image is built of here"
    releases = (of(Choice(*each, why)) for each in newest)
    return [each for each in releases if each.cached_image()]


def _is_meant(choice: Choice, source: str, version: str) -> bool:
    """Whether it is of the source and the version that are asked for, where any is."""
    names = ("", choice.kubernetes, choice.kubernetes.rpartition(".")[0])
    return source in (AUTO, choice.source) and version.removeprefix("v") in names


def choose_fitting(
    host: Host, spec: ClusterSpec, ui: Ui, proxies: Proxies, authorities: tuple[str, ...]
) -> KubernetesRelease:
    """The Kubernetes for a new cluster.

    Raises:
        HostError: this host cannot run what is asked for.
        SykubeError: it cannot be had.
    """
    allowed = spec.allow_cgroup_v1
    release = choose(host,
        spec, ui, proxies=proxies, authorities=authorities,
        fitting=cgroup_version.fitting(host, allow_v1=allowed),
    )  # fmt: skip
    cgroup_version.require_cgroup_version(
        host, versions.minor(release.choice.kubernetes), allow_v1=allowed
    )
    return release


def choice_of_snapshot(snapshot: Snapshot) -> Choice:
    """The Kubernetes that a snapshot's node image is of."""
    saved = snapshot.state()
    if saved.choice:
        return saved.choice
    version = snapshot.kubernetes.removeprefix("v")
    return Choice(versions.minor(version).sources[0], version, f"that of {snapshot.name}")


def choice_of_image(host: Host, spec: ClusterSpec, image: NodeImage) -> Choice:
    """The Kubernetes of an image of the user's.

    Raises:
        HostError: this host cannot run it.
        UsageError: this sykube makes no clusters of it.
    """
    version = image.versions()["kubernetes"].removeprefix("v")
    minor = versions.minor(version)
    cgroup_version.require_cgroup_version(host, minor, allow_v1=spec.allow_cgroup_v1)
    return Choice(image.source, version, f"that of {spec.local_image}")


def _source(spec: ClusterSpec, environment: Mapping[str, str]) -> str:
    """The source that is asked for, or that of the environment."""
    found = environment.get(VARIABLE, "") if spec.source == AUTO else ""
    if found and found not in SOURCES:
        raise UsageError(
            f"{VARIABLE} is {found!r}, which is no source",
            resolution=f"Set it to one of: {', '.join(SOURCES)}",
        )
    return found or spec.source
