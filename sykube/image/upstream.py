"""What upstream publishes: which versions there are, and their programs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sykube.errors import SykubeError, UsageError
from sykube.host import lock
from sykube.host.checksum import Checksum
from sykube.host.download import Downloader, DownloadError
from sykube.host.host import Host
from sykube.image import downloads, oci, versions
from sykube.image.mirrors import Mirrors, elsewhere
from sykube.image.versions import Published

STABLE = "stable"
_ASKED = re.compile(r"v?(?P<minor>1\.(?:0|[1-9]\d?))(?P<patch>\.(?:0|[1-9]\d*))?")
_PUBLISHED = re.compile(r"v(\d+\.\d+\.\d+)")
# Of these there are releases of all that is needed: containerd's docs/getting-started.md.
ARCHITECTURES = ("amd64", "arm64")
_PROGRAMS = ("kubeadm", "kubelet", "kubectl")


@dataclass(frozen=True)
class Release:
    """Versions that go together, without the v."""

    kubernetes: str
    containerd: str
    runc: str

    @classmethod
    def of(cls, kubernetes: str) -> Release:
        """A version of Kubernetes with the containerd and runc of its minor version.

        Raises:
            UsageError: sykube makes no clusters of it.
        """
        minor = versions.minor(kubernetes)
        return cls(kubernetes, minor.containerd, minor.runc)


# By versions.PUBLISHED.
Downloads = Mapping[str, Published]


@dataclass(frozen=True)
class Version:
    """An exact version of Kubernetes, and what the user should know of how it came about."""

    kubernetes: str
    remark: str = ""


@dataclass(frozen=True)
class _Wanted:
    """A file of a release: where it is, its checksum, and what stands in for its site."""

    url: str
    target: Path
    checksum: Callable[[Downloader], Checksum]
    otherwise: str


def minors() -> tuple[str, ...]:
    """Minor versions that sykube can make a cluster of, the newest first."""
    return tuple(each.version for each in reversed(versions.MINORS) if "upstream" in each.sources)


def architecture(host: Host) -> str:
    """This machine's, where upstream has releases for it.

    Raises:
        SykubeError: it has none.
    """
    found = oci.machine(host)
    if found not in ARCHITECTURES:
        raise SykubeError(
            f"there are no releases of containerd for {found} machines",
            resolution=f"Use a machine of {' or '.join(ARCHITECTURES)}, or Debian's Kubernetes.",
        )
    return found


def resolve(
    host: Host, asked: str, supported: Sequence[str], mirrors: Mirrors, downloader: Downloader
) -> Version:
    """The exact version that `stable`, `1.36`, `1.36.2` or `v1.36.2` means now.

    Args:
        supported: minor versions that sykube can make a cluster of.

    Raises:
        UsageError: it is none of these, or not supported.
        SykubeError: there is no such version.
        DownloadError: the release site does not say.
    """
    found = parse_version(asked, supported)
    if not found:
        return _stable(supported, mirrors, downloader)
    minor = found["minor"]
    if not found["patch"]:
        return Version(_newest(minor, mirrors, downloader))
    version = asked.removeprefix("v")
    _check_there(host, version, minor, mirrors, downloader)
    return Version(version)


def parse_version(asked: str, supported: Sequence[str]) -> re.Match[str] | None:
    """The parts of a version that is asked for; None for `stable`. Asks nobody.

    Raises:
        UsageError: it is none, or not supported.
    """
    if asked == STABLE:
        return None
    found = _ASKED.fullmatch(asked)
    if not found:
        raise UsageError(
            f"{asked!r} is no version of Kubernetes",
            resolution="Ask for stable, a minor version such as 1.36, or one such as 1.36.2.",
        )
    if (minor := found["minor"]) not in supported:
        raise UsageError(
            f"this sykube makes no clusters of upstream's Kubernetes {minor}",
            details=f"It knows {_listed(supported)} of upstream's.",
            resolution="Choose one of these, or look for a newer sykube.",
        )
    return found


def newest(supported: Sequence[str], mirrors: Mirrors, downloader: Downloader) -> dict[str, str]:
    """The newest release of each supported minor version; a minor without any is left out.

    Raises:
        DownloadError: the release site does not say.
    """

    def ask(minor: str, shared: Downloader) -> str:
        try:
            return _published(mirrors.stable(minor), shared)
        except DownloadError as error:
            if error.absent:
                return ""
            raise

    found = downloader.together({minor: partial(ask, minor) for minor in supported})
    return {minor: found[minor] for minor in supported if found[minor]}


def fetch(
    host: Host,
    release: Release,
    mirrors: Mirrors,
    downloader: Downloader,
    step: Callable[[str], contextlib.AbstractContextManager[None]],
    note: Callable[[str], None],
    further: Sequence[str] = (),
) -> Downloads:
    """The programs of a release for this machine; what is cached and whole is not asked for again.

    Args:
        step: opens a step of the user interface, where something is to be downloaded.
        note: told how far it is.
        further: programs of Kubernetes beside those of a node.

    Raises:
        SykubeError: one cannot be had, or is not what its checksum says; the cache has the others.
    """
    wanted = _wanted(host, release, mirrors, architecture(host), further)
    with lock.in_turn(downloads.folder(host)):
        found = {name: downloads.verified(host, each.target) for name, each in wanted.items()}
        missing = {name: each for name, each in wanted.items() if not found[name]}
        if missing:
            with step(f"Downloading Kubernetes {release.kubernetes}"):
                progress = _Progress(note, host.monotonic)
                found |= downloader.together(
                    {
                        name: partial(_download, each, partial(progress.tell, name))
                        for name, each in missing.items()
                    }
                )
    return {name: each for name, each in found.items() if each}


def cached(host: Host, release: Release, mirrors: Mirrors) -> Downloads | None:
    """The programs of a release where the cache has all of them, whole."""
    wanted = _wanted(host, release, mirrors, architecture(host))
    found = {name: downloads.verified(host, each.target) for name, each in wanted.items()}
    there = {name: each for name, each in found.items() if each}
    return there if there.keys() == wanted.keys() else None


def _wanted(
    host: Host, release: Release, mirrors: Mirrors, machine: str, further: Sequence[str] = ()
) -> dict[str, _Wanted]:
    """By the names of Downloads."""
    version = release.kubernetes
    urls = {
        name: mirrors.kubernetes_program(version, machine, name) for name in (*_PROGRAMS, *further)
    }
    found = {
        name: _Wanted(
            url,
            downloads.place(host, "kubernetes", version, machine, name),
            partial(_of_program, url),
            elsewhere("kubernetes"),
        )
        for name, url in urls.items()
    }
    containerd = mirrors.containerd_archive(release.containerd, machine)
    runc = mirrors.runc_program(release.runc, machine)
    for name, version, url, checksums in (
        ("containerd", release.containerd, containerd, f"{containerd}.sha256sum"),
        ("runc", release.runc, runc, mirrors.runc_checksums(release.runc)),
    ):
        found[name] = _Wanted(
            url,
            downloads.place(host, name, version, machine, url.rpartition("/")[2]),
            partial(_of_list, checksums, url, elsewhere(name)),
            elsewhere(name),
        )
    return found


def _of_program(url: str, downloader: Downloader) -> Checksum:
    """The checksum of a program of Kubernetes, which has a file of its own."""
    where = f"{url}.sha256"
    try:
        text = downloader.text(where, elsewhere("kubernetes"))
    except DownloadError as error:
        if not error.absent:
            raise
        # A mirror may only have the other one.
        where = f"{url}.sha512"
        text = downloader.text(where, elsewhere("kubernetes"))
    try:
        return Checksum.parse(text)
    except ValueError as error:
        raise _no_checksum(where, error, elsewhere("kubernetes")) from error


def _of_list(where: str, url: str, otherwise: str, downloader: Downloader) -> Checksum:
    text = downloader.text(where, otherwise)
    try:
        return Checksum.listed(text, url.rpartition("/")[2])
    except ValueError as error:
        raise _no_checksum(where, error, otherwise) from error


def _no_checksum(where: str, error: ValueError, otherwise: str) -> DownloadError:
    return DownloadError(
        where, str(error), resolution=f"Does a proxy answer in its place? {otherwise}", status=200
    )


def _download(
    wanted: _Wanted, progress: Callable[[int, int], None], downloader: Downloader
) -> Published:
    checksum = wanted.checksum(downloader)
    downloads.forget(wanted.target)
    downloader.file(wanted.url, wanted.target, checksum, progress, wanted.otherwise)
    downloads.mark(wanted.target, checksum)
    return Published(wanted.target, checksum.value)


def _stable(supported: Sequence[str], mirrors: Mirrors, downloader: Downloader) -> Version:
    version = _published(mirrors.stable(), downloader)
    if _minor(version) in supported:
        return Version(version)
    known = [minor for minor in supported if _number(minor) < _number(_minor(version))]
    if not known:
        raise SykubeError(
            f"Kubernetes {version} is the newest release, and older than all that sykube knows",
            details=f"It knows {_listed(supported)}; {mirrors.stable()} names {version}.",
            resolution=f"Is the mirror out of date? {elsewhere('kubernetes')}",
        )
    mine = _newest(max(known, key=_number), mirrors, downloader)
    if _minor(version) in minors():
        # The one thing that sykube leaves a supported version out for.
        why = (
            f"this host has cgroup v1, and the newest, {version}, needs cgroup v2, or "
            "--allow-cgroup-v1"
        )
        return Version(mine, why)
    return Version(mine, f"Kubernetes {version} is newer than what this sykube knows")


def _newest(minor: str, mirrors: Mirrors, downloader: Downloader) -> str:
    try:
        return _published(mirrors.stable(minor), downloader)
    except DownloadError as error:
        if error.absent:
            raise SykubeError(
                f"there is no release of Kubernetes {minor}",
                details=error.details,
                resolution=f"`sykube versions` lists what there is. {elsewhere('kubernetes')}",
            ) from error
        raise


def _check_there(
    host: Host, version: str, minor: str, mirrors: Mirrors, downloader: Downloader
) -> None:
    """Refuse a version that the site does not have; one that is cached was there."""
    if ("kubernetes", version) in {(each.project, each.version) for each in downloads.listed(host)}:
        return
    url = mirrors.kubernetes_program(version, architecture(host), _PROGRAMS[0])
    try:
        _of_program(url, downloader)
    except DownloadError as error:
        if not error.absent:
            raise
        raise SykubeError(
            f"there is no Kubernetes {version}",
            details=f"The newest of {minor} is {_newest(minor, mirrors, downloader)}.",
            resolution=f"`sykube versions` lists what there is. {elsewhere('kubernetes')}",
        ) from error


def _published(url: str, downloader: Downloader) -> str:
    """The version that a text of the release site holds."""
    text = downloader.text(url, elsewhere("kubernetes"))
    found = _PUBLISHED.fullmatch(text)
    if not found:
        raise DownloadError(
            url,
            "what comes is no version",
            resolution=f"Does a proxy answer in its place? {elsewhere('kubernetes')}",
            status=200,
        )
    return found[1]


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


def _number(minor: str) -> tuple[int, ...]:
    return tuple(map(int, minor.split(".")))


def _listed(supported: Sequence[str]) -> str:
    return ", ".join(sorted(supported, key=_number, reverse=True))


class _Progress:
    """Bytes of several files at once, and the time that the rest of them takes, as one line."""

    def __init__(self, note: Callable[[str], None], monotonic: Callable[[], float]) -> None:
        self._note, self._monotonic, self._begun = note, monotonic, monotonic()
        self._files: dict[str, tuple[int, int]] = {}
        # Of one that was cut off there was something before.
        self._before: dict[str, int] = {}

    def tell(self, name: str, done: int, size: int) -> None:
        self._before.setdefault(name, done)
        self._files = files = {**self._files, name: (done, size)}
        there = sum(done for done, _ in files.values())
        whole = sum(max(done, size) for done, size in files.values())
        line = f"{there // 1_000_000} of {whole // 1_000_000} MB"
        came = there - sum(self._before.values())
        if came > 0 and there < whole:
            left = (whole - there) * (self._monotonic() - self._begun) / came
            line += f", {left / 60:.0f} min to go" if left > 90 else f", {left:.0f} s to go"
        self._note(line)
