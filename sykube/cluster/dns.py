"""Whether the cluster DNS answers."""

from __future__ import annotations

from sykube.cluster.cluster import DOMAIN, Cluster
from sykube.kubernetes import readiness
from sykube.node.node import Node

# A name that every cluster has.
DNS_PROBE = f"kubernetes.default.svc.{DOMAIN}"


def dns_problem(cluster: Cluster, node: Node) -> str:
    """What is wrong with the cluster DNS as seen from a node."""
    return readiness.dns_answers(node.exchange, cluster.state.subnets.dns, DNS_PROBE)
