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
from sykube.cluster.operations import control_plane
from sykube.host.host import Host
from sykube.kubernetes import kubeadm
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
    """Seconds of the command that kubeadm prints: with a token and the hash of the CA."""
    environment = "KUBECONFIG=/etc/kubernetes/admin.conf"
    printed = cluster.master.run(
        ["env", environment, "kubeadm", "token", "create", "--print-join-command"], secret=True
    )
    command = printed.stdout.strip().splitlines()[-1].split()
    worker = cluster.workers[0]
    options = ["--node-name", worker.instance, "--cri-socket", kubeadm.CRI_SOCKET]
    worker.write(_CONFIG, " ".join([*command, *options, "--skip-phases", "preflight"]), mode="0600")
    started = time.monotonic()
    worker.run(["sh", _CONFIG], timeout=600)
    return time.monotonic() - started
