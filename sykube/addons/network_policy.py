"""NetworkPolicies, enforced on the pods of sykube's own pod network.

Its rules are in the nodes' kernels, where they stay while its pods are away. What its program knows
is imported where it is used: most commands know the add-ons, and need nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sykube.addons.addon import Addon, AddonContext
from sykube.kubernetes.api import Api, wait_until
from sykube.node.node import Node

if TYPE_CHECKING:
    from sykube.incluster.networkpolicy.policies import Policy

_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_PODS = "/api/v1/namespaces/kube-system/pods"
_NAME = "network-policy"
# As cni/pod-network.conflist.j2 has it.
_BRIDGE = "cni0"
_END_TIMEOUT_S = 120.0
# A kubelet that found nothing of a container, as of a pod that is deleted, says so itself; how its
# program ended is not known: convertToAPIContainerStatuses in pkg/kubelet/kubelet_pods.go.
_UNKNOWN = "ContainerStatusUnknown"
# A program that has run for so long found what it needs of the kernel.
_SETTLED_S = 5.0


@dataclass(frozen=True)
class NetworkPolicy(Addon):
    """A program on each node, which keeps the rules of its kernel."""

    def variables(self, context: AddonContext) -> dict[str, Any]:
        return {"api_server": context.api_server, "bridge": _BRIDGE}

    def disable(self, context: AddonContext) -> None:
        """As Addon.disable; afterwards every packet passes."""
        from sykube.incluster.networkpolicy.nft import nothing

        super().disable(context)
        # A program that is still there would set its rules again.
        wait_until(
            context.host,
            f"the end of {_NAME}",
            lambda: " and ".join(each["metadata"]["name"] for each in _pods(context.api)),
            _END_TIMEOUT_S,
        )
        for node in context.nodes:
            if node.is_running() and _has_nftables(node):
                node.run(["nft", "-f", "-"], stdin=nothing())

    def loss(self, context: AddonContext) -> str:
        found = policies(context.api)
        names = ", ".join(f"{each.namespace}/{each.name}" for each in found)
        return f"accepted and no longer enforced: NetworkPolicy {names}" if found else ""

    def problem(self, context: AddonContext) -> str:
        problem = super().problem(context)
        said = map(_last_words, _pods(context.api))
        return "; ".join(filter(None, [problem, *said]))


def closed() -> str:
    """Rules of nftables by which the pods of a node get nothing, as the program's are at first."""
    from sykube.incluster.networkpolicy.nft import whole
    from sykube.incluster.networkpolicy.rules import Ruleset

    return whole(Ruleset(), _BRIDGE)


def close(nodes: Iterable[Node]) -> None:
    """Let the pods of running nodes get nothing until the program is there."""
    for node in nodes:
        if _has_nftables(node):
            node.run(["nft", "-f", "-"], stdin=closed())


def policies(api: Api) -> list[Policy]:
    """All NetworkPolicies, in the order of their names."""
    from sykube.incluster.networkpolicy.policies import read

    found = [read(each) for each in api.get(_POLICIES)["items"]]
    return sorted(found, key=lambda each: (each.namespace, each.name))


def unenforced_parts(api: Api, found: list[Policy]) -> list[str]:
    """What of policies is not enforced, and lets nothing through, by the policies' names."""
    from sykube.incluster.networkpolicy.objects import pod_of
    from sykube.incluster.networkpolicy.policies import unused, unused_names

    ports: dict[tuple[str, str], list[str]] = {}
    if any(each.port_names for each in found):
        pods = [pod_of(each) for each in api.get("/api/v1/pods")["items"]]
        ports = unused_names(found, {name for pod in pods for _, name, _ in pod.ports})
    return [
        f"{each.namespace}/{each.name}: {problem}"
        for each in found
        for problem in (
            *each.problems,
            *map(unused, ports.get((each.namespace, each.name), ())),
        )
    ]


def unable(api: Api) -> dict[str, str]:
    """Nodes without nftables, where its program ends at once, by the names of their pods."""
    from sykube.incluster.networkpolicy.nft import UNSUPPORTED

    return {
        each["metadata"]["name"]: each["spec"].get("nodeName", "")
        for each in _pods(api)
        if _ended(each).get("exitCode") == UNSUPPORTED
    }


def _has_nftables(node: Node) -> bool:
    return node.run(["nft", "list", "tables"], check=False).ok


def _pods(api: Api) -> list[dict[str, Any]]:
    return [
        each
        for each in api.get(_PODS)["items"]
        if each["metadata"].get("labels", {}).get("k8s-app") == _NAME
    ]


def _last_words(pod: dict[str, Any]) -> str:
    """What its program said when it ended, where it does not run."""
    said = _ended(pod).get("message", "").strip()
    return f"{pod['spec'].get('nodeName', '')}: {said.splitlines()[-1]}" if said else ""


def _ended(pod: dict[str, Any]) -> dict[str, Any]:
    """How its program ended last (ContainerStateTerminated), where it does not run.

    Without nftables it is started again and again: for a moment it runs, and its pod counts as
    available.
    """
    from sykube.incluster.networkpolicy.nft import UNSUPPORTED

    for status in pod.get("status", {}).get("containerStatuses", []):
        state = status.get("state", {})
        ended = {**status.get("lastState", {}), **state}.get("terminated")
        if ended and ended.get("reason") == _UNKNOWN:
            continue
        started = state.get("running", {}).get("startedAt", "")
        age = time.time() - datetime.fromisoformat(started).timestamp() if started else 0.0
        may_end = ended and ended.get("exitCode") == UNSUPPORTED and age < _SETTLED_S
        if ended and (may_end or not started):
            return dict(ended)
    return {}


NETWORK_POLICY = NetworkPolicy(
    name=_NAME,
    summary="Enforces NetworkPolicies, of sykube's own pod network",
    template="network-policy.yaml.j2",
    daemon_sets=(f"kube-system/{_NAME}",),
    by_default=True,
    of_bridge=True,
    package="nftables",
)
