"""Node objects that are there before their kubelets report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import Cluster
from sykube.kubernetes import kubeadm, kubeadm_patches, labels
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node

# The kubelet of 1.20 takes an existing Node without any for a bug and panics
# (reconcileHugePageResource). A slow one admits its static pods by these, before its first status
# replaces them, and never looks at those again that had no room: kubeadm's ask for 650m, and etcd
# for ephemeral storage, which a Node that such a kubelet makes itself has none of at first.
_ROOM = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "110"}


def register(cluster: Cluster, api: Api, node: Node, document: Mapping[str, Any]) -> None:
    """Create a node's Node object, with the pod subnet that its CNI configuration has.

    The kubelet takes over a Node that exists, and is Ready the sooner for it. It leaves labels and
    taints alone then, also those that a patch lets it register
    (kubernetes/kubernetes, pkg/kubelet/kubelet_node_status.go, tryRegisterWithAPIServer).

    Args:
        document: what kubeadm of the node reads, with nodeRegistration.
    """
    asked = cluster.state.spec.node(node.name)
    own_labels, taints = kubeadm_patches.registration(document)
    manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.instance,
            # kubeadm waits for it before it marks a Node, and a kubelet gives it the same one
            # (cmd/kubeadm/app/util/apiclient, PatchNodeOnce).
            "labels": {"kubernetes.io/hostname": node.instance} | own_labels | asked.labels,
            "annotations": kubeadm.node_annotations(cluster.minor),
        },
        "spec": {
            **pod_network.node_spec(node),
            "taints": [*taints, *map(labels.parse_taint, asked.taints)],
        },
        "status": {"capacity": _ROOM, "allocatable": _ROOM},
    }
    try:
        api.request("POST", "/api/v1/nodes", manifest)
    except ApiError as error:
        if error.status != 409:
            raise


def join_document(cluster: Cluster, node: Node) -> dict[str, Any]:
    """What kubeadm join would be told of a node, but for how it finds the cluster."""
    return kubeadm.join_document(
        cluster.minor,
        node.instance,
        node.address,
        control_plane=node.is_control_plane,
        taint=cluster.state.spec.taint_master,
        patches=cluster.state.spec.kubeadm_patches(node.name),
    )
