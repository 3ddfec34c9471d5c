"""Stock kubeadm on nodes that are prepared for it: what `sykube init` is compared with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sykube import documents
from sykube.cluster.commands import lifecycle, plan, removal, steps
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import control_plane, dns
from sykube.host.host import Host
from sykube.kubernetes import kubeadm
from sykube.kubernetes.api import wait_until
from sykube.node.node import Node
from sykube.ui import Ui

# What sykube adds to make kubeadm and its cluster faster.
_OURS = (
    *("controllerManager", "scheduler", "syncFrequency", "kubeAPIQPS", "kubeAPIBurst", "patches"),
    *("nodeStatusUpdateFrequency", "nodeStatusReportFrequency"),
    *("encryptionAlgorithm", "featureGates"),
)
# Not below /etc/kubernetes, which is compared.
_CONFIG = "/run/stock-kubeadm.yaml"


@contextlib.contextmanager
def prepared(spec: ClusterSpec) -> Iterator[Cluster]:
    """Nodes that run, with containerd up and no Kubernetes yet; deleted at the end."""
    ui = Ui(quiet=True)
    cluster = lifecycle._new(Host(), spec, InitOptions(), ui)
    try:
        prepared = [step for step in steps.ALL if step.name in ("data", "network", "nodes")]
        plan.execute(cluster, prepared)
        yield cluster
    finally:
        removal.delete(Host(), spec.name, ui)


def init(cluster: Cluster, *options: str) -> float:
    """Seconds of `kubeadm init` on the master, with the cluster's values.

    Preflight needs crictl, which Debian lacks, as it does CoreDNS.
    """
    master = cluster.master
    configuration = documents.dump_all(kubeadm.init_documents(control_plane.settings(cluster)))
    master.write(_CONFIG, _stock(configuration), mode="0600")
    skipped = "preflight" if cluster.minor.has_coredns else "preflight,addon/coredns"
    command = ["kubeadm", "init", "--config", _CONFIG, "--skip-phases", skipped]
    started = time.monotonic()
    master.run([*command, "--skip-token-print", *options], timeout=600)
    return time.monotonic() - started


def _stock(configuration: str) -> str:
    """The configuration without what is sykube's own."""
    parts = documents.load_all(configuration)
    for part in parts:
        for key in _OURS:
            part.pop(key, None)
        part.get("etcd", {}).get("local", {}).pop("extraArgs", None)
    return documents.dump_all(parts)


def join(cluster: Cluster) -> float:
    """Seconds of joining all other nodes one after the other, by the command that kubeadm prints.

    That has a token and the hash of the CA. Control planes find the cluster's keys in the cluster.
    """
    environment = "KUBECONFIG=/etc/kubernetes/admin.conf"
    printed = cluster.master.run(
        ["env", environment, "kubeadm", "token", "create", "--print-join-command"], secret=True
    )
    command = printed.stdout.strip().splitlines()[-1].split()
    further: list[str] = []
    if len(cluster.control_planes) > 1:
        upload = ["kubeadm", "init", "phase", "upload-certs", "--upload-certs"]
        key = cluster.master.run(upload, secret=True).stdout.strip().splitlines()[-1]
        further = ["--control-plane", "--certificate-key", key]
    return sum(
        _join(node, [*command, *(further if node.is_control_plane else ())])
        for node in cluster.nodes[1:]
    )


def _join(node: Node, command: list[str]) -> float:
    options = ["--node-name", node.instance, "--cri-socket", kubeadm.CRI_SOCKET]
    node.write(_CONFIG, " ".join([*command, *options, "--skip-phases", "preflight"]), mode="0600")
    started = time.monotonic()
    node.run(["sh", _CONFIG], timeout=600)
    return time.monotonic() - started


def finish(cluster: Cluster) -> float:
    """Seconds until the only node takes pods and answers for names.

    That is what its user has to do, and to wait for. Where there is no CoreDNS, sykube's own DNS.
    """
    control_plane.keep_credentials(cluster, cluster.master)
    started = time.monotonic()
    with cluster.api() as api:
        path = f"/api/v1/nodes/{cluster.master.instance}"
        patch = {"spec": {"taints": None}}
        api.request("PATCH", path, patch, content_type="application/merge-patch+json")
    if not cluster.minor.has_coredns:
        dns.install(cluster)
    wait_until(cluster.host, "DNS", lambda: cluster.dns_problem(cluster.master), 300)
    return time.monotonic() - started
