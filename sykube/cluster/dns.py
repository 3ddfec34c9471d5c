"""Whether the cluster DNS answers."""

from __future__ import annotations

from sykube.cluster.cluster import DOMAIN, Cluster
from sykube.kubernetes import readiness

# A name that every cluster has.
DNS_PROBE = f"kubernetes.default.svc.{DOMAIN}"


def dns_problem(cluster: Cluster, pid: int) -> str:
    """What is wrong with the cluster DNS as seen from a node, by a process of it."""
    return readiness.dns_answers(cluster.host, pid, cluster.state.subnets.dns, DNS_PROBE)
