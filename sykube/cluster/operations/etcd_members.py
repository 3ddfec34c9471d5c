"""The members of the cluster's etcd, one on each control plane."""

from __future__ import annotations

from sykube.cluster.model.cluster import Cluster
from sykube.kubernetes.api import wait_until
from sykube.node.node import Node

_PKI = "/etc/kubernetes/pki/etcd"
_TIMEOUT_S = 300.0
ETCDCTL = (
    *("etcdctl", "--endpoints", "https://127.0.0.1:2379", "--cacert", f"{_PKI}/ca.crt"),
    *("--cert", f"{_PKI}/peer.crt", "--key", f"{_PKI}/peer.key"),
)


def addresses(cluster: Cluster) -> dict[str, str]:
    """Those of all members of a whole cluster, by their names."""
    return {node.instance: node.address for node in cluster.control_planes}


def replace(cluster: Cluster, leader: Node, node: Node) -> dict[str, str]:
    """Let a node without any data be a member, in the place of what it was before.

    Args:
        leader: a control plane that runs.

    Returns:
        As `addresses`, of those that there are.

    Raises:
        SykubeError: etcd takes no member in the time of wait_until.
    """
    for line in _members(leader):
        member, _, name, peers, *_rest = line.split(", ")
        if name == node.instance or f"//{node.address}:" in peers:
            leader.run([*ETCDCTL, "member", "remove", member])
    peer = f"https://{node.address}:2380"
    command = [*ETCDCTL, "member", "add", node.instance, f"--peer-urls={peer}"]

    def added() -> str:
        # It refuses one that comes too soon after another.
        done = leader.run(command, check=False)
        return "" if done.ok else done.stderr.strip()

    wait_until(cluster.host, f"etcd to take {node.name}", added, _TIMEOUT_S)
    there = ", ".join(_members(leader))
    return {name: each for name, each in addresses(cluster).items() if f"//{each}:2380" in there}


def _members(leader: Node) -> list[str]:
    return leader.run([*ETCDCTL, "member", "list"]).stdout.splitlines()
