"""Whether an ordinary user's clusters can live in the user's folders; if not, the better place."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from sykube.errors import HostError
from sykube.host import file_systems, overlays
from sykube.host.finding import Finding, failure, ok
from sykube.host.host import Host

_ASK = "Ask the administrator for: "


def require_writable(host: Host) -> None:
    """Refuse folders in which nothing can be written, before there is anything to write.

    Raises:
        HostError: names the folder, and what to do.
    """
    for folder in (host.data, host.cache):
        if problem := _unwritable(folder):
            home = Path(os.environ.get("HOME") or "/nonexistent")
            cures = [_other_folders(host)]
            if not os.path.exists(home):  # noqa: PTH110 - where it may not look, it does not raise
                problem = f"your home {home} is not there"
                user, where = shlex.quote(host.grants.user), shlex.quote(str(home))
                cures.append(f"{_ASK}install -d -m 700 -o {user} {where}")
            raise HostError(f"{folder} cannot be written: {problem}", resolution="\n  ".join(cures))


def require_readable(host: Host) -> None:
    """Refuse a data folder in which one may not look, as another user's with su or sudo.

    Raises:
        HostError: names the folder, and what to do.
    """
    place = file_systems.nearest(host.data)
    if not os.access(place, os.R_OK | os.X_OK):
        raise HostError(
            f"{host.data} cannot be read: {place} is not open to you",
            resolution=f"Is HOME your own ({os.environ.get('HOME', '')})? {_other_folders(host)}",
        )


def _unwritable(folder: Path) -> str:
    """Why one cannot write to it, or to the one above it in which it would be made."""
    place = file_systems.nearest(folder)
    if os.access(place, os.W_OK | os.X_OK):
        return ""
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place} is read-only"
    return f"{place} is not open to you"


def _other_folders(host: Host) -> str:
    better = next(_better(host), None) or Path("/FOLDER")
    return (
        f"Name folders that you can write to: export XDG_DATA_HOME={better} "
        f"XDG_CACHE_HOME={better}/cache KUBECONFIG={better}/kubeconfig"
    )


def findings(host: Host, data: Path, *, ephemeral: bool) -> list[Finding]:
    """Whether nodes can live in a folder, and unpacked images in the cache.

    Args:
        data: the folder that nodes' files are to be in.
        ephemeral: they are kept in memory instead.
    """
    places = [] if ephemeral else [_for_nodes(host, data)]
    return [*places, _for_images(host)]


def _for_nodes(host: Host, data: Path) -> Finding:
    what = "folder for nodes"
    if problem := _unwritable(data):
        return failure(what, f"{data} cannot be written: {problem}", _instead(host))
    if kind := file_systems.network_type(host, data):
        detail = f"{data} is on a network file system ({kind}), to which no overlay can be written"
        return failure(what, detail, _instead(host))
    if missing := overlays.lacking(data):
        return failure(what, f"the file system of {data} lacks {missing}", _instead(host))
    return ok(what, str(data))


def _instead(host: Host) -> str:
    in_memory = "keep them in memory, until they stop: --ephemeral"
    better = next(_better(host), None)
    return (
        f"Take another one: --dest {better}; or {in_memory}" if better else in_memory.capitalize()
    )


def _better(host: Host) -> Iterator[Path]:
    """Folders of the user's on this host that would do."""
    named = os.environ.get("TMPDIR", "")
    for place in dict.fromkeys(filter(None, (named, "/tmp", "/var/tmp"))):
        folder = Path(place) / f"{host.grants.user}-sykube"
        if _unwritable(folder) or file_systems.network_type(host, folder):
            continue
        # One that is full will not do either.
        with contextlib.suppress(OSError):
            if not overlays.lacking(folder):
                yield folder


def _for_images(host: Host) -> Finding:
    what = "folder for images"
    if problem := _unwritable(host.cache):
        cure = "Name one that you can write to: export SYKUBE_CACHE_DIR=FOLDER"
        return failure(what, f"{host.cache} cannot be written: {problem}", cure)
    kind = file_systems.network_type(host, host.cache)
    # With one ID, all files are the user's there as well.
    if kind and host.grants.users:
        better = next(_better(host), None) or Path("/FOLDER")
        return failure(
            what,
            f"{host.cache} is on a network file system ({kind}), which keeps no owners of a user's",
            f"Take another one: export SYKUBE_CACHE_DIR={better}/cache",
        )
    return ok(what, str(host.cache))
