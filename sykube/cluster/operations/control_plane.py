"""kubeadm init on the master."""

from __future__ import annotations

from typing import Any

from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import DOMAIN, Cluster, on_each
from sykube.cluster.operations import clone
from sykube.cluster.operations.nodes import look_for_api, recreate
from sykube.cluster.operations.ready import wait_api
from sykube.cluster.operations.registration import register
from sykube.host.files import write_atomically
from sykube.image.choice import DEBIAN
from sykube.kubernetes import kubeadm, labels
from sykube.kubernetes.api import Api, ApiError, Credentials, wait_until
from sykube.kubernetes.tokens import new_token
from sykube.node.node import Node

_CONFIG = "/etc/kubernetes/kubeadm-init.yaml"
_TIMEOUT_S = 600.0
# Phases of kubeadm init that write files and start the kubelet, and those that change the cluster.
_FILES = ("certs", "kubeconfig", "etcd", "control-plane", "kubelet-start")
_OBJECTS = (
    *("upload-config", "upload-certs", "mark-control-plane", "bootstrap-token"),
    *("kubelet-finalize", "addon"),
)
# Its preflight needs crictl, which Debian lacks: node_checks has been in its place. The cluster's
# DNS is a step of its own.
_NEVER = ("preflight", "wait-control-plane")


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
        # It would start etcd from what is being changed.
        master.stop_service("kubelet")
        on_each((clone.scrub_etcd, _write_files), lambda do: do(cluster))
        master.start_service("kubelet")
    else:
        _write_files(cluster)
    keep_credentials(cluster, master)
    with _first_api(cluster) as api:
        what = "the API server's first answer"
        wait_until(cluster.host, what, lambda: _has_namespaces(api), _TIMEOUT_S)
        register(cluster, api, master, kubeadm.init_documents(settings(cluster))[0])
    look_for_api([master])
    _run_phases(cluster, without=(*_NEVER, *_FILES, "addon/coredns"))
    wait_api(cluster, master, _TIMEOUT_S)
    with cluster.api() as api:
        _describe_node(cluster, api)


def _write_files(cluster: Cluster) -> None:
    """What kubeadm init writes; the kubelet starts from it."""
    # It shows the token of another phase; that of 1.20 does so outside of phases.
    last = ("show-join-command",) if cluster.minor.number > 20 else ()
    _run_phases(cluster, without=(*_NEVER, *_OBJECTS, *last))


def _first_api(cluster: Cluster) -> Api:
    """A client that may do everything before there are roles.

    From 1.29 on that is not the administrator any more, who has one. Source:
    https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/
    """
    name = "super-admin" if cluster.minor.number > 28 else "admin"
    config = cluster.master.read(f"/etc/kubernetes/{name}.conf", secret=True)
    return Api(cluster.host, Credentials.parse(config))


def _has_namespaces(api: Api) -> str:
    """The API server takes requests, and has the namespaces that kubeadm writes to.

    It makes them itself some seconds later, with its own roles.
    """
    for name in ("kube-system", "kube-public"):
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        try:
            api.request("POST", "/api/v1/namespaces", manifest)
        except ApiError as error:
            if error.status != 409:
                return error.brief
    return ""


def _run_phases(cluster: Cluster, without: tuple[str, ...]) -> None:
    options = ["--skip-token-print", "--skip-phases", ",".join(without)]
    run_init(cluster, [], [*options, *kubeadm.patch_options(cluster.minor)])


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
    """Tell Kubernetes which pod subnet, labels and taints the master has.

    Also where its Node was there before `register`: the kubelet's own, or a snapshot's.
    """
    master = cluster.master
    path, asked = f"/api/v1/nodes/{master.instance}", cluster.state.spec.node(master.name)
    pods = pod_network.node_spec(master)
    patch: dict[str, Any] = {"metadata": {"labels": asked.labels}, "spec": pods}
    if asked.taints:
        # A patch replaces the whole list, and others have put some there.
        found = api.get(path)["spec"].get("taints") or []
        there = {(each["key"], each["effect"]) for each in found}
        wanted = map(labels.parse_taint, asked.taints)
        new = [each for each in wanted if (each["key"], each["effect"]) not in there]
        patch["spec"]["taints"] = [*found, *new]
    api.request("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
