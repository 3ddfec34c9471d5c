"""Hosts with cgroup v1, which the kubelet of newer versions refuses."""

from __future__ import annotations

from sykube.errors import HostError
from sykube.image.versions import MINORS, Minor
from sykube.node import cgroups


def fitting(*, allow_v1: bool) -> tuple[str, ...]:
    """The minor versions that run on this host, the newest first."""
    v1 = not allow_v1 and not cgroups.is_v2()
    return tuple(each.version for each in reversed(MINORS) if not (v1 and each.refuses_cgroup_v1))


def check(minor: Minor, *, allow_v1: bool) -> None:
    """Refuse a Kubernetes whose kubelet would end on this host again and again.

    Args:
        allow_v1: the user takes the kubelet's own way out (failCgroupV1: false).

    Raises:
        HostError: the host has cgroup v1, which this Kubernetes refuses.
    """
    if allow_v1 or not minor.refuses_cgroup_v1 or cgroups.is_v2():
        return
    last = [each.version for each in MINORS if not each.refuses_cgroup_v1][-1]
    raise HostError(
        f"this host has cgroup v1, which the kubelet of Kubernetes {minor.version} refuses",
        details="From 1.35 on it starts there only when it is told to; containerd and the kubelet "
        "will drop cgroup v1 altogether.",
        resolution=f"Take Kubernetes {last} or earlier; or boot the host with cgroup v2 (kernel "
        "parameter systemd.unified_cgroup_hierarchy=1); or take the risk: --allow-cgroup-v1.",
    )
