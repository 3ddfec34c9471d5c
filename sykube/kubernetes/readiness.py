"""Whether a cluster works; each check says what is missing, or nothing."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sykube.errors import SykubeError
from sykube.kubernetes.api import Api, ApiError
from sykube.node import netns

_DNS_TIMEOUT_S = 2.0
# Of the phase: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
_ENDED = ("Succeeded", "Failed")
_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def nodes(api: Api, names: list[str]) -> str:
    """Every node is registered and Ready."""
    problems = node_problems(registered(api), names).items()
    return "; ".join(f"{name}: {problem}" for name, problem in problems if problem)


def registered(api: Api) -> dict[str, Any]:
    """What the API server has of each Node, by its name."""
    return {item["metadata"]["name"]: item for item in api.get("/api/v1/nodes")["items"]}


def node_problems(found: dict[str, Any], names: list[str]) -> dict[str, str]:
    """What is wrong with each node by its name, or nothing: it is registered and Ready.

    Args:
        found: as `registered` gives it.
    """
    return {name: _not_ready(found[name]) if name in found else "not registered" for name in names}


def kubelets(found: dict[str, Any]) -> dict[str, str]:
    """The version of each node's kubelet, by the node's name; empty where it never reported.

    Args:
        found: as `registered` gives it.
    """
    return {
        name: str(item["status"].get("nodeInfo", {}).get("kubeletVersion", ""))
        for name, item in found.items()
    }


def health(api: Api) -> str:
    """What the API server says of itself: the checks of /readyz that fail, etcd's among them."""
    try:
        api.get("/readyz")
    except ApiError as error:
        return error.brief
    return ""


def has_ended(pod: dict[str, Any]) -> bool:
    """Whether a pod is over for good: a finished Job's, or one that was evicted or has failed.

    It is never Ready again. Whoever needs it made another one in its place, so nobody waits for it.
    """
    return pod.get("status", {}).get("phase") in _ENDED


def system_pods(api: Api, node_count: int, control_planes: int = 1) -> str:
    """The pods of kube-system are there and Ready: control planes, kube-proxy on each node, DNS."""
    found = api.get("/api/v1/namespaces/kube-system/pods")["items"]
    pods = [pod for pod in found if not has_ended(pod)]
    waiting = [
        f"{pod['metadata']['name']}: {reason}" for pod in pods if (reason := _not_ready(pod))
    ]
    labels = [pod["metadata"].get("labels", {}) for pod in pods]
    proxies = sum(label.get("k8s-app") == "kube-proxy" for label in labels)
    if proxies < node_count:
        waiting.append(f"kube-proxy on {proxies} of {node_count} nodes")
    for component in _CONTROL_PLANE:
        count = sum(label.get("component") == component for label in labels)
        if count < control_planes:
            waiting.append(f"{component} on {count} of {control_planes} control planes")
    if not any(label.get("k8s-app") == "kube-dns" for label in labels):
        waiting.append("no pod of the cluster DNS")
    return "; ".join(waiting)


def network_policies(api: Api) -> int:
    """How many NetworkPolicies there are."""
    return len(api.get("/apis/networking.k8s.io/v1/networkpolicies")["items"])


def unenforced(count: int) -> str:
    """What that many NetworkPolicies are worth; nothing for none."""
    if not count:
        return ""
    which = "1 NetworkPolicy is" if count == 1 else f"{count} NetworkPolicies are"
    return f"{which} accepted and not enforced: the pod network lets everything through"


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


def dns_answers(pid: int, server: str, name: str) -> str:
    """The cluster DNS answers a node for a name, by its Service address.

    Args:
        pid: a process of the node, seen from the host.
    """
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    try:
        answer = netns.exchange(pid, (server, 53), query, _DNS_TIMEOUT_S)
    except OSError as error:
        return f"no answer for {name}: {error}"
    code, answers = (answer[3] & 15, answer[7]) if len(answer) > 7 else (-1, 0)
    return "" if code == 0 and answers else f"no address for {name} (response code {code})"


def resolver_answers(pid: int, server: str) -> str:
    """A resolver answers a node at all, whatever it knows; asked for the root's name servers.

    Args:
        pid: a process of the node, seen from the host.
    """
    query = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + b"\0" + struct.pack(">2H", 2, 1)
    try:
        netns.exchange(pid, (server, 53), query, _DNS_TIMEOUT_S)
    except OSError as error:
        return f"no answer: {error}"
    return ""


def alive(api: Api, names: Sequence[str], since: float) -> str:
    """The kubelets have renewed their leases since a time, in seconds since the epoch.

    What a Node says of itself stays as it was when its kubelet ends.
    """
    leases = api.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")["items"]
    renewed = {item["metadata"]["name"]: _seconds(item["spec"]["renewTime"]) for item in leases}
    waiting = [name for name in names if renewed.get(name, 0.0) < since]
    return f"no sign of life of {', '.join(waiting)}" if waiting else ""


def containers_started(api: Api, names: Sequence[str], since: float) -> str:
    """No pod of some nodes shows containers that ended when these nodes stopped."""
    stale = [
        pod["metadata"]["name"]
        for pod in api.get("/api/v1/pods")["items"]
        if pod["spec"].get("nodeName") in names and not has_ended(pod)
        for status in pod.get("status", {}).get("containerStatuses", [])
        if "running" in status["state"]
        and _seconds(status["state"]["running"]["startedAt"]) < since
    ]
    return f"pods of before: {', '.join(sorted(set(stale)))}" if stale else ""


def _seconds(text: str) -> float:
    """Seconds since the epoch of a time in RFC 3339."""
    return datetime.fromisoformat(text).timestamp()


def _not_ready(item: dict[str, Any]) -> str:
    """The reason why a node or pod is not Ready; nothing when it is."""
    conditions = item.get("status", {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None:
        return "no status yet"
    if ready["status"] == "True":
        return ""
    return str(ready.get("message") or ready.get("reason") or "not Ready")
