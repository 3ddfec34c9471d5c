"""Where a user's sykube keeps its things: the XDG base directories.

Source: https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import HostError

_OWN = "sykube"


@dataclass(frozen=True)
class Folders:
    """The folders of one user on one host.

    Attributes:
        data: of the clusters.
        cache: of images.
        logs: of commands and of nodes that failed.
        runtime: what ends with the namespaces; short, since sockets are in it.
    """

    data: Path
    cache: Path
    logs: Path
    runtime: Path


def of_user(uid: int, home: Path, environ: Mapping[str, str], root: Path = Path("/")) -> Folders:
    """The folders of a user, none of which has to be there.

    Args:
        root: the machine's root folder.
    """

    def base(variable: str, usual: str) -> Path:
        # What is not absolute is to be ignored.
        named = Path(environ.get(variable, ""))
        return named if named.is_absolute() else home / usual

    return Folders(
        data=base("XDG_DATA_HOME", ".local/share") / _OWN,
        cache=base("XDG_CACHE_HOME", ".cache") / _OWN,
        logs=base("XDG_STATE_HOME", ".local/state") / _OWN,
        runtime=_runtime(uid, environ, root),
    )


def _runtime(uid: int, environ: Mapping[str, str], root: Path) -> Path:
    named = Path(environ.get("XDG_RUNTIME_DIR", ""))
    usual = root / "run/user" / str(uid)
    for folder in (named, usual):
        if folder.is_absolute() and _is_own(folder):
            return folder / _OWN
    # As with su, cron and batch jobs, for which nobody makes one.
    return root / "tmp" / f"{_OWN}-{uid}"


def _is_own(folder: Path) -> bool:
    """Whether it is a folder of this process's user that nobody else may enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and private


def make_runtime(folder: Path) -> None:
    """Make the folder of what runs, for the user only.

    Raises:
        HostError: somebody else has put something in its place.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder):
        raise HostError(
            f"{folder} is not a folder that only you may enter",
            resolution=f"Remove it, or ask its owner to: rm -r {folder}",
        )
