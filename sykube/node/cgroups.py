"""A cgroup tree for each node, below the root of every hierarchy: sykube/INSTANCE.

On cgroup v1 that is a folder in each controller's hierarchy, on v2 a single one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from sykube.errors import SykubeError
from sykube.host import lock
from sykube.host.host import Host
from sykube.host.records import HostRecords
from sykube.node.limits import Limits
from sykube.node.node import Usage

PARENT = "sykube"
_NO_LIMITS = Limits()
# The kernel's own default of the period over which a share of processors is counted.
_PERIOD_US = 100_000
# File below the root, with what it holds for a running and for a frozen node: v1, v2.
_FREEZERS = (
    ("freezer/{}/freezer.state", ("THAWED", "FROZEN")),
    ("{}/cgroup.freeze", ("0", "1")),
)
_EMPTY_TIMEOUT_S = 20.0
_ENGINES = ("apptainer", "singularity")


def is_v2(host: Host) -> bool:
    """Whether the controllers are in the unified hierarchy."""
    return (host.cgroups / "cgroup.controllers").exists()


def path_of(instance: str) -> str:
    """The node's cgroup relative to the root of each hierarchy."""
    return f"{PARENT}/{instance}"


def create(host: Host, instance: str, limits: Limits = _NO_LIMITS) -> None:
    """Make the node's cgroups, or set the limits of those that exist; nothing without cgroups."""
    if not host.grants.cgroups:
        return
    if is_v2(host):
        parent = host.cgroups / PARENT
        with lock.host_settings(host):
            (HostRecords.load(host) or HostRecords(host)).enable_controllers(host.cgroups)
        parent.mkdir(exist_ok=True)
        for controller in (host.cgroups / "cgroup.controllers").read_text(encoding="utf-8").split():
            # What the root does not hand on cannot be handed on here.
            with contextlib.suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"+{controller}", encoding="utf-8")
        (host.cgroups / path_of(instance)).mkdir(exist_ok=True)
        _limit(host.cgroups / path_of(instance), _limits_v2(limits))
        return
    for hierarchy in _hierarchies(host):
        for folder in (hierarchy / PARENT, hierarchy / path_of(instance)):
            folder.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                # A new cpuset is empty and takes no process until it is filled.
                if (folder / name).exists() and not (folder / name).read_text(
                    encoding="utf-8"
                ).strip():
                    (folder / name).write_text(
                        (folder.parent / name).read_text(encoding="utf-8"), encoding="utf-8"
                    )
        _limit(hierarchy / path_of(instance), _limits_v1(limits))


def freeze(host: Host, instance: str, *, frozen: bool) -> None:
    """Stop or go on with every process of a node, where it has cgroups."""
    for path, values in _freezers(host, instance):
        path.write_text(values[frozen], encoding="utf-8")


def is_frozen(host: Host, instance: str) -> bool:
    """Whether a node's processes are stopped."""
    return any(
        path.read_text(encoding="utf-8").strip() == values[True]
        for path, values in _freezers(host, instance)
    )


def _freezers(host: Host, instance: str) -> Iterator[tuple[Path, tuple[str, str]]]:
    for file, values in _FREEZERS:
        path = host.cgroups / file.format(path_of(instance))
        # Without grants, those that are there are of another's cluster of the same name.
        if host.grants.cgroups and path.exists():
            yield path, values


def usage(host: Host, instance: str) -> Usage:
    """What a node uses now."""
    if not host.grants.cgroups:
        return Usage(None, None)
    node = path_of(instance)
    if is_v2(host):
        spent = _field(host.cgroups / node / "cpu.stat", "usage_usec")
        held = _number(host.cgroups / node / "memory.current")
        stale = _field(host.cgroups / node / "memory.stat", "inactive_file")
        return Usage(None if spent is None else spent / 1e6, _working_set(held, stale))
    spent = _number(host.cgroups / "cpuacct" / node / "cpuacct.usage")
    held = _number(host.cgroups / "memory" / node / "memory.usage_in_bytes")
    stale = _field(host.cgroups / "memory" / node / "memory.stat", "total_inactive_file")
    return Usage(None if spent is None else spent / 1e9, _working_set(held, stale))


def _working_set(held: int | None, stale: int | None) -> int | None:
    return None if held is None else max(held - (stale or 0), 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> int | None:
    try:
        pairs = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
        return next((int(value) for key, value in pairs if key == name), None)
    except (OSError, ValueError):
        return None


def _limits_v1(limits: Limits) -> dict[str, str]:
    # A group's limits can only be lower than those of the groups in it while these allow it, so
    # none is set before the node runs. Kernel documentation: cgroup-v1/memory.rst, cpu bandwidth.
    return {
        "cpu.cfs_quota_us": str(limits.millicores * _PERIOD_US // 1000)
        if limits.millicores
        else "-1",
        "memory.limit_in_bytes": str(limits.memory or -1),
        "pids.max": str(limits.pids or "max"),
    }


def _limits_v2(limits: Limits) -> dict[str, str]:
    quota = limits.millicores * _PERIOD_US // 1000 if limits.millicores else "max"
    return {
        "cpu.max": f"{quota} {_PERIOD_US}",
        "memory.max": str(limits.memory or "max"),
        "pids.max": str(limits.pids or "max"),
    }


def _limit(folder: Path, values: dict[str, str]) -> None:
    for name, value in values.items():
        if (folder / name).exists():
            (folder / name).write_text(value, encoding="utf-8")


def remove(host: Host, instance: str) -> None:
    """Kill what is left in the node's cgroups and remove them; the parent goes with the last.

    Raises:
        SykubeError: processes do not end.
    """
    for hierarchy in _all_hierarchies(host):
        folder = hierarchy / path_of(instance)
        if folder.is_dir():
            freeze(host, instance, frozen=False)
            _empty(host, folder)
            _remove_tree(host, folder)
        with contextlib.suppress(OSError):
            (hierarchy / PARENT).rmdir()
    _remove_abandoned(host)


def of_engines(host: Host) -> list[Path]:
    """The parents of the cgroups that engines make for their instances, in each hierarchy."""
    return [root / name for root in _all_hierarchies(host) for name in _ENGINES]


def _remove_abandoned(host: Host) -> None:
    """Remove what an engine leaves that was killed: cgroups of processes that are no more."""
    for parent in of_engines(host):
        for folder in parent.glob("[0-9]*"):
            if not (host.proc / folder.name).exists():
                # The kernel refuses where there is still another process in it.
                with contextlib.suppress(OSError):
                    folder.rmdir()


def processes(folder: Path) -> list[int]:
    """Processes in a cgroup and below it."""
    found: list[int] = []
    for below, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            found += [
                int(pid)
                for pid in (folder / below / "cgroup.procs").read_text(encoding="utf-8").split()
            ]
    return [pid for pid in found if pid > 0]


def members(host: Host, instance: str) -> list[int]:
    """Processes of a node, whatever the engine knows of it."""
    folders = (hierarchy / path_of(instance) for hierarchy in _all_hierarchies(host))
    return next((found for folder in folders if (found := processes(folder))), [])


def leftovers(host: Host, cluster_prefix: str) -> list[str]:
    """Instances that have cgroups, of those whose names start with a prefix."""
    names = {
        folder.name
        for hierarchy in _all_hierarchies(host)
        for folder in hierarchy.glob(f"{PARENT}/{cluster_prefix}*")
    }
    return sorted(names)


def _hierarchies(host: Host) -> Iterator[Path]:
    """Roots of the v1 hierarchies that a node joins; a cgroup2 beside them holds no controller."""
    for folder in sorted(host.cgroups.iterdir()):
        # A link is another name of a hierarchy that is mounted here, too: cpu of cpu,cpuacct.
        if not folder.is_symlink() and (folder / "tasks").exists():
            yield folder


def _all_hierarchies(host: Host) -> list[Path]:
    if not host.grants.cgroups:
        return []
    return [host.cgroups] if is_v2(host) else [*_hierarchies(host)]


def _empty(host: Host, folder: Path) -> None:
    deadline = host.monotonic() + _EMPTY_TIMEOUT_S
    while left := processes(folder):
        if host.monotonic() > deadline:
            raise SykubeError(
                f"processes of a node do not end: {', '.join(map(str, left))}",
                details=f"they are in {folder}",
                resolution="See what they wait for (ps -o pid,wchan,args), then delete again.",
            )
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                host.kill(pid, signal.SIGKILL)
        host.sleep(0.05)


def _remove_tree(host: Host, folder: Path) -> None:
    for below, _, _ in os.walk(folder, topdown=False):
        _rmdir(host, folder / below)


def _rmdir(host: Host, folder: Path) -> None:
    # The kernel lets go of the last process a moment after it was reaped.
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            host.sleep(0.02)
        else:
            return
    folder.rmdir()
