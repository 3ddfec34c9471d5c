"""kubeadm init on the master."""

from __future__ import annotations

from typing import Any

from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import DOMAIN, Cluster
from sykube.cluster.operations import clone
from sykube.cluster.operations.nodes import recreate
from sykube.host.files import write_atomically
from sykube.image.choice import DEBIAN
from sykube.kubernetes import kubeadm, labels
from sykube.kubernetes.api import Api, ApiError
from sykube.kubernetes.tokens import new_token
from sykube.node.node import Node

_CONFIG = "/etc/kubernetes/kubeadm-init.yaml"
_TIMEOUT_S = 600.0


def is_ready(cluster: Cluster) -> bool:
    try:
        with cluster.api() as api:
            return bool(api.get("/readyz") == "ok")
    except ApiError:
        return False


def create(cluster: Cluster) -> None:
    """Run kubeadm init on a clean master, and keep the credentials that it makes."""
    master, state = cluster.master, cluster.state
    if master.run(["test", "-e", "/etc/kubernetes/pki"], check=False).ok:
        recreate(cluster, master)
    if state.spec.from_snapshot:
        clone.scrub_etcd(cluster)
    # Its preflight needs crictl, which Debian lacks: node_checks has been in its place. The
    # cluster's DNS is a step of its own.
    options = ["--skip-token-print", "--skip-phases", "preflight,addon/coredns"]
    run_init(cluster, [], [*options, *kubeadm.patch_options(cluster.minor)])
    keep_credentials(cluster, master)
    with cluster.api() as api:
        _describe_node(cluster, api)


def keep_credentials(cluster: Cluster, node: Node) -> None:
    """Keep the administrator's kubeconfig of a control plane as the cluster's own."""
    config = node.read("/etc/kubernetes/admin.conf", secret=True)
    write_atomically(cluster.paths.kubeconfig, config, mode=0o600)


def run_init(cluster: Cluster, phase: list[str], options: list[str]) -> None:
    """Run kubeadm init, or one phase of it, on the master.

    Args:
        phase: such as ["phase", "addon", "coredns"]; none for all of it.

    Raises:
        CommandError: kubeadm failed or took more than 10 minutes.
    """
    master = cluster.master
    master.write(_CONFIG, kubeadm.init_configuration(settings(cluster)), mode="0600")
    try:
        command = ["kubeadm", "init", *phase, "--config", _CONFIG, *options]
        master.run(command, timeout=_TIMEOUT_S)
    finally:
        master.discard(_CONFIG)


def settings(cluster: Cluster) -> kubeadm.ControlPlaneSettings:
    """What kubeadm init is told of this cluster; the token is a new one."""
    state, master = cluster.state, cluster.master
    return kubeadm.ControlPlaneSettings(
        cluster=cluster.name,
        minor=cluster.minor,
        kubernetes_version=state.versions["kubernetes"].removeprefix("v"),
        image_repository=cluster.image.repository,
        # Debian's is none that kubeadm names; it leaves one alone in upgrades that it was told.
        etcd_tag=cluster.image.tag_of("etcd") if cluster.image.source == DEBIAN else "",
        node_name=master.instance,
        node_address=master.address,
        endpoint=cluster.endpoint,
        names=(cluster.endpoint_address, "localhost", "127.0.0.1"),
        pod_subnet=str(state.subnets.pods),
        service_subnet=str(state.subnets.services),
        dns=state.subnets.dns,
        domain=DOMAIN,
        token=new_token(),
        taint=state.spec.taint_master,
        is_single=len(cluster.control_planes) == 1,
        feature_gates=state.spec.feature_gates,
        runtime_config=state.spec.runtime_config,
        patches=state.spec.kubeadm_patches(master.name),
    )


def _describe_node(cluster: Cluster, api: Api) -> None:
    """Tell Kubernetes which pod subnet, labels and taints the master has."""
    master = cluster.master
    path, asked = f"/api/v1/nodes/{master.instance}", cluster.state.spec.node(master.name)
    pods = pod_network.node_spec(master)
    patch: dict[str, Any] = {"metadata": {"labels": asked.labels}, "spec": pods}
    if asked.taints:
        # A patch replaces the whole list, and others have put some there.
        found = api.get(path)["spec"].get("taints") or []
        patch["spec"]["taints"] = [*found, *map(labels.parse_taint, asked.taints)]
    api.request("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
