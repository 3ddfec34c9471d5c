"""Hosts with cgroup v1, which the kubelet of newer versions refuses."""

from __future__ import annotations

from sykube.errors import HostError
from sykube.host import granted
from sykube.host.host import Host
from sykube.image.versions import MINORS, Minor
from sykube.node import cgroups

_BOOT = "boot the host with cgroup v2 (kernel parameter systemd.unified_cgroup_hierarchy=1)"


def fitting(host: Host, *, allow_v1: bool) -> tuple[str, ...]:
    """The minor versions that run on this host, the newest first."""
    v1 = not allow_v1 and _has_v1(host)
    return tuple(each.version for each in reversed(MINORS) if not (v1 and each.refuses_cgroup_v1))


def _has_v1(host: Host) -> bool:
    """Whether nodes have cgroup v1; where they may have none, node-init shows no kubelet one."""
    return host.grants.cgroups and not cgroups.is_v2(host)


def require_cgroup_version(host: Host, minor: Minor, *, allow_v1: bool) -> None:
    """Refuse a Kubernetes whose kubelet would end on this host again and again.

    Args:
        allow_v1: the user takes the kubelet's own way out (failCgroupV1: false).

    Raises:
        HostError: the host has cgroup v1, which this Kubernetes refuses.
    """
    last = [each.version for each in MINORS if not each.refuses_cgroup_v1][-1]
    _check(
        host,
        minor,
        allow_v1,
        f"Take Kubernetes {last} or earlier; or {_BOOT}; or take the risk: --allow-cgroup-v1.",
    )


def check_again(host: Host, minor: Minor, *, allow_v1: bool) -> None:
    """The same of a cluster that is there: the host was booted otherwise since it was made.

    Raises:
        HostError: as `check`.
    """
    resolution = f"{_BOOT[0].upper()}{_BOOT[1:]}, as when the cluster was made."
    if host.grants.rootless:
        # Made without any: those are of v1 that the user was granted since.
        group = f"/sys/fs/cgroup/*/{granted.cgroup_name(host.grants.uid)}"
        resolution = (
            f"Ask the administrator to take your cgroups away again (rmdir {group}), or make the "
            "cluster again: sykube init --allow-cgroup-v1"
        )
    _check(host, minor, allow_v1, resolution)


def _check(host: Host, minor: Minor, allow_v1: bool, resolution: str) -> None:
    if allow_v1 or not minor.refuses_cgroup_v1 or not _has_v1(host):
        return
    raise HostError(
        f"this host has cgroup v1, which the kubelet of Kubernetes {minor.version} refuses",
        details="From 1.35 on it starts there only when it is told to; containerd and the kubelet "
        "will drop cgroup v1 altogether.",
        resolution=resolution,
    )
