"""The API server of a fake cluster, and what it knows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sykube import documents
from sykube.kubernetes.api import Api, ApiError
from tests.fakes.calls import Calls

_STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


_COLLECTIONS = frozenset(
    ["nodes", "pods", "secrets", "services", "configmaps", "deployments", "networkpolicies"]
    + ["validatingwebhookconfigurations", "mutatingwebhookconfigurations", "runtimeclasses"]
)


# Of each group and version: its kinds, their resources, and whether these are in namespaces.
RESOURCES: dict[str, dict[str, tuple[str, bool]]] = {
    "/api/v1": {
        "ConfigMap": ("configmaps", True),
        "Endpoints": ("endpoints", True),
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
        "Pod": ("pods", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "/apis/apps/v1": {
        "DaemonSet": ("daemonsets", True),
        "Deployment": ("deployments", True),
    },
    "/apis/admissionregistration.k8s.io/v1": {
        "ValidatingWebhookConfiguration": ("validatingwebhookconfigurations", False),
    },
    "/apis/apiregistration.k8s.io/v1": {"APIService": ("apiservices", False)},
    "/apis/networking.k8s.io/v1": {
        "IngressClass": ("ingressclasses", False),
        "NetworkPolicy": ("networkpolicies", True),
    },
    "/apis/node.k8s.io/v1": {"RuntimeClass": ("runtimeclasses", False)},
    "/apis/rbac.authorization.k8s.io/v1": {
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
    },
    "/apis/storage.k8s.io/v1": {"StorageClass": ("storageclasses", False)},
}


NODES = "/api/v1/nodes"


SECRETS = "/api/v1/namespaces/kube-system/secrets"


LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"


CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
KUBEADM_CONFIG = f"{CONFIG_MAPS}/kubeadm-config"


COREFILE = "/api/v1/namespaces/kube-system/configmaps/coredns"


_LONG_AGO = "2021-01-01T00:00:00.000000Z"


# What the kubelet says of a node whose containerd has no CNI configuration.
LACKS_NETWORK = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)


def member_id(name: str) -> str:
    """What etcd calls a member."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _time(seconds: float) -> str:
    """RFC 3339, as the API server writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ready(value: bool = True, message: str = "") -> dict[str, str]:
    """The condition of a node or pod."""
    return {"type": "Ready", "status": str(value), "message": message, "reason": "Test"}


@dataclass
class Kubernetes:
    """What the API server of one cluster knows: its objects by their paths."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Kinds by group and version.
    resources: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=lambda: RESOURCES)
    # Pods that never become Ready, by their names without the node's.
    broken: set[str] = field(default_factory=set)
    # Shows other pods than those that are there.
    shown: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda pods: pods
    # Nodes whose pods still show the containers of before.
    stale: set[str] = field(default_factory=set)
    # Pods of the user.
    pods_of_user: list[dict[str, Any]] = field(default_factory=list)
    # The webhook that is asked about every change, and does not answer.
    webhook: str = ""
    # Members of etcd: node → address.
    members: dict[str, str] = field(default_factory=dict)
    # Nodes without CNI configuration, and whether a CNI plugin was installed that gives them some.
    bare: set[str] = field(default_factory=set)
    plugin: bool = False
    # Whether the kubelet of a node works now.
    lives: Callable[[str], bool] = lambda _: True
    # When the containers of a node were started, in seconds since the epoch.
    started: dict[str, float] = field(default_factory=dict)

    def version(self) -> str:
        """What kubeadm has recorded."""
        data = self.objects[KUBEADM_CONFIG]["data"]
        config = documents.load(data["ClusterConfiguration"])
        return str(config["kubernetesVersion"])

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """Registered nodes by name."""
        return {each["metadata"]["name"]: each for each in self.collection(NODES)}

    def collection(self, path: str) -> list[dict[str, Any]]:
        """The objects of a collection."""
        return [
            each for where, each in list(self.objects.items()) if where.rpartition("/")[0] == path
        ]

    def seen(self, path: str) -> dict[str, Any]:
        """An object, with what the controller of its kind says once it is up, if it ever is."""
        found = self.objects[path]
        _, _, name = path.rpartition("/daemonsets/")
        if name != path and "status" not in found:
            count = len(self.nodes)
            available = 0 if name in self.broken else count
            return found | {
                "status": {
                    "observedGeneration": found.get("metadata", {}).get("generation", 1),
                    "desiredNumberScheduled": count,
                    "updatedNumberScheduled": count,
                    "numberAvailable": available,
                }
            }
        _, _, name = path.rpartition("/deployments/")
        if name == path or "status" in found or "replicas" not in found["spec"]:
            return found
        count = found["spec"]["replicas"]
        return found | {
            "status": {
                "observedGeneration": found["metadata"]["generation"],
                "replicas": count,
                "updatedReplicas": count,
                "availableReplicas": 0 if name in self.broken else count,
            }
        }

    def deployments(self) -> list[dict[str, Any]]:
        """Those of kube-system, with what the API server adds where nothing was said."""
        found = []
        for path, each in list(self.objects.items()):
            folder, _, name = path.rpartition("/")
            if folder != "/apis/apps/v1/namespaces/kube-system/deployments":
                continue
            labels = {"k8s-app": "kube-dns" if "dns" in name else name}
            spec = {"replicas": 1, "selector": {"matchLabels": labels}} | each.get("spec", {})
            found.append({"metadata": {"name": name}, "spec": spec})
        return found

    def daemon_sets(self) -> list[str]:
        """Names of those of kube-system that were created."""
        folder = "/apis/apps/v1/namespaces/kube-system/daemonsets"
        places = (path.rpartition("/") for path in list(self.objects))
        return [name for where, _, name in places if where == folder]

    def tokens(self) -> dict[str, str]:
        """The bootstrap tokens that are there now: name → secret."""
        found = [each["stringData"] for each in self.collection(SECRETS) if "stringData" in each]
        return {each["token-id"]: each["token-secret"] for each in found}

    def kubelet_joined(self, name: str, version: str) -> None:
        """A node's kubelet reports for the first time."""
        node = self.objects.setdefault(f"{NODES}/{name}", {"metadata": {"name": name}, "spec": {}})
        bare = name in self.bare and not self.plugin
        node["status"] = {"conditions": [ready(not bare, LACKS_NETWORK if bare else "")]}
        self.kubelet_started(name, version)

    def install_plugin(self) -> None:
        """A CNI plugin of the user's configures every node."""
        self.plugin = True
        for name in self.bare & {*self.nodes}:
            self.nodes[name]["status"]["conditions"] = [ready()]

    def kubelet_started(self, name: str, version: str) -> None:
        """A node's kubelet reports again, and its containers are new."""
        node = self.objects[f"{NODES}/{name}"]
        node["status"]["nodeInfo"] = {"kubeletVersion": version}
        self.started[name] = time.time()

    def listed(self) -> str:
        """What `etcdctl member list` prints."""
        return "".join(
            f"{member_id(name)}, started, {name}, https://{address}:2380, "
            f"https://{address}:2379, false\n"
            for name, address in self.members.items()
        )

    def leases(self) -> list[dict[str, Any]]:
        """A lease of each kubelet that has ever lived, renewed just now where it still does."""
        return [
            {
                "metadata": {"name": name},
                "spec": {"renewTime": _time(time.time()) if self.lives(name) else _LONG_AGO},
            }
            for name, node in self.nodes.items()
            if node["status"].get("conditions")
        ]

    def _since(self, node: str) -> float:
        return 1.0 if node in self.stale else self.started.get(node, 0.0)

    def pods(self) -> list[dict[str, Any]]:
        """Those of kube-system, which are all there are."""
        found: list[tuple[str, str, dict[str, str]]] = []
        for name, node in self.nodes.items():
            if not node["status"].get("conditions"):
                continue
            if CONTROL_PLANE_LABEL in node["metadata"].get("labels", {}):
                found += [(each, name, {"component": each}) for each in _STATIC_PODS]
            found.append(("kube-proxy", name, {"k8s-app": "kube-proxy"}))
            found += [(each, name, {"k8s-app": each}) for each in self.daemon_sets()]
        deployed = [each["metadata"]["name"] for each in self.deployments()] if found else []
        bare = bool(self.bare) and not self.plugin
        for each in self.deployments() if found else []:
            name, spec = each["metadata"]["name"], each["spec"]
            # Most do not tolerate that their node is NotReady.
            place = "" if bare and name != "cluster-dns" else found[0][1]
            found += [(name, place, spec["selector"]["matchLabels"])] * spec["replicas"]
        pods = [
            {
                "metadata": {
                    "name": f"{name}-{node}", "namespace": "kube-system", "labels": labels,
                },
                "spec": {
                    "nodeName": node,
                    "containers": [{"name": name}],
                    "hostNetwork": name not in deployed,
                },
                "status": {
                    "conditions": [
                        ready(
                            name not in self.broken
                            and not (bare and name in deployed)
                        )
                    ],
                    "containerStatuses": [
                        {"state": {"running": {"startedAt": _time(self._since(node))}}}
                    ],
                },
            }
            for name, node, labels in found
        ]  # fmt: skip
        return self.shown(pods)


class FakeApi(Api):
    """The API client, with a fake server in the place of its connection.

    Args:
        kubernetes: None where nothing answers.
    """

    def __init__(self, kubernetes: Kubernetes | None, calls: Calls) -> None:
        self._kubernetes = kubernetes
        self._calls = calls
        self._kinds = {}

    def __exit__(self, *_: object) -> None:
        """It holds nothing."""

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Any:
        self._calls.record("api", method, path)
        server = self._kubernetes
        if server is None:
            raise ApiError("the API server does not answer: connection refused", 0)
        match method, path:
            case "GET", "/version":
                return {"gitVersion": server.version()}
            case "GET", _ if path in server.resources:
                return {"resources": [*_discovered(path, server.resources[path])]}
            case "GET", "/readyz":
                return "ok"
            case "GET", "/api/v1/namespaces/kube-system/pods":
                return {"items": server.pods()}
            case "GET", "/api/v1/pods":
                return {"items": server.pods() + server.pods_of_user}
            case "GET", _ if path == LEASES:
                return {"items": server.leases()}
            case "GET", _ if path in server.objects:
                return server.seen(path)
            case "GET", "/apis/apps/v1/namespaces/kube-system/deployments":
                return {"items": server.deployments()}
            case "GET", _ if path.rpartition("/")[2] in _COLLECTIONS:
                return {"items": server.collection(path)}
            case "POST", _:
                name = f"{path}/{body['metadata']['name']}"
                if name in server.objects:
                    raise ApiError(f"POST {path}: {name} already exists", 409)
                server.objects[name] = body
                return body
            case "PATCH", _ if server.webhook:
                why = f'Internal error occurred: failed calling webhook "{server.webhook}": refused'
                raise ApiError(f"PATCH {path}: {why}", 500)
            case "PATCH", _ if params and params.get("dryRun") == "All":
                return {}
            case "PATCH", _ if content_type == "application/apply-patch+yaml":
                _check_ports(body)
                _check_strategy(server.objects.get(path, {}), body)
                metadata = {"generation": 1} | body["metadata"]
                server.objects[path] = body | {"metadata": metadata}
                if body["kind"] == "Service" and body["spec"].get("type") == "NodePort":
                    for number, port in enumerate(body["spec"]["ports"]):
                        port.setdefault("nodePort", 31000 + number)
                return body
            case "PATCH", _ if path in server.objects and "merge-patch" in content_type:
                return _merge(server.objects[path], body)
            case "DELETE", _ if path in server.objects:
                return server.objects.pop(path)
        raise ApiError(f"{method} {path}: not found", 404)


def _discovered(path: str, kinds: dict[str, tuple[str, bool]]) -> Iterator[dict[str, Any]]:
    """What the API server says of a group and version; of its objects' parts, too."""
    for kind, (name, namespaced) in kinds.items():
        yield {"name": name, "kind": kind, "namespaced": namespaced}
    if path == "/api/v1":
        yield {"name": "nodes/proxy", "kind": "NodeProxyOptions", "namespaced": False}
        yield {"name": "pods/eviction", "kind": "Eviction", "namespaced": True}


def _check_ports(body: dict[str, Any]) -> None:
    """Refuse what server-side apply refuses: ports are told apart by their protocol, too."""
    spec = body.get("spec", {})
    containers = spec.get("template", {}).get("spec", {}).get("containers", [])
    lists = [spec.get("ports", []), *(each.get("ports", []) for each in containers)]
    if not all("protocol" in port for ports in lists for port in ports):
        raise ApiError("failed to create typed patch object: a port omits key field protocol", 500)


def _check_strategy(there: dict[str, Any], body: dict[str, Any]) -> None:
    """Refuse what is left of another strategy: server-side apply keeps defaults."""
    rolled = there.get("spec", {}).get("strategy", {}).get("rollingUpdate")
    if rolled and body["spec"].get("strategy") == {"type": "Recreate"}:
        raise ApiError("spec.strategy.rollingUpdate: Forbidden: may not be specified", 422)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        elif value is None:
            target.pop(key, None)
        elif key == "containers":
            # As a strategic patch does, by their names.
            there = {each["name"]: each for each in target.get(key, [])}
            target[key] = [_merge(there.get(each["name"], {}), each) for each in value]
        else:
            target[key] = value
    return target
