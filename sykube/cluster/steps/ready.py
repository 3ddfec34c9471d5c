"""Waits until the cluster truly works."""

from __future__ import annotations

from sykube.cluster.cluster import Cluster
from sykube.cluster.steps.control_plane import DOMAIN
from sykube.kubernetes import readiness
from sykube.kubernetes.api import wait_until
from sykube.node.node import Node

_TIMEOUT_S = 300.0


class Ready:
    name = "ready"
    title = "Waiting for nodes, pods and DNS"

    def is_done(self, cluster: Cluster) -> bool:
        return False

    def apply(self, cluster: Cluster) -> None:
        names = [node.instance for node in cluster.nodes]
        subnets = {node.instance: node.pod_subnet for node in cluster.nodes}
        with cluster.api() as api:
            wait_until("nodes Ready", lambda: readiness.nodes(api, names), _TIMEOUT_S)
            wait_until("pods Ready", lambda: readiness.system_pods(api, len(names)), _TIMEOUT_S)
            readiness.check_pod_subnets(api, subnets)
        for node in (cluster.master, cluster.nodes[-1]):
            wait_until("DNS", lambda node=node: self._dns(cluster, node), _TIMEOUT_S)  # type: ignore[misc]

    def undo(self, cluster: Cluster) -> None:
        """It makes nothing."""

    @staticmethod
    def _dns(cluster: Cluster, node: Node) -> str:
        name = f"kubernetes.default.svc.{DOMAIN}"
        return readiness.dns_answers(node, cluster.state.subnets.dns, name)
