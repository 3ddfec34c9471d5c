"""The settings that a machine's kernel has once for all its namespaces, as nodes make them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sykube.cluster.model.state import clusters
from sykube.host import lock
from sykube.host.host import Host
from sykube.host.records import HostRecords, read_sysctl
from sykube.node import cgroups

# setupKernelTunables of the kubelet, pkg/kubelet/cm/container_manager_linux.go.
KUBELET = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
# Nodes raise these, and leave what is higher.
_AT_LEAST = {"fs/inotify/max_user_instances": 1024, "fs/inotify/max_user_watches": 524_288}


def read(host: Host) -> dict[str, int]:
    """All of them, as they are now."""
    return {key: int(read_sysctl(host, key) or 0) for key in (*KUBELET, *_AT_LEAST)}


def of_nodes(before: dict[str, int]) -> dict[str, int]:
    """What a cluster makes of them."""
    return KUBELET | {key: max(least, before[key]) for key, least in _AT_LEAST.items()}


@contextlib.contextmanager
def held() -> Iterator[None]:
    """As nodes make them all the while, so that no cluster changes them."""
    host = Host()
    with lock.host_settings(host):
        records = HostRecords.load(host) or HostRecords(host)
        for key, value in of_nodes(read(host)).items():
            records.set_sysctl(key, str(value))
        if cgroups.is_v2(host):
            records.enable_controllers(host.cgroups)
        if read_sysctl(host, "net/bridge/bridge-nf-call-iptables") is None:
            records.load_module("br_netfilter")
    try:
        yield
    finally:
        restore_left()


def restore_left() -> None:
    """As they were, unless there is a cluster; also where a run was killed."""
    host = Host()
    with lock.host_settings(host):
        records = HostRecords.load(host)
        if records and not clusters(host):
            records.restore()
            for folder in (host.records, host.data):
                with contextlib.suppress(OSError):
                    folder.rmdir()
