"""kubeadm join on the workers, all of them at once."""

from __future__ import annotations

from sykube.cluster.cluster import Cluster, on_each
from sykube.cluster.steps.nodes import renew
from sykube.kubernetes import kubeadm, readiness
from sykube.kubernetes.api import Api, ApiError, wait_until
from sykube.kubernetes.tokens import bootstrap_token
from sykube.node.node import Node

_TIMEOUT_S = 600.0
# kubeadm join writes it first and removes it last.
_BOOTSTRAP = "/etc/kubernetes/bootstrap-kubelet.conf"
_CONFIG = "/etc/kubernetes/kubeadm-join.yaml"


class Workers:
    name = "workers"
    title = "Joining the workers (kubeadm join)"

    def is_done(self, cluster: Cluster) -> bool:
        with cluster.api() as api:
            present = {item["metadata"]["name"] for item in api.get("/api/v1/nodes")["items"]}
        return all(node.instance in present for node in cluster.workers)

    def apply(self, cluster: Cluster) -> None:
        if not cluster.workers:
            return
        ca_hash = authority_hash(cluster.master)
        with cluster.api() as api, bootstrap_token(api) as token:
            for node in cluster.workers:
                register(api, node)
            # Earlier, kubeadm would find it unsigned and look again after 5 s.
            name = token.split(".")[0]
            wait_until("signed discovery", lambda: readiness.discovery(api, name), _TIMEOUT_S)
            waiting = [node for node in cluster.workers if readiness.nodes(api, [node.instance])]
            for node in waiting:
                if node.run(["test", "-e", _BOOTSTRAP], check=False).ok:
                    renew(cluster, node)
            on_each(waiting, lambda node: join(node, cluster.endpoint, token, ca_hash))

    def undo(self, cluster: Cluster) -> None:
        """Nothing outside the nodes' folders, which go with the nodes."""


def register(api: Api, node: Node) -> None:
    """Create a worker's Node object, with the pod subnet that its CNI configuration has.

    The kubelet takes over a Node that exists, and is Ready the sooner for it.
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


def authority_hash(master: Node) -> str:
    """`sha256:HEX` of the public key of the cluster's CA.

    Source: https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/
    """
    public_key = (
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt"
        " | openssl pkey -pubin -outform der | sha256sum"
    )
    return f"sha256:{master.run(['sh', '-c', public_key]).stdout.split()[0]}"


def join(node: Node, endpoint: str, token: str, ca_hash: str) -> None:
    """Run kubeadm join; its preflight was replaced by node_checks, as for init."""
    config = kubeadm.join_configuration(node.instance, node.address, endpoint, token, ca_hash)
    node.write(_CONFIG, config, mode="0600")
    try:
        command = ["kubeadm", "join", "--config", _CONFIG, "--skip-phases", "preflight"]
        node.run(command, timeout=_TIMEOUT_S)
    finally:
        node.discard(_CONFIG)
