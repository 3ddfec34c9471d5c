"""Whether a cluster works; each check says what is missing, or nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sykube.kubernetes.api import Api, ApiError

# An answer takes milliseconds; what is lost before kube-proxy has its rules never comes. So it is
# asked again before long, and has longer then, where the machine is slow.
_DNS_TIMEOUTS_S = (0.1, 0.2, 0.7)
# Of the phase: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
_ENDED = ("Succeeded", "Failed")
_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# Asks something of a node's network: see Node.exchange.
Exchange = Callable[[tuple[str, int], bytes, float], bytes]


def nodes(api: Api, names: list[str]) -> str:
    """Every node is registered and Ready."""
    return nodes_problem(registered(api), names)


def nodes_problem(found: dict[str, Any], names: list[str]) -> str:
    problems = node_problems(found, names).items()
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


def lacks_network(node: dict[str, Any]) -> bool:
    """Whether a Node is NotReady only because its container runtime has no CNI configuration.

    Source: ReadyCondition in pkg/kubelet/nodestatus/setters.go, which puts several reasons in
    brackets.
    """
    reason = _not_ready(node)
    return "reason:NetworkPluginNotReady" in reason and not reason.startswith("[")


def has_joined(found: dict[str, Any], name: str) -> bool:
    """Whether a node is registered, and Ready or waiting only for a pod network.

    Args:
        found: as `registered` gives it.
    """
    return name in found and (not _not_ready(found[name]) or lacks_network(found[name]))


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


def answers(api: Api) -> str:
    """The API server serves objects."""
    api.get("/api/v1/namespaces/kube-system")
    return ""


def has_ended(pod: dict[str, Any]) -> bool:
    """Whether a pod is over for good: a finished Job's, or one that was evicted or has failed.

    It is never Ready again. Whoever needs it made another one in its place, so nobody waits for it.
    """
    return pod.get("status", {}).get("phase") in _ENDED


def system_pods(
    api: Api,
    node_count: int,
    control_planes: int = 1,
    *,
    networked: bool = True,
    ignored: Collection[str] = (),
) -> str:
    """The pods of kube-system are there and Ready: control planes, kube-proxy, of Deployments.

    Args:
        networked: whether there is a pod network. Without one, only pods on the network of their
            node are looked at, where they have one: NotReady nodes get no others.
        ignored: names of pods that need not be Ready.
    """
    found = api.get("/api/v1/namespaces/kube-system/pods")["items"]
    pods = [pod for pod in found if not has_ended(pod)]
    if not networked:
        specs = [(pod, pod["spec"]) for pod in pods]
        pods = [pod for pod, spec in specs if spec.get("hostNetwork") and spec.get("nodeName")]
    waiting = [
        f"{pod['metadata']['name']}: {reason}"
        for pod in pods
        if pod["metadata"]["name"] not in ignored and (reason := _not_ready(pod))
    ]
    labels = [pod["metadata"].get("labels", {}) for pod in pods]
    proxies = sum(label.get("k8s-app") == "kube-proxy" for label in labels)
    if proxies < node_count:
        waiting.append(f"kube-proxy on {proxies} of {node_count} nodes")
    for component in _CONTROL_PLANE:
        count = sum(label.get("component") == component for label in labels)
        if count < control_planes:
            waiting.append(f"{component} on {count} of {control_planes} control planes")
    if networked:
        if not any(label.get("k8s-app") == "kube-dns" for label in labels):
            waiting.append("no pod of the cluster DNS")
        waiting += _too_few(api, labels)
    return "; ".join(waiting)


def _too_few(api: Api, labels: list[dict[str, str]]) -> list[str]:
    """The Deployments of kube-system that have fewer pods than they should.

    By the pods that are there, since what a Deployment says of itself may be of another time: of
    before a snapshot, or of before its controller saw it.

    Args:
        labels: of each pod.
    """
    found = []
    for item in api.get("/apis/apps/v1/namespaces/kube-system/deployments")["items"]:
        wanted = item["spec"]["replicas"]
        selector = item["spec"]["selector"].get("matchLabels", {}).items()
        count = sum(selector <= label.items() for label in labels)
        if count < wanted:
            found.append(f"{item['metadata']['name']}: {count} of {wanted} pods")
    return found


def dns_answers(exchange: Exchange, server: str, name: str) -> str:
    """The cluster DNS answers a node for a name, by its Service address."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    try:
        answer = _ask(exchange, server, query)
    except OSError as error:
        return f"no answer for {name}: {error}"
    code, answers = (answer[3] & 15, answer[7]) if len(answer) > 7 else (-1, 0)
    return "" if code == 0 and answers else f"no address for {name} (response code {code})"


def resolver_answers(exchange: Exchange, server: str) -> str:
    """A resolver answers a node at all, whatever it knows; asked for the root's name servers."""
    query = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + b"\0" + struct.pack(">2H", 2, 1)
    try:
        _ask(exchange, server, query)
    except OSError as error:
        return f"no answer: {error}"
    return ""


def _ask(exchange: Exchange, server: str, query: bytes) -> bytes:
    for timeout in _DNS_TIMEOUTS_S[:-1]:
        with suppress(TimeoutError):
            return exchange((server, 53), query, timeout)
    return exchange((server, 53), query, _DNS_TIMEOUTS_S[-1])


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
