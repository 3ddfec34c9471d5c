"""Which host a cluster of an ordinary user's belongs to: several may share the user's folders.

That is recorded beside the cluster's folder, which may be a link to a folder that other hosts have
not (--dest), or a mount that they do not see (--ephemeral). Root's folders are of one host.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sykube.errors import ExitCode, SykubeError
from sykube.host import file_systems
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.records import read_sysctl

_SUFFIX = ".host"


@dataclass(frozen=True)
class Owner:
    """A host, as others can tell it apart.

    Attributes:
        machine: its machine ID (machine-id(5)); empty where it has none.
        name: its host name.
    """

    machine: str
    name: str


def this(host: Host) -> Owner:
    """The host itself."""
    try:
        machine = (host.etc / "machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        machine = ""
    # Of an image that was not booted yet.
    machine = "" if machine == "uninitialized" else machine
    return Owner(machine, read_sysctl(host, "kernel/hostname") or "")


def note(host: Host, name: str) -> None:
    """Record that a cluster, which is about to be made, belongs to this host."""
    if host.grants.rootless:
        write_atomically(_record(host, name), json.dumps(asdict(this(host))))


def forget(host: Host, name: str) -> None:
    """Remove that record."""
    _record(host, name).unlink(missing_ok=True)


def elsewhere(host: Host, name: str) -> str:
    """The name of the other host that a cluster belongs to; empty where it is here, or not said."""
    if not host.grants.rootless:
        return ""
    try:
        stored = json.loads(_record(host, name).read_text(encoding="utf-8"))
        owner = Owner(stored["machine"], stored["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "" if _is_same(host, owner) else owner.name or owner.machine


def mark(host: Host) -> str:
    """What this host is told apart by from others that share the user's folders."""
    here = this(host)
    return here.name if _by_name(host) or not here.machine else here.machine


def _is_same(host: Host, owner: Owner) -> bool:
    here = this(host)
    if owner.machine and here.machine and not _by_name(host):
        return owner.machine == here.machine
    return owner.name == here.name


def _by_name(host: Host) -> bool:
    # Machines of one cluster may have the ID of one image, or a new one at each boot.
    return bool(file_systems.network_type(host, host.data))


def others(host: Host) -> dict[str, str]:
    """The clusters in the user's folders that belong to other hosts, each with its host."""
    if not (host.grants.rootless and host.data.is_dir()):
        return {}
    names = sorted(file.stem for file in host.data.glob(f"*{_SUFFIX}"))
    return {name: other for name in names if (other := elsewhere(host, name))}


def require_no_others(host: Host, what: str) -> None:
    """Refuse to remove what clusters of other hosts may use.

    Args:
        what: it is.

    Raises:
        SykubeError: there are such clusters (ELSEWHERE).
    """
    if found := others(host):
        named = ", ".join(f"{name} on {other}" for name, other in found.items())
        raise SykubeError(
            f"clusters of other hosts may use {what}: {named}",
            resolution="Delete them there first: sykube delete --name CLUSTER",
            exit_code=ExitCode.ELSEWHERE,
        )


def require_here(host: Host, name: str) -> None:
    """Refuse a cluster that belongs to another host.

    Raises:
        SykubeError: it does (ELSEWHERE).
    """
    if other := elsewhere(host, name):
        raise SykubeError(
            f"the cluster {name} is elsewhere: on the host {other}",
            details="both hosts share your folders, and a cluster belongs to the host that made it",
            resolution=f"Run the command on {other}, or take another --name. Where {other} is gone "
            f"for good, or is this host by another name: rm {_record(host, name)}",
            exit_code=ExitCode.ELSEWHERE,
        )


def _record(host: Host, name: str) -> Path:
    # No name of a cluster has a dot.
    return host.data / f"{name}{_SUFFIX}"
