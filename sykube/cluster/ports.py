"""Ports of the host that lead into a cluster: made and removed while it runs."""

from __future__ import annotations

from sykube.cluster import lookup
from sykube.cluster.cluster import Cluster
from sykube.cluster.state import State, clusters, locked
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host import lock, preflight
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.network import ports
from sykube.network.ports import PortMap
from sykube.ui import Ui


def add(host: Host, name: str, wanted: PortMap, ui: Ui) -> bool:
    """Let a port of the host lead to one of a node; one that does already is left as it is.

    Returns:
        Whether anything was done.

    Raises:
        UsageError: the cluster has no such node.
        HostError: another program or cluster has that port.
    """
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)), lock.host_settings(host):
        cluster = lookup.load(host, name, ui)
        if wanted in cluster.state.ports:
            return False
        check(host, cluster.state, wanted)
        _lay(cluster, [*cluster.state.ports, wanted])
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
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)), lock.host_settings(host):
        cluster = lookup.load(host, name, ui)
        gone = [
            port for port in cluster.state.ports if host_port in (str(port), str(port.host_port))
        ]
        if not gone:
            raise SykubeError(
                f"no port {host_port} of the host leads to the cluster {name}",
                resolution=f"sykube port list{cluster.name_option}",
            )
        _lay(cluster, [port for port in cluster.state.ports if port not in gone])
        return gone


def check(host: Host, state: State, wanted: PortMap) -> None:
    """Refuse a port that cannot be had for a cluster.

    Raises:
        UsageError: the cluster has no such node.
        HostError: the port is taken, by a cluster or by a program.
    """
    if wanted.node and wanted.node not in state.nodes:
        raise UsageError(
            f"the cluster {state.spec.name} has no node {wanted.node!r}",
            resolution=f"Its nodes: {', '.join(state.nodes)}",
        )
    for name in {*clusters(host), state.spec.name}:
        found = state if name == state.spec.name else State.load(ClusterPaths(host, name).state)
        for other in found.ports if found else []:
            if wanted.collides(other):
                raise HostError(
                    f"the port {wanted.host_port} of {wanted.address} leads to the cluster {name}",
                    resolution=f"Take another, or: sykube port delete {other} --name {name}",
                )
    ports.check_free(host, wanted)


def _lay(cluster: Cluster, wanted: list[PortMap]) -> None:
    """Note a cluster's ports, and make the rules for them where its network is up."""
    cluster.state.ports = wanted
    cluster.save()
    if cluster.bridge.exists():
        cluster.bridge.create(cluster.wiring)
