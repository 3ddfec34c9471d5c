"""kubeadm join on the workers, all of them at once."""

from __future__ import annotations

from sykube.cluster.cluster import Cluster, on_each
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node

_TIMEOUT_S = 600.0
_JOIN_CONFIG = "/etc/sykube/join.yaml"


class Workers:
    name = "workers"
    title = "Joining the workers (kubeadm join)"

    def is_done(self, cluster: Cluster) -> bool:
        with cluster.api() as api:
            present = {item["metadata"]["name"] for item in api.get("/api/v1/nodes")["items"]}
        return all(node.instance in present for node in cluster.workers)

    def apply(self, cluster: Cluster) -> None:
        with cluster.api() as api:
            for node in cluster.workers:
                register(api, node)
        on_each(cluster.workers, join)

    def undo(self, cluster: Cluster) -> None:
        """Nothing outside the nodes' folders, which go with the nodes."""


def register(api: Api, node: Node) -> None:
    """Create a worker's Node object, with the pod subnet that its CNI configuration has.

    Workers join at the same time, so the controller manager would hand out the ranges in any
    order. The kubelet takes over a Node that exists.
    """
    manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.instance},
        "spec": {"podCIDR": node.pod_subnet, "podCIDRs": [node.pod_subnet]},
        # The kubelet of 1.20 takes an existing Node without any for a bug and panics
        # (reconcileHugePageResource); its first status replaces these.
        "status": {"capacity": {"pods": "110"}, "allocatable": {"pods": "110"}},
    }
    try:
        api.request("POST", "/api/v1/nodes", manifest)
    except ApiError as error:
        if error.status != 409:
            raise


def join(node: Node) -> None:
    """Run kubeadm join; its preflight was replaced by node_checks, as for init."""
    if node.run(["test", "-e", "/etc/kubernetes/kubelet.conf"], check=False).ok:
        return
    try:
        command = ["kubeadm", "join", "--config", _JOIN_CONFIG, "--skip-phases", "preflight"]
        node.run(command, timeout=_TIMEOUT_S)
    finally:
        for name in ("join.yaml", "discovery.conf"):
            (node.config / name).unlink(missing_ok=True)
