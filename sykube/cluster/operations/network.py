"""The cluster's bridge, its rules and the engine's network configuration."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sykube import resources
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import others
from sykube.cluster.operations import user_kubeconfig
from sykube.cluster.operations.data import make_folders
from sykube.errors import HostError
from sykube.host import lock, provision
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.records import KUBELET_SYSCTLS, HostRecords, read_sysctl
from sykube.node import cgroups

# Every container runtime and kubelet watches files; the kernel's default of 128 instances for
# each user is used up by the second cluster (kind#904, kind#2586).
_INOTIFY = {"fs/inotify/max_user_instances": 1024, "fs/inotify/max_user_watches": 524288}

_ATTEMPTS = 5


def is_up(cluster: Cluster) -> bool:
    return cluster.bridge.exists()


def set_up(cluster: Cluster) -> None:
    """Make the bridge, its rules and the engine's configuration, or what is missing of them."""
    with lock.host_settings(cluster.host):
        _set_host(cluster.host)
        _take_api_port(cluster)
    cluster.bridge.create(cluster.wiring)
    cluster.state.owned_folders += make_folders(cluster.network_dir)
    cluster.save()
    conflist = resources.render(
        "cni",
        "host-bridge.conflist.j2",
        name=cluster.network_name,
        bridge=cluster.bridge.name,
        gateway=cluster.state.subnets.gateway,
    )
    write_atomically(_conflist(cluster), conflist)
    write_atomically(
        cluster.paths.engine / "apptainer.conf",
        provision.cluster_configuration(cluster.host, cluster.state.engine, cluster.network_dir),
    )


def _take_api_port(cluster: Cluster) -> None:
    """Take the API server's port of the host, or another one where somebody has it.

    Others may have taken it while the cluster was stopped, or since it was looked at: other users,
    who make a cluster at the same time.
    """
    state, network = cluster.state, cluster.host.network
    if not state.api_port or cluster.bridge.exists():
        return
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(HostError):
            network.publish(cluster.name, [("tcp", "127.0.0.1", state.api_port)])
            return
        _change_api_port(cluster)
    network.publish(cluster.name, [("tcp", "127.0.0.1", state.api_port)])


def _change_api_port(cluster: Cluster) -> None:
    state = cluster.state
    before = state.api_port
    state.api_port = cluster.host.network.api_port(
        [each.api_port for each in others(cluster.host, cluster.name)]
    )
    cluster.save()
    file = cluster.paths.kubeconfig
    if file.exists():
        config = file.read_text(encoding="utf-8")
        new = config.replace(f"127.0.0.1:{before}", f"127.0.0.1:{state.api_port}")
        write_atomically(file, new, mode=0o600)
        user_kubeconfig.rewrite(cluster)


def remove(cluster: Cluster) -> None:
    cluster.bridge.remove()
    _conflist(cluster).unlink(missing_ok=True)


def _conflist(cluster: Cluster) -> Path:
    return cluster.network_dir / f"50-{cluster.network_name}.conflist"


def _set_host(host: Host) -> None:
    """Set what nodes need of the host, with what was there before recorded."""
    records = HostRecords.load(host) or HostRecords(host)
    records.remember(KUBELET_SYSCTLS)
    if read_sysctl(host, "net/bridge/bridge-nf-call-iptables") is None:
        records.load_module("br_netfilter")
    for key, least in _INOTIFY.items():
        if int(read_sysctl(host, key) or least) < least:
            records.set_sysctl(key, str(least))
    records.enable_forwarding()
    records.expect_folders([*cgroups.of_engines(host), host.cni_state, host.cni_state / "results"])
