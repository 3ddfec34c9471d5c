"""Whether a port of the host can be had for a cluster."""

from __future__ import annotations

from sykube.cluster.model.state import State, others
from sykube.errors import HostError, UsageError
from sykube.host.host import Host
from sykube.network import ports
from sykube.network.ports import PortMap


def require_free(host: Host, state: State, wanted: PortMap) -> None:
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
    for found in (state, *others(host, state.spec.name)):
        for other in found.ports:
            if wanted.collides(other):
                name = found.spec.name
                raise HostError(
                    f"the port {wanted.host_port} of {wanted.address} leads to the cluster {name}",
                    resolution=f"Take another, or: sykube port delete {other} --name {name}",
                )
    ports.check_free(host, wanted)
