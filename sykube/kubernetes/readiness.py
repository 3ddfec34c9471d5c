"""Whether a cluster works; each check says what is missing, or nothing."""

from __future__ import annotations

import struct
from typing import Any

from sykube.errors import SykubeError
from sykube.kubernetes.api import Api
from sykube.node.node import Node

_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def nodes(api: Api, names: list[str]) -> str:
    """Every node is registered and Ready."""
    found = {item["metadata"]["name"]: item for item in api.get("/api/v1/nodes")["items"]}
    missing = [name for name in names if name not in found]
    if missing:
        return f"not registered: {', '.join(missing)}"
    waiting = [
        f"{name}: {reason}" for name in names if (reason := _not_ready(found[name])) is not None
    ]
    return "; ".join(waiting)


def system_pods(api: Api, node_count: int) -> str:
    """The pods of kube-system are there and Ready: control plane, kube-proxy on each node, DNS."""
    pods = api.get("/api/v1/namespaces/kube-system/pods")["items"]
    waiting = [
        f"{pod['metadata']['name']}: {reason}"
        for pod in pods
        if (reason := _not_ready(pod)) is not None
    ]
    labels = [pod["metadata"].get("labels", {}) for pod in pods]
    proxies = sum(label.get("k8s-app") == "kube-proxy" for label in labels)
    if proxies < node_count:
        waiting.append(f"kube-proxy on {proxies} of {node_count} nodes")
    waiting += [
        f"no pod of {component}"
        for component in _CONTROL_PLANE
        if not any(label.get("component") == component for label in labels)
    ]
    if not any(label.get("k8s-app") == "kube-dns" for label in labels):
        waiting.append("no pod of the cluster DNS")
    return "; ".join(waiting)


def discovery(api: Api, token_name: str) -> str:
    """What joining nodes read first is signed with a bootstrap token by the controller manager."""
    data = api.get("/api/v1/namespaces/kube-public/configmaps/cluster-info").get("data", {})
    return "" if f"jws-kubeconfig-{token_name}" in data else "cluster-info is not signed yet"


def check_pod_subnets(api: Api, expected: dict[str, str]) -> None:
    """The pod subnet that Kubernetes shows for a node is the one that its CNI hands out.

    Raises:
        SykubeError: it is not, so that routes and policies would be wrong.
    """
    for item in api.get("/api/v1/nodes")["items"]:
        name, shown = item["metadata"]["name"], item["spec"].get("podCIDR", "")
        if name in expected and shown != expected[name]:
            raise SykubeError(
                f"the node {name} has the pod subnet {shown}, not {expected[name]}",
                resolution="Delete the cluster and make it again; please report this.",
            )


def dns_answers(node: Node, server: str, name: str) -> str:
    """The cluster DNS answers a node for a name, by its Service address."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    program = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(2)\n"
        f"s.sendto(bytes.fromhex('{query.hex()}'),('{server}',53))\n"
        "a=s.recv(512); sys.exit(0 if a[3]&15==0 and a[7] else 'rcode %d'%(a[3]&15))\n"
    )
    done = node.run(["python3", "-c", program], check=False)
    if done.ok:
        return ""
    reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return f"{name} from {node.name}: {reason}"


def _not_ready(item: dict[str, Any]) -> str | None:
    """The reason why a node or pod is not Ready; None when it is."""
    conditions = item.get("status", {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None:
        return "no status yet"
    if ready["status"] == "True":
        return None
    return str(ready.get("message") or ready.get("reason") or "not Ready")
