"""Nodes that become members: further control planes one after the other, then all workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sykube import documents
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import control_plane, kubelet_identity
from sykube.cluster.operations.nodes import recreate
from sykube.cluster.operations.registration import join_document, register
from sykube.kubernetes import kubeadm, readiness
from sykube.kubernetes.api import Api
from sykube.node.node import Node

_PKI = "/etc/kubernetes/pki"
_CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"


def missing(cluster: Cluster) -> list[Node]:
    """Nodes whose kubelet has never reported to the API server; those that did are members."""
    with cluster.api() as api:
        items = api.get("/api/v1/nodes")["items"]
    members = {item["metadata"]["name"] for item in items if item["status"].get("conditions")}
    return [node for node in cluster.nodes if node.instance not in members]


def join_all(
    cluster: Cluster, nodes: Sequence[Node], shared: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Join running nodes to a running cluster; those that have joined are left as they are.

    Args:
        shared: the configuration that all nodes share, where the cluster may not have it yet.

    Raises:
        SykubeError: kubeadm failed or took more than 10 minutes.
    """
    if not nodes:
        return
    with cluster.api() as api:
        for node in nodes:
            register(cluster, api, node, join_document(cluster, node))
        found = readiness.registered(api)
        waiting = [node for node in nodes if not readiness.has_joined(found, node.instance)]
        if not waiting:
            return
        leader = cluster.running_control_plane(without=waiting)
        for node in waiting:
            if node.run(["test", "-e", _PKI], check=False).ok:
                recreate(cluster, node)
        shared = shared or _configurations(cluster, api)
        for node in waiting:
            if node.is_control_plane:
                control_plane.join(cluster, leader, node, shared)
        workers = [node for node in waiting if not node.is_control_plane]
        if workers:
            _join_workers(cluster, leader, workers, shared)


def _configurations(cluster: Cluster, api: Api) -> list[dict[str, Any]]:
    """What kubeadm join would read in the cluster: ClusterConfiguration and KubeletConfiguration.

    Source: cmd/kubeadm/app/constants/constants.go, GetKubeletConfigMapName; its name had the minor
    version up to 1.23.
    """
    minor = cluster.minor
    kubelet = "kubelet-config" if minor.number > 23 else f"kubelet-config-{minor.version}"
    return [
        documents.load(api.get(f"{_CONFIG_MAPS}/{name}")["data"][key])
        for name, key in (("kubeadm-config", "ClusterConfiguration"), (kubelet, "kubelet"))
    ]


def _join_workers(
    cluster: Cluster, leader: Node, nodes: Sequence[Node], shared: Sequence[Mapping[str, Any]]
) -> None:
    """Let kubelets start that are known to the cluster already.

    Not by kubeadm join, which waits for others to sign what it discovers the cluster by and what
    the kubelet is known by, each time in steps of 5 s. What it writes, another phase of it does.
    """

    kubeconfig = kubelet_identity.kubeconfig(cluster, leader)

    def start(node: Node) -> None:
        kubelet_identity.create(leader, node, kubeconfig)
        config = kubeadm.node_documents(join_document(cluster, node), node.address, shared)
        control_plane.run_init(node, ["phase", "kubelet-start"], config)

    on_each(nodes, start)
