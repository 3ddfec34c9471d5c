"""Where a user's sykube keeps its things: the XDG base directories; in a batch job, the job's own.

Source: https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sykube.errors import HostError
from sykube.host.job import Job

_OWN = "sykube"
_DATA, _GONE = "-data", ".gone"


@dataclass(frozen=True)
class Folders:
    """The folders of one user on one host.

    Attributes:
        data: of the clusters.
        cache: of images.
        logs: of commands and of nodes that failed.
        runtime: what ends with the namespaces; short, since sockets are in it.
        snapshots: what outlives clusters, and jobs.
        units: of the user's systemd; where there are none for a job, with which all ends.
    """

    data: Path
    cache: Path
    logs: Path
    runtime: Path
    snapshots: Path
    units: Path


def of_user(
    uid: int,
    home: Path,
    environ: Mapping[str, str],
    root: Path = Path("/"),
    job: Job | None = None,
) -> Folders:
    """The folders of a user, none of which has to be there.

    Args:
        root: the machine's root folder.
        job: the batch job that the user's commands run in. Its clusters end with it, and are kept
            out of a home that other hosts and jobs share: they would find clusters there that do
            not run, of names that they want.
    """

    def base(variable: str, usual: str) -> Path:
        # What is not absolute is to be ignored.
        named = Path(environ.get(variable, ""))
        return named if named.is_absolute() else home / usual

    data = base("XDG_DATA_HOME", ".local/share") / _OWN
    name = f"{_prefix(uid)}{job.id}" if job else ""
    # A job's own folder may have a name that is too long for sockets.
    runtime = root / "tmp" / name if job else _runtime(uid, environ, root)
    return Folders(
        data=job.scratch / f"{name}{_data()}" if job else data,
        cache=base("XDG_CACHE_HOME", ".cache") / _OWN,
        logs=base("XDG_STATE_HOME", ".local/state") / _OWN,
        runtime=runtime,
        snapshots=data / "snapshots",
        units=runtime / "units" if job else home / ".config/systemd/user",
    )


def _prefix(uid: int) -> str:
    return f"{_OWN}-{uid}-job-"


def _data() -> str:
    """How folders of data end that this host has made: others may share the folder they are in."""
    return f"-{os.uname().nodename.partition('.')[0]}{_DATA}"


def of_jobs(found: Folders, uid: int, root: Path = Path("/")) -> Iterator[Folders]:
    """The folders of the user's jobs of which there still are any, beside these."""
    temporary = root / "tmp"
    scratches = [*dict.fromkeys((temporary, found.data.parent))]
    there = {
        each.name.removesuffix(_data())
        for scratch in scratches
        for each in scratch.glob(f"{_prefix(uid)}*")
    }
    for name in sorted(there - {found.runtime.name}):
        if not name.endswith((_DATA, _GONE)):
            for scratch in scratches:
                yield replace(found, data=scratch / f"{name}{_data()}", runtime=temporary / name)


def set_aside(found: Folders) -> None:
    """Give a folder of data a name by which nobody finds it, where it is there."""
    with contextlib.suppress(FileNotFoundError):
        found.data.rename(found.data.with_name(f"{found.data.name}{_GONE}"))


def aside(found: Folders, uid: int, root: Path = Path("/")) -> list[Path]:
    """Those that were set aside, of this user."""
    scratches = dict.fromkeys((root / "tmp", found.data.parent))
    return [
        each for folder in scratches for each in folder.glob(f"{_prefix(uid)}*{_data()}{_GONE}")
    ]


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


def make_private(folder: Path) -> None:
    """Make a folder for the user only.

    Raises:
        HostError: somebody else has put something in its place.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder):
        raise HostError(
            f"{folder} is not a folder that only you may enter",
            resolution=f"Remove it, or ask its owner to: rm -r {folder}",
        )
