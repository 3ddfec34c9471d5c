"""kubeadm init on the master, and its phases on the control planes beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sykube import resources
from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import DOMAIN, Cluster, on_each
from sykube.cluster.operations import busy, clone, etcd_members
from sykube.cluster.operations.nodes import recreate
from sykube.cluster.operations.ready import wait_answer, wait_api
from sykube.cluster.operations.registration import join_document, register
from sykube.documents import dump_all
from sykube.host.files import write_atomically
from sykube.image.choice import DEBIAN
from sykube.kubernetes import kubeadm, labels
from sykube.kubernetes.api import Api, ApiError, Credentials, wait_until
from sykube.kubernetes.tokens import new_token
from sykube.node.node import Node

_TIMEOUT_S = 600.0
# Nothing goes on before the API server's first answer, and asking in vain takes a millisecond.
_LOOK_S = 0.05
_PKI = "/etc/kubernetes/pki"
# Phases of kubeadm init that write files and start the kubelet, and those that change the cluster.
_FILES = ("certs", "kubeconfig", "etcd", "control-plane/apiserver", "kubelet-start")
# What asks the API server all the time. While that starts, they would take the processors from it,
# and find that they may read nothing before it has made its roles: then they ask ever later.
_CLIENTS = ("control-plane/controller-manager", "control-plane/scheduler")
_OF_NODE = ("mark-control-plane", "kubelet-finalize")
_OBJECTS = (*_OF_NODE, "upload-config", "upload-certs", "bootstrap-token", "addon")
# What only these need is made while the API server starts: their keys are of RSA before 1.31, and
# each takes a tenth of a second to half of one.
_OF_CLIENTS = ("kubeconfig/controller-manager", "kubeconfig/scheduler")
# Its preflight needs crictl, which Debian lacks: node_checks has been in its place. The cluster's
# DNS is a step of its own.
_NEVER = ("preflight", "wait-control-plane")


def _namespace(name: str) -> tuple[str, dict[str, Any]]:
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    return "/api/v1/namespaces", manifest


def _priority_class(name: str, value: int, description: str) -> tuple[str, dict[str, Any]]:
    manifest = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
    }
    return "/apis/scheduling.k8s.io/v1/priorityclasses", manifest


# kubeadm writes to the namespaces. Without its class, the pod by which a kubelet shows a component
# of the control plane is refused, and tried again 10 to 15 s later.
# Source: pkg/apis/scheduling/v1/helpers.go, systemPriorityClasses.
_FIRST_OBJECTS = (
    _namespace("kube-system"),
    _namespace("kube-public"),
    _priority_class(
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    _priority_class(
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary.",
    ),
)


def is_ready(cluster: Cluster) -> bool:
    try:
        with cluster.api() as api:
            return bool(api.get("/readyz") == "ok")
    except ApiError:
        return False


def create(cluster: Cluster) -> None:
    """Run kubeadm init on clean control planes, and keep the credentials that it makes.

    etcd begins with all of them as its members. kubeadm join would add one after the other, each
    after waiting for discovery and for TLS bootstrap, to an etcd that has no leader meanwhile.
    """
    master, others = cluster.master, cluster.control_planes[1:]
    for node in cluster.control_planes:
        if node.run(["test", "-e", _PKI], check=False).ok:
            recreate(cluster, node)
    documents = kubeadm.init_documents(settings(cluster))
    shared, members = documents[1:], etcd_members.addresses(cluster)
    first = kubeadm.with_etcd_members(cluster.minor, documents, members) if others else documents

    def write_files() -> None:
        _run_phases(cluster, master, first, (*_CLIENTS, *_OF_CLIENTS, *_OBJECTS))

    if cluster.state.spec.from_snapshot:
        # It would start etcd from what is being changed.
        master.stop_service("kubelet")
        both: list[Callable[[], object]] = [partial(clone.scrub_etcd, cluster), write_files]
        on_each(both, lambda each: each())
        master.start_service("kubelet")
    else:
        write_files()
    keep_credentials(cluster, master)
    on_each(others, lambda node: _start(cluster, master, node, shared, members, beside=True))

    def own(node: Node) -> list[dict[str, Any]]:
        return documents if node == master else _documents(cluster, node, shared)

    def prepare_clients(node: Node) -> None:
        _make_serving_certificate(node)
        for phase in _OF_CLIENTS:
            run_init(node, ["phase", *phase.split("/")], own(node))

    on_each(cluster.control_planes, prepare_clients)
    with _first_api(cluster) as api:
        what = "the API server's first answer"
        have = partial(_has_first_objects, api)
        wait_until(cluster.host, what, have, _TIMEOUT_S, interval=_LOOK_S)
        register(cluster, api, master, documents[0])
        for node in others:
            register(cluster, api, node, join_document(cluster, node))

    def start_clients(node: Node) -> None:
        # A kubelet looks for the API server when it starts (see look_for_api). What is written at
        # that very moment, it may miss for 20 s: its file source lists the folder before it watches
        # it (pkg/kubelet/config/file.go).
        node.stop_service("kubelet")
        _run_phases(cluster, node, own(node), (*_FILES, *_OBJECTS))
        node.start_service("kubelet")

    def upload_configuration() -> None:
        # It lets the administrator in, from 1.29 on. And in a run of all phases without that of
        # CoreDNS, kubeadm would keep that there is none (v1beta4, dns.disabled): no upgrade would
        # reach it.
        run_init(master, ["phase", "upload-config", "kubeadm"], documents)

    start = partial(on_each, cluster.control_planes, start_clients)
    both = [start, upload_configuration]
    on_each(both, lambda each: each())
    wait_answer(cluster, timeout=_TIMEOUT_S)
    on_each(others, partial(_wait_for_rights, cluster))


def create_objects(cluster: Cluster) -> None:
    """Let kubeadm create what the cluster needs beside a control plane that has just been started.

    Raises:
        SykubeError: kubeadm failed, or the API server is not all ready within 10 minutes.
    """
    master, documents = cluster.master, kubeadm.init_documents(settings(cluster))
    # The DNS is a step of its own, and its configuration is there.
    without = (*_FILES, *_CLIENTS, "upload-config/kubeadm", "addon/coredns")
    # Controllers and kubelets, which have just started, ask the API server for all there is.
    busy.until_done(
        lambda: _run_phases(cluster, master, documents, without),
        lambda: wait_api(cluster, master, _TIMEOUT_S),
    )
    on_each(cluster.control_planes[1:], lambda node: _mark(cluster, node, documents[1:]))
    with cluster.api() as api:
        for node in cluster.control_planes:
            _describe_node(cluster, api, node)
    wait_api(cluster, master, _TIMEOUT_S)


def shared_documents(cluster: Cluster) -> list[dict[str, Any]]:
    """The configuration that kubeadm init keeps in the cluster for all nodes."""
    return kubeadm.init_documents(settings(cluster))[1:]


def join(cluster: Cluster, leader: Node, node: Node, shared: Sequence[Mapping[str, Any]]) -> None:
    """Let a clean control plane join a running cluster.

    Args:
        leader: a control plane that runs.
        shared: the configuration that all nodes share, as the cluster keeps it.

    Raises:
        SykubeError: etcd takes no member, kubeadm failed, or the API server does not answer within
            10 minutes.
    """
    members = etcd_members.replace(cluster, leader, node)
    _make_serving_certificate(node)
    _start(cluster, leader, node, shared, members, existing=True)
    wait_api(cluster, node, _TIMEOUT_S)
    _mark(cluster, node, shared)


def _start(
    cluster: Cluster,
    leader: Node,
    node: Node,
    shared: Sequence[Mapping[str, Any]],
    members: Mapping[str, str],
    *,
    beside: bool = False,
    existing: bool = False,
) -> None:
    """Start a further control plane, with the keys of another one.

    Args:
        beside: the other one has just been started, too.
        existing: its etcd is a member of one that is there.
    """
    keys = leader.run(resources.script("export-keys"), secret=True).stdout
    node.run(resources.script("import-keys"), stdin=keys)
    documents = kubeadm.with_etcd_members(
        cluster.minor, _documents(cluster, node, shared), members, existing=existing
    )
    first = ("kubeconfig/super-admin",) if cluster.minor.number > 28 else ()
    later = (*_CLIENTS, *_OF_CLIENTS) if beside else ()
    _run_phases(cluster, node, documents, (*_OBJECTS, *first, *later))


def _make_serving_certificate(node: Node) -> None:
    node.run(resources.script("serving-certificate", kubeadm.SERVING))


def _wait_for_rights(cluster: Cluster, node: Node) -> None:
    """Wait until the API server of a control plane knows what the administrator may do.

    From 1.29 on a role says so, which the first one's kubeadm has just made. The others' ask their
    own API servers, take a refusal for a role that is missing, and end:
    cmd/kubeadm/app/phases/kubeconfig/kubeconfig.go, EnsureAdminClusterRoleBinding.
    """
    what = f"the administrator's rights at the API server of {node.name}"
    with cluster.api_of(node) as api:
        wait_until(cluster.host, what, lambda: _refusal(api), _TIMEOUT_S)


def _refusal(api: Api) -> str:
    try:
        api.get("/api/v1/nodes")
    except ApiError as error:
        return error.brief
    return ""


def _mark(cluster: Cluster, node: Node, shared: Sequence[Mapping[str, Any]]) -> None:
    """Let kubeadm note in the cluster that a further control plane is there."""
    # That of 1.20 keeps a list of them in its ConfigMap.
    config = "upload-config" if cluster.minor.number > 21 else "upload-config/kubelet"
    rest = [each for each in _OBJECTS if each not in (*_OF_NODE, "upload-config")]
    without = (*_FILES, *_CLIENTS, *rest, config)
    _run_phases(cluster, node, _documents(cluster, node, shared), without)


def _documents(
    cluster: Cluster, node: Node, shared: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return kubeadm.node_documents(join_document(cluster, node), node.address, shared)


def _first_api(cluster: Cluster) -> Api:
    """A client that may do everything before there are roles.

    From 1.29 on that is not the administrator any more, who has one. Source:
    https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/
    """
    name = "super-admin" if cluster.minor.number > 28 else "admin"
    config = cluster.master.read(f"/etc/kubernetes/{name}.conf", secret=True)
    return Api(cluster.host, Credentials.parse(config))


def _has_first_objects(api: Api) -> str:
    """The API server takes requests, and has what kubeadm and the control plane's kubelets need.

    It makes all of it itself some seconds later, with its own roles.
    """
    for path, manifest in _FIRST_OBJECTS:
        try:
            api.request("POST", path, manifest)
        except ApiError as error:
            if error.status != 409:
                return error.brief
    return ""


def _run_phases(
    cluster: Cluster, node: Node, documents: Iterable[Mapping[str, Any]], without: Sequence[str]
) -> None:
    # The last one shows a token, which another run has made; 1.20 does so outside of phases.
    last = ("show-join-command",) if cluster.minor.number > 20 else ()
    options = ["--skip-token-print", "--skip-phases", ",".join((*_NEVER, *without, *last))]
    options += kubeadm.patch_options(cluster.minor)
    run_init(node, [], documents, options)


def keep_credentials(cluster: Cluster, node: Node) -> None:
    """Keep the administrator's kubeconfig of a control plane as the cluster's own."""
    config = node.read("/etc/kubernetes/admin.conf", secret=True)
    if cluster.state.api_port:
        here = f"https://127.0.0.1:{cluster.state.api_port}"
        config = config.replace(f"https://{cluster.endpoint}", here)
    write_atomically(cluster.paths.kubeconfig, config, mode=0o600)


def run_init(
    node: Node,
    phase: list[str],
    documents: Iterable[Mapping[str, Any]],
    options: Sequence[str] = (),
) -> None:
    """Run kubeadm init, or one phase of it.

    Args:
        phase: such as ["phase", "addon", "coredns"]; none for all of it.

    Raises:
        CommandError: kubeadm failed or took more than 10 minutes.
    """
    command = ["kubeadm", "init", *phase, "--config", "/dev/stdin", *options]
    node.run(command, stdin=dump_all(documents), timeout=_TIMEOUT_S)


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
        rootless=cluster.host.grants.rootless,
    )


def _describe_node(cluster: Cluster, api: Api, node: Node) -> None:
    """Tell Kubernetes which pod subnet, labels and taints a control plane has.

    Also where its Node was there before `register`: the kubelet's own, or a snapshot's.
    """
    path, asked = f"/api/v1/nodes/{node.instance}", cluster.state.spec.node(node.name)
    pods = pod_network.node_spec(node)
    metadata = {"labels": asked.labels, "annotations": kubeadm.node_annotations(cluster.minor)}
    patch: dict[str, Any] = {"metadata": metadata, "spec": pods}
    if asked.taints:
        # A patch replaces the whole list, and others have put some there.
        found = api.get(path)["spec"].get("taints") or []
        there = {(each["key"], each["effect"]) for each in found}
        wanted = map(labels.parse_taint, asked.taints)
        new = [each for each in wanted if (each["key"], each["effect"]) not in there]
        patch["spec"]["taints"] = [*found, *new]
    api.request("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
