"""How much of the kernel's inotify limits is used; nodes share them with the whole host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host
from sykube.host.records import read_sysctl

INSTANCES = "fs/inotify/max_user_instances"
WATCHES = "fs/inotify/max_user_watches"
_LINK = "anon_inode:inotify"


@dataclass(frozen=True)
class Usage:
    """What root's processes have of a limit, and which have most of it, by name."""

    sysctl: str
    used: int
    limit: int
    most: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """1 when the limit is used up."""
        return self.used / self.limit if self.limit else 0.0


def usage(host: Host) -> list[Usage]:
    """Root's use of instances and of watches; both are counted for each user, over all nodes.

    An instance that several processes share counts several times: the kernel does not tell.
    """
    instances: Counter[str] = Counter()
    watches: Counter[str] = Counter()
    for process in host.proc.iterdir():
        if process.name.isdigit():
            _count(process, instances, watches)
    return [
        Usage(sysctl, sum(counted.values()), int(read_sysctl(host, sysctl) or 0), _most(counted))
        for sysctl, counted in ((INSTANCES, instances), (WATCHES, watches))
    ]


def _count(process: Path, instances: Counter[str], watches: Counter[str]) -> None:
    try:
        if process.stat().st_uid != 0:
            return
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
        links = [entry.name for entry in (process / "fd").iterdir() if _is_inotify(entry)]
    except OSError:
        # It has ended.
        return
    for link in links:
        instances[name] += 1
        try:
            watches[name] += (
                (process / "fdinfo" / link).read_text(encoding="utf-8").count("inotify wd:")
            )
        except OSError:
            continue


def _is_inotify(entry: Path) -> bool:
    try:
        return str(entry.readlink()) == _LINK
    except OSError:
        return False


def _most(counted: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(counted.most_common(3))
