"""kubeadm's configuration, as data, in the version of its API that a Kubernetes reads.

Sources: https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta3/ and …v1beta4/, and
kubernetes/kubernetes, cmd/kubeadm/app/apis/kubeadm/v1beta2/types.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sykube import documents, resources
from sykube.image.versions import Minor
from sykube.kubernetes import election
from sykube.kubernetes.api import API_PORT
from sykube.kubernetes.kubeadm_patches import KubeadmPatches
from sykube.patches import Patch

CRI_SOCKET = "unix:///run/containerd/containerd.sock"
# What is changed in the control plane's manifests; the node image has it.
_PATCHES = "/usr/share/sykube/kubeadm-patches"
# kubeadm's own 4 minutes are not enough on a machine that is emulated or overloaded. It also gives
# the static pods that long to start.
_START_TIMEOUT = "9m0s"
# Nor is its minute for an API server that answers already, but slowly: that for the first object
# (1.36, cmd/kubeadm/app/phases/kubeconfig/kubeconfig.go, EnsureAdminClusterRoleBinding).
_CALL_TIMEOUT = "5m0s"

# Its controllers start one after the other, each with requests of its own: at the default of 20 a
# second, that takes it seconds.
_UNTHROTTLED = {"kube-api-qps": "200", "kube-api-burst": "400"}

# The controller manager's and the scheduler's certificate: definitions/scripts/serving-certificate.
SERVING = "/etc/kubernetes/serving"
_SERVES = {
    "tls-cert-file": f"{SERVING}/tls.crt",
    "tls-private-key-file": f"{SERVING}/tls.key",
}
_SERVING_VOLUME = {
    "name": "serving",
    "hostPath": SERVING,
    "mountPath": SERVING,
    "readOnly": True,
    "pathType": "Directory",
}

# etcd that is started again waits for twice as long, at most, for a leader among other members:
# there are none. (A new one with a single member does not: server.go, adjustTicks.)
_SINGLE_ETCD = {"election-timeout": "500"}

# A kubelet says once that it is not ready yet when it starts, and up to 1.25 the next time, if its
# node has a pod subnet already, after 10 s (kubernetes/kubernetes, pull request 112618). What has
# not changed it still says every 5 minutes only.
_STATUS_SOON = {"nodeStatusUpdateFrequency": "2s", "nodeStatusReportFrequency": "5m0s"}

# What kubeadm checks of the host before an upgrade, and not in init (1.33 and later): kernel's
# options, which many hosts show nowhere in a node, and cgroup v1, also where the kubelet is told to
# take it. cgroup_version and node_checks look at what matters. Source: app/preflight/checks.go
# (RunUpgradeChecks, SystemVerificationCheck).
_OF_HOST = ("SystemVerification",)
# What kubeadm checks of CoreDNS before an upgrade, where there is none: its version, and its image
# beside the others, which were given to the node. Source: app/phases/upgrade/preflight.go.
_OF_COREDNS = ("CoreDNSMigration", "CoreDNSUnsupportedPlugins", "ImagePull")


@dataclass(frozen=True)
class ControlPlaneSettings:
    """The values of kubeadm init's configuration.

    Attributes:
        minor: whose formats are written.
        etcd_tag: of etcd's image; empty for the one that kubeadm names.
        endpoint: host:port of the API server for every node and user, from the first day.
        names: further names and addresses in the API server's certificate.
        is_single: it is the cluster's only control plane.
        token: bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`.
        feature_gates: for every program of Kubernetes.
        runtime_config: for the API server.
        patches: the user's, of all that is written here.
        rootless: root of its nodes is a user of the host.
    """

    cluster: str
    minor: Minor
    kubernetes_version: str
    image_repository: str
    etcd_tag: str
    node_name: str
    node_address: str
    endpoint: str
    names: tuple[str, ...]
    pod_subnet: str
    service_subnet: str
    dns: str
    domain: str
    token: str
    taint: bool
    is_single: bool
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    runtime_config: Mapping[str, str] = field(default_factory=dict)
    patches: KubeadmPatches = field(default_factory=KubeadmPatches)
    rootless: bool = False


def init_documents(settings: ControlPlaneSettings) -> list[dict[str, Any]]:
    """The documents for `kubeadm init --config`, that of the node itself first.

    Raises:
        UsageError: a patch cannot be applied.
    """
    minor = settings.minor
    gates = _switches("feature-gates", settings.feature_gates)
    served = _switches("runtime-config", settings.runtime_config)
    manager, scheduler = (
        election.arguments(program, is_single=settings.is_single) | _SERVES | gates
        for program in (election.MANAGER, election.SCHEDULER)
    )
    registration = _registration(minor, settings.node_name, settings.node_address)
    if not settings.taint:
        registration["taints"] = []
    api_server: dict[str, Any] = {"certSANs": list(settings.names)}
    if gates or served:
        api_server["extraArgs"] = _arguments(minor, gates | served)
    if not _has_timeouts(minor):
        api_server["timeoutForControlPlane"] = _START_TIMEOUT
    # sykube gives each node its pod subnet. The allocator would hold up every controller that
    # starts after it for 10 s (listNodes, pkg/controller/nodeipam/ipam/cidr_allocator.go).
    controllers = {"allocate-node-cidrs": "false", **_UNTHROTTLED, **manager}
    text = resources.render(
        "definitions",
        "kubeadm/init.yaml.j2",
        settings=settings,
        api=_api(minor),
        api_port=API_PORT,
        registration=registration,
        further=_patches(minor) | _timeouts(minor),
        api_server=api_server,
        keys=_keys(minor),
        kubelet=_STATUS_SOON if minor.number < 26 else {},
        kubelet_gates={**settings.feature_gates, **_kubelet_gates(settings)},
        etcd_args=_arguments(minor, _SINGLE_ETCD if settings.is_single else {}),
        controller_manager_args=_arguments(minor, controllers),
        scheduler_args=_arguments(minor, scheduler),
        serving=_SERVING_VOLUME,
    )
    return [settings.patches.apply(each) for each in documents.load_all(text)]


def join_document(
    minor: Minor,
    node_name: str,
    node_address: str,
    *,
    control_plane: bool = False,
    taint: bool = True,
    patches: KubeadmPatches | None = None,
) -> dict[str, Any]:
    """The document for `kubeadm join --config`, but for its discovery.

    Args:
        control_plane: the node gets a control plane of its own; the cluster's keys are there.
        taint: keep ordinary pods off a control plane.
        patches: the user's.

    Raises:
        UsageError: a patch cannot be applied.
    """
    join: dict[str, Any] = {
        "apiVersion": _api(minor),
        "kind": "JoinConfiguration",
        "nodeRegistration": _registration(minor, node_name, node_address),
        **_timeouts(minor),
    }
    if control_plane:
        api = {"advertiseAddress": node_address, "bindPort": API_PORT}
        join["controlPlane"] = {"localAPIEndpoint": api}
        join |= _patches(minor)
        if not taint:
            join["nodeRegistration"]["taints"] = []
    return patches.apply(join) if patches else join


def node_documents(
    join: Mapping[str, Any], address: str, shared: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What phases of `kubeadm init` read on another node than the first: they do what join does.

    Args:
        join: the node's JoinConfiguration.
        address: of the node.
        shared: the documents that all nodes share: ClusterConfiguration, KubeletConfiguration …
    """
    kept = ("apiVersion", "nodeRegistration", "timeouts", "patches")
    init = {
        "kind": "InitConfiguration",
        **{key: join[key] for key in kept if key in join},
        "localAPIEndpoint": {"advertiseAddress": address, "bindPort": API_PORT},
    }
    # On a worker, kubeadm would take a CA without its key for one that all certificates must be
    # there of.
    own = {} if "controlPlane" in join else {"certificatesDir": "/run/sykube/no-pki"}
    return [
        init,
        *({**each, **(own if each["kind"] == "ClusterConfiguration" else {})} for each in shared),
    ]


def with_etcd_members(
    minor: Minor,
    init: Sequence[Mapping[str, Any]],
    members: Mapping[str, str],
    *,
    existing: bool = False,
) -> list[dict[str, Any]]:
    """The documents for kubeadm's etcd where it has several members.

    They are for the run that writes etcd's manifest: in the cluster's ConfigMap, this would be told
    each member that joins later. etcd reads it only where it has no data yet.

    Args:
        init: as `init_documents` gives them.
        members: the addresses of the members by their names.
        existing: the others are there already; else all begin together.
    """
    peers = ",".join(f"{name}=https://{each}:2380" for name, each in members.items())
    state = {"initial-cluster-state": "existing"} if existing else {}
    arguments = _arguments(minor, {"initial-cluster": peers, **state})
    merge = {"kind": "ClusterConfiguration", "etcd": {"local": {"extraArgs": arguments}}}
    # A user's patch may have put another etcd in its place.
    found = next(each["etcd"] for each in init if each["kind"] == "ClusterConfiguration")
    own = (Patch(documents.dump(merge)),) if "local" in found else ()
    return [KubeadmPatches(merges=own).apply(dict(each)) for each in init]


def node_annotations(minor: Minor) -> dict[str, str]:
    """What kubeadm join notes in a Node for upgrades, up to 1.33; later it is in a file.

    Source: cmd/kubeadm/app/features/features.go, NodeLocalCRISocket
    """
    return {} if minor.number > 33 else {"kubeadm.alpha.kubernetes.io/cri-socket": CRI_SOCKET}


def renewal_configuration(minor: Minor, kubernetes_version: str) -> str:
    """The YAML document for `kubeadm certs renew --config`, so that it asks no API server.

    Args:
        kubernetes_version: with its v.
    """
    config = {
        "apiVersion": _api(minor),
        "kind": "ClusterConfiguration",
        "kubernetesVersion": kubernetes_version,
        **_keys(minor),
    }
    return documents.dump(config)


def patch_options(minor: Minor) -> tuple[str, ...]:
    """Options of kubeadm init, and of join for a control plane, that its configuration lacks."""
    return () if _patches(minor) else ("--experimental-patches", _PATCHES)


def upgrade_options(minor: Minor, *, patches: str = "") -> tuple[str, ...]:
    """Options of kubeadm upgrade.

    Args:
        minor: of the new kubeadm.
        patches: the folder with what is changed in the manifests, on a control plane.
    """
    ignored = _OF_HOST if minor.has_coredns or not patches else (*_OF_HOST, *_OF_COREDNS)
    options = ("--ignore-preflight-errors", ",".join(ignored))
    if not patches:
        return options
    name = "--experimental-patches" if minor.kubeadm_api == "v1beta2" else "--patches"
    return (name, patches, *options)


def _kubelet_gates(settings: ControlPlaneSettings) -> dict[str, bool]:
    """What lets a kubelet go on where its root may not set what is the whole host's.

    Up to 1.21 there is no such gate; definitions/node/rootless does without.
    """
    needed = settings.rootless and settings.minor.number > 21
    return {"KubeletInUserNamespace": True} if needed else {}


def _api(minor: Minor) -> str:
    return f"kubeadm.k8s.io/{minor.kubeadm_api}"


def _keys(minor: Minor) -> dict[str, Any]:
    """What keys are made: of ECDSA where kubeadm can, as those of kubelets are.

    A dozen of RSA takes it seconds, and each connection milliseconds. 1.30 has only the feature
    gate, which goes with the API that 1.30 writes.
    """
    match minor.kubeadm_api:
        case "v1beta2":
            return {"featureGates": {"PublicKeysECDSA": True}}
        case "v1beta3":
            return {}
    return {"encryptionAlgorithm": "ECDSA-P256"}


def _has_timeouts(minor: Minor) -> bool:
    """Whether timeouts have a place of their own; it came with lists of arguments."""
    return minor.kubeadm_api not in ("v1beta2", "v1beta3")


def _patches(minor: Minor) -> dict[str, Any]:
    return {} if minor.kubeadm_api == "v1beta2" else {"patches": {"directory": _PATCHES}}


def _timeouts(minor: Minor) -> dict[str, Any]:
    if not _has_timeouts(minor):
        return {}
    starts = ("controlPlaneComponentHealthCheck", "kubeletHealthCheck")
    calls = ("kubernetesAPICall", "etcdAPICall")
    timeouts = dict.fromkeys(starts, _START_TIMEOUT) | dict.fromkeys(calls, _CALL_TIMEOUT)
    return {"timeouts": timeouts}


def _arguments(minor: Minor, values: dict[str, str]) -> dict[str, str] | list[dict[str, str]]:
    """Further arguments of a program."""
    if not _has_timeouts(minor):
        return values
    return [{"name": name, "value": value} for name, value in values.items()]


def _switches(option: str, values: Mapping[str, Any]) -> dict[str, str]:
    """An option of the form NAME=true,OTHER=false, where there are any."""
    pairs = [f"{name}={str(value).lower()}" for name, value in values.items()]
    return {option: ",".join(pairs)} if pairs else {}


def _registration(minor: Minor, name: str, address: str) -> dict[str, Any]:
    arguments = {"node-ip": address}
    if minor.has_dockershim:
        arguments |= {"container-runtime": "remote", "container-runtime-endpoint": CRI_SOCKET}
    return {
        "name": name,
        "criSocket": CRI_SOCKET,
        "kubeletExtraArgs": _arguments(minor, arguments),
    }
