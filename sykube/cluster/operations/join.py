"""kubeadm join: further control planes one after the other, then all workers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sykube import documents
from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations.nodes import recreate
from sykube.cluster.operations.ready import wait_api
from sykube.kubernetes import kubeadm, kubeadm_patches, labels, readiness
from sykube.kubernetes.api import Api, ApiError, wait_until
from sykube.kubernetes.tokens import bootstrap_token
from sykube.node.node import Node

_TIMEOUT_S = 600.0
# kubeadm join writes it first and removes it last.
_BOOTSTRAP = "/etc/kubernetes/bootstrap-kubelet.conf"
_CONFIG = "/etc/kubernetes/kubeadm-join.yaml"
_PKI = "/etc/kubernetes/pki"
# What control planes share; kubeadm makes the rest for each. Source:
# https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/high-availability/
_SHARED_KEYS = (
    *("ca.crt", "ca.key", "sa.pub", "sa.key", "front-proxy-ca.crt", "front-proxy-ca.key"),
    *("etcd/ca.crt", "etcd/ca.key"),
)
ETCDCTL = (
    *("etcdctl", "--endpoints", "https://127.0.0.1:2379", "--cacert", f"{_PKI}/etcd/ca.crt"),
    *("--cert", f"{_PKI}/etcd/peer.crt", "--key", f"{_PKI}/etcd/peer.key"),
)
# The kubelet of 1.20 takes an existing Node without any for a bug and panics
# (reconcileHugePageResource). A slow one admits its static pods by these, before its first status
# replaces them, and never looks at those again that had no room: kubeadm's ask for 650m.
_ROOM = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "110"}


def missing(cluster: Cluster) -> list[Node]:
    """Nodes whose kubelet has never reported to the API server; those that did are members."""
    with cluster.api() as api:
        items = api.get("/api/v1/nodes")["items"]
    members = {item["metadata"]["name"] for item in items if item["status"].get("conditions")}
    return [node for node in cluster.nodes if node.instance not in members]


def join_all(cluster: Cluster, nodes: Sequence[Node]) -> None:
    """Join running nodes to a running cluster; those that have joined are left as they are.

    Raises:
        SykubeError: kubeadm failed or took more than 10 minutes.
    """
    if not nodes:
        return
    leader = cluster.running_control_plane()
    ca_hash = authority_hash(leader)
    with cluster.api() as api, bootstrap_token(api) as token:
        for node in nodes:
            register(cluster, api, node)
        # Earlier, kubeadm would find it unsigned and look again after 5 s.
        name = token.split(".")[0]
        wait_until(
            cluster.host, "signed discovery", lambda: readiness.discovery(api, name), _TIMEOUT_S
        )
        found = readiness.registered(api)
        waiting = [node for node in nodes if not readiness.has_joined(found, node.instance)]
        for node in waiting:
            if node.run(["test", "-e", _BOOTSTRAP, "-o", "-e", _PKI], check=False).ok:
                recreate(cluster, node)
        for node in waiting:
            # etcd takes one new member at a time.
            if node.is_control_plane:
                _forget_member(leader, node)
                _share_keys(leader, node)
                join(cluster, node, token, ca_hash)
        if planes := [node for node in waiting if node.is_control_plane]:
            _restart_watches(cluster, planes[-1])
        workers = [node for node in waiting if not node.is_control_plane]
        on_each(workers, lambda node: join(cluster, node, token, ca_hash))


def _restart_watches(cluster: Cluster, newest: Node) -> None:
    """Start the API servers anew that have seen etcd get a member.

    For a moment, it has no leader then. The API server of 1.20 ends what its clients watch; some of
    them it goes on to serve without telling them anything: kube-proxy of the first nodes knew of no
    new Service for more than three minutes, until it was started anew.
    """
    for node in cluster.control_planes:
        if node != newest:
            node.run(["pkill", "-KILL", "-x", "kube-apiserver"], check=False)
            wait_api(cluster, node, _TIMEOUT_S)


def register(cluster: Cluster, api: Api, node: Node) -> None:
    """Create a node's Node object, with the pod subnet that its CNI configuration has.

    The kubelet takes over a Node that exists, and is Ready the sooner for it. It leaves labels and
    taints alone then, also those that a patch of JoinConfiguration lets it register
    (kubernetes/kubernetes, pkg/kubelet/kubelet_node_status.go, tryRegisterWithAPIServer).
    """
    asked = cluster.state.spec.node(node.name)
    own_labels, taints = kubeadm_patches.registration(_document(cluster, node, "", ""))
    manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.instance, "labels": own_labels | asked.labels},
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


def authority_hash(master: Node) -> str:
    """`sha256:HEX` of the public key of the cluster's CA.

    Source: https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/
    """
    public_key = (
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt"
        " | openssl pkey -pubin -outform der | sha256sum"
    )
    return f"sha256:{master.run(['sh', '-c', public_key]).stdout.split()[0]}"


def join(cluster: Cluster, node: Node, token: str, ca_hash: str) -> None:
    """Run kubeadm join; its preflight was replaced by node_checks, as for init."""
    config = documents.dump(_document(cluster, node, token, ca_hash))
    node.write(_CONFIG, config, mode="0600")
    try:
        command = ["kubeadm", "join", "--config", _CONFIG, "--skip-phases", "preflight"]
        if node.is_control_plane:
            command += kubeadm.patch_options(cluster.minor)
        node.run(command, timeout=_TIMEOUT_S)
    finally:
        node.discard(_CONFIG)


def _document(cluster: Cluster, node: Node, token: str, ca_hash: str) -> dict[str, Any]:
    return kubeadm.join_document(
        cluster.minor,
        node.instance,
        node.address,
        cluster.endpoint,
        token,
        ca_hash,
        control_plane=node.is_control_plane,
        taint=cluster.state.spec.taint_master,
        patches=cluster.state.spec.kubeadm_patches(node.name),
    )


def _share_keys(leader: Node, node: Node) -> None:
    """Copy the cluster's authorities and signing keys from one control plane to another."""
    node.run(["mkdir", "-p", "-m", "0700", f"{_PKI}/etcd"])
    for name in _SHARED_KEYS:
        text = leader.read(f"{_PKI}/{name}", secret=True)
        node.write(f"{_PKI}/{name}", text, mode="0644" if name.endswith(("crt", "pub")) else "0600")


def _forget_member(leader: Node, node: Node) -> None:
    """Take a node out of etcd that was added before it failed to join."""
    listed = leader.run([*ETCDCTL, "member", "list"]).stdout
    for line in listed.splitlines():
        member, _, name, peers, *_rest = line.split(", ")
        if name == node.instance or f"//{node.address}:" in peers:
            leader.run([*ETCDCTL, "member", "remove", member])
