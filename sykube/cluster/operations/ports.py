"""Whether a port of the host can be had for a cluster."""

from __future__ import annotations

from sykube.cluster.model.state import State, clusters
from sykube.errors import HostError, UsageError
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.network import ports
from sykube.network.ports import PortMap


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
    ports.check_free(wanted)
