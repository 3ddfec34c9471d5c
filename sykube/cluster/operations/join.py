"""Nodes that become members: further control planes one after the other, then all workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sykube import documents
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import kubelet_identity
from sykube.cluster.operations.nodes import recreate
from sykube.cluster.operations.ready import wait_api
from sykube.cluster.operations.registration import register
from sykube.kubernetes import kubeadm, readiness
from sykube.kubernetes.api import Api, wait_until
from sykube.kubernetes.tokens import bootstrap_token
from sykube.node.node import Node

_TIMEOUT_S = 600.0
# kubeadm join writes it first and removes it last.
_BOOTSTRAP = "/etc/kubernetes/bootstrap-kubelet.conf"
_CONFIG = "/etc/kubernetes/kubeadm-join.yaml"
_PKI = "/etc/kubernetes/pki"
_CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
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
    with cluster.api() as api:
        for node in nodes:
            register(cluster, api, node, _document(cluster, node, "", ""))
        found = readiness.registered(api)
        waiting = [node for node in nodes if not readiness.has_joined(found, node.instance)]
        for node in waiting:
            if node.run(["test", "-e", _BOOTSTRAP, "-o", "-e", _PKI], check=False).ok:
                recreate(cluster, node)
        if planes := [node for node in waiting if node.is_control_plane]:
            _join_control_planes(cluster, api, leader, planes)
        if workers := [node for node in waiting if not node.is_control_plane]:
            shared = _configurations(cluster, api)
            on_each(workers, lambda node: _join_worker(cluster, leader, node, shared))


def _join_control_planes(cluster: Cluster, api: Api, leader: Node, nodes: Sequence[Node]) -> None:
    """One after the other: etcd takes one new member at a time."""
    ca_hash = authority_hash(leader)
    with bootstrap_token(api) as token:
        # Earlier, kubeadm would find it unsigned and look again after 5 s.
        name = token.split(".")[0]
        wait_until(
            cluster.host, "signed discovery", lambda: readiness.discovery(api, name), _TIMEOUT_S
        )
        for node in nodes:
            _forget_member(leader, node)
            _share_keys(leader, node)
            join(cluster, node, token, ca_hash)
    _restart_watches(cluster, nodes[-1])


def _configurations(cluster: Cluster, api: Api) -> tuple[str, str]:
    """What kubeadm join would read in the cluster: ClusterConfiguration and KubeletConfiguration.

    Source: cmd/kubeadm/app/constants/constants.go, GetKubeletConfigMapName; its name had the minor
    version up to 1.23.
    """
    minor = cluster.minor
    kubelet = "kubelet-config" if minor.number > 23 else f"kubelet-config-{minor.version}"
    return (
        api.get(f"{_CONFIG_MAPS}/kubeadm-config")["data"]["ClusterConfiguration"],
        api.get(f"{_CONFIG_MAPS}/{kubelet}")["data"]["kubelet"],
    )


def _join_worker(
    cluster: Cluster, leader: Node, node: Node, configurations: tuple[str, str]
) -> None:
    """Let a kubelet start that is known to the cluster already.

    Not by kubeadm join, which waits for others to sign what it discovers the cluster by and what
    the kubelet is known by, each time in steps of 5 s. What it writes, another phase of it does.
    """
    kubelet_identity.create(cluster, leader, node)
    document = _document(cluster, node, "", "")
    config = kubeadm.kubelet_configuration(document, node.address, *configurations)
    _run(node, ["kubeadm", "init", "phase", "kubelet-start"], config)


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
    """Run kubeadm join on a control plane; node_checks has been in the place of its preflight."""
    config = documents.dump(_document(cluster, node, token, ca_hash))
    options = ("--skip-phases", "preflight", *kubeadm.patch_options(cluster.minor))
    _run(node, ["kubeadm", "join"], config, options)


def _run(node: Node, command: Sequence[str], config: str, options: Sequence[str] = ()) -> None:
    node.write(_CONFIG, config, mode="0600")
    try:
        node.run([*command, "--config", _CONFIG, *options], timeout=_TIMEOUT_S)
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
