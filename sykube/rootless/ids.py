"""User and group IDs of a user's namespace: the user as root, and a range of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sykube.errors import HostError
from sykube.host import granted
from sykube.host.host import Host
from sykube.host.run import CommandError

_PROGRAMS = ("newuidmap", "newgidmap")


@dataclass(frozen=True)
class Ids:
    """What is mapped into a namespace.

    Attributes:
        users: first ID and length of each range of subordinate user IDs; none for the user only.
        groups: of group IDs.
    """

    uid: int
    gid: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()

    @property
    def has_ranges(self) -> bool:
        return bool(self.users and self.groups)


def of_user(host: Host, name: str, uid: int, gid: int) -> Ids:
    """The IDs that the machine grants a user; the user's own where there is no range to be had."""
    users = granted.id_ranges(host.etc / "subuid", name, str(uid))
    groups = granted.id_ranges(host.etc / "subgid", name, str(uid))
    if not all(host.which(program) for program in _PROGRAMS):
        return Ids(uid, gid)
    enough = granted.has_enough_ids(host, name, uid)
    return Ids(uid, gid, users, groups) if enough else Ids(uid, gid)


def map_into(host: Host, pid: int, ids: Ids) -> None:
    """Map IDs into the new user namespace of a process of the user's.

    Raises:
        HostError: it is refused.
    """
    if ids.has_ranges:
        _by_programs(host, pid, ids)
        return
    process = host.proc / str(pid)
    # Without it the kernel takes no group: user_namespaces(7).
    (process / "setgroups").write_text("deny", encoding="utf-8")
    (process / "uid_map").write_text(f"0 {ids.uid} 1\n", encoding="utf-8")
    (process / "gid_map").write_text(f"0 {ids.gid} 1\n", encoding="utf-8")


def _by_programs(host: Host, pid: int, ids: Ids) -> None:
    try:
        host.run(["newuidmap", str(pid), *_words(ids.uid, ids.users)])
        host.run(["newgidmap", str(pid), *_words(ids.gid, ids.groups)])
    except CommandError as error:
        raise HostError(
            "your subordinate user IDs (/etc/subuid) cannot be used",
            details=error.details,
            resolution="Ask the administrator for: chmod u+s $(command -v newuidmap newgidmap)",
        ) from error


def _words(own: int, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Arguments of newuidmap: the user as 0, then the ranges from 1 on."""
    words, first = ["0", str(own), "1"], 1
    for start, length in ranges:
        words += [str(first), str(start), str(length)]
        first += length
    return words
