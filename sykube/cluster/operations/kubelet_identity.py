"""The client certificates of kubelets, signed with the cluster's CA on a control plane.

kubeadm would have a kubelet ask for one (TLS bootstrap): first the controller manager has to sign
what the node discovers the cluster by, then to approve and sign its request.
"""

from __future__ import annotations

from sykube import resources
from sykube.cluster.model.cluster import Cluster
from sykube.kubernetes import kubelet
from sykube.node.node import Node

_CA = "/etc/kubernetes/pki/ca.crt"


def renew_certificate(leader: Node, node: Node) -> None:
    """Give a node's kubelet a new certificate; it reads it when it starts.

    Args:
        leader: a control plane that runs.
    """
    request = node.run(resources.script("request-certificate", node.instance)).stdout
    signed = leader.run(resources.script("sign-certificate"), stdin=request).stdout
    node.run(resources.script("install-certificate"), stdin=signed)


def kubeconfig(cluster: Cluster, leader: Node) -> str:
    """The kubeconfig of every kubelet, which names the file of its certificate."""
    return kubelet.client_config(f"https://{cluster.endpoint}", leader.read(_CA))


def create(leader: Node, node: Node, config: str) -> None:
    """Let the kubelet of a new node be known to the API server.

    Args:
        config: as `kubeconfig` gives it.
    """
    renew_certificate(leader, node)
    node.run(resources.script("install-kubeconfig"), stdin=config)
