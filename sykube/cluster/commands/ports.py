"""Ports of the host that lead into a cluster: made and removed while it runs."""

from __future__ import annotations

from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import ports
from sykube.cluster.operations.opening import opened
from sykube.errors import SykubeError
from sykube.host import lock
from sykube.host.host import Host
from sykube.network.ports import PortMap
from sykube.ui import Ui

# Rules are made where its network is up, and noted otherwise.
_ANY = {"unfinished": True, "stopped": True, "paused": True, "updating": True}


def add(host: Host, name: str, wanted: PortMap, ui: Ui) -> bool:
    """Let a port of the host lead to one of a node; one that does already is left as it is.

    Returns:
        Whether anything was done.

    Raises:
        UsageError: the cluster has no such node.
        HostError: another program or cluster has that port.
    """
    with opened(host, name, ui, **_ANY) as cluster, lock.host_settings(host):
        if wanted in cluster.state.ports:
            return False
        ports.require_free(host, cluster.state, wanted)
        _apply(cluster, [*cluster.state.ports, wanted])
        return True


def remove(host: Host, name: str, host_port: str, ui: Ui) -> list[PortMap]:
    """Take ports of the host away from a cluster.

    Args:
        host_port: the whole text as `port list` shows it, or the host's port alone.

    Returns:
        Those that were taken away.

    Raises:
        SykubeError: the cluster has no such port.
    """
    with opened(host, name, ui, **_ANY) as cluster, lock.host_settings(host):
        gone = [
            port for port in cluster.state.ports if host_port in (str(port), str(port.host_port))
        ]
        if not gone:
            raise SykubeError(
                f"no port {host_port} of the host leads to the cluster {name}",
                resolution=f"sykube port list{cluster.name_option}",
            )
        _apply(cluster, [port for port in cluster.state.ports if port not in gone])
        return gone


def _apply(cluster: Cluster, wanted: list[PortMap]) -> None:
    """Note a cluster's ports, and make the rules for them where its network is up."""
    cluster.state.ports = wanted
    cluster.save()
    if cluster.bridge.exists():
        cluster.bridge.create(cluster.wiring)
