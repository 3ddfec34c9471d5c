"""NetworkPolicies, and who reaches whom with them: for tests of the rules and of real clusters.

Three namespaces with three pods each; each pod serves two ports of each protocol. The cases are those that a
conformant network has to get right (kubernetes/kubernetes, test/e2e/network/netpol), and some more.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, NamedTuple

Json = dict[str, Any]

NAMESPACES, NAMES = ("x", "y", "z"), ("a", "b", "c")
PODS = tuple(f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES)
PORTS = tuple(itertools.product(("TCP", "UDP", "SCTP"), (80, 81)))


class Probe(NamedTuple):
    """Whether a pod reaches a port of another one."""

    source: str
    target: str
    protocol: str
    port: int


def every_probe() -> list[Probe]:
    return [Probe(s, t, *p) for s, t, p in itertools.product(PODS, PODS, PORTS)]


def node_of(pod: str) -> int:
    """The node that a pod is on, 0 or 1: neighbours in a namespace are on different ones."""
    return PODS.index(pod) % 2


def port_name(protocol: str, port: int) -> str:
    return f"serve-{port}-{protocol.lower()}"


@dataclass(frozen=True)
class Case:
    """Policies, and what they deny.

    Attributes:
        policies: objects; in their text, <x/a> stands for that pod's address, and <x/a>/24 for the
            range of all pods of its node.
        denies: says so of a probe; not asked about what a pod sends itself.
        labels: of namespaces and pods, beside their own, while the policies are there.
        since: the MINOR of the first Kubernetes that knows all of their fields.
    """

    title: str
    policies: tuple[Json, ...]
    denies: Callable[[Probe], bool]
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    since: int = 0

    def allows(self, probe: Probe) -> bool:
        return probe.source == probe.target or not self.denies(probe)

    def objects(self, addresses: Mapping[str, str]) -> list[Json]:
        """The policies, with addresses in their places."""
        text = json.dumps(self.policies)
        for pod, address in addresses.items():
            # Kubernetes from 1.36 on takes no range with further bits.
            around = str(ip_network(f"{address}/24", strict=False))
            text = text.replace(f"<{pod}>/24", around).replace(f"<{pod}>", address)
        found: list[Json] = json.loads(text)
        return found


def policy(namespace: str, name: str, pods: Json, **spec: Any) -> Json:
    """A NetworkPolicy of the directions that are given, though one may let nothing through."""
    types = [each.capitalize() for each in ("ingress", "egress") if each in spec]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": pods, "policyTypes": types, **spec},
    }


def labels(**wanted: str) -> Json:
    return {"matchLabels": wanted}


def expressions(*wanted: tuple[str, str, list[str]]) -> Json:
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": values} if values else {})}
            for key, operator, values in wanted
        ]
    }


def _space(pod: str) -> str:
    return pod.partition("/")[0]


def _name(pod: str) -> str:
    return pod.partition("/")[2]


_ALL: Json = {}
_A = labels(pod="a")
_TCP_80: Json = {"port": 80, "protocol": "TCP"}
_TO_XA: Callable[[Probe], bool] = lambda p: p.target == "x/a"  # noqa: E731


def _only(target: str, *sources: str) -> Callable[[Probe], bool]:
    """Whoever is not among the sources is denied a target."""
    return lambda p: p.target == target and p.source not in sources


def _ingress(title: str, *peers: Json, let: Callable[[Probe], bool], **more: Any) -> Case:
    """A case with one policy for x/a, with one rule that has these peers."""
    made = policy("x", "case", _A, ingress=[{"from": list(peers)}])
    return Case(title, (made,), lambda p: p.target == "x/a" and not let(p), **more)


_X_BLOCK: Json = {"ipBlock": {"cidr": "<x/b>/32"}}

CASES = (
    Case(
        "default deny of ingress",
        (policy("x", "deny", _ALL, ingress=[]),),
        lambda p: _space(p.target) == "x",
    ),
    Case(
        "default deny of egress",
        (policy("x", "deny", _ALL, egress=[]),),
        lambda p: _space(p.source) == "x",
    ),
    Case(
        "default deny of both",
        (policy("x", "deny", _ALL, ingress=[], egress=[]),),
        lambda p: "x" in (_space(p.source), _space(p.target)),
    ),
    _ingress(
        "pods of the same namespace, by a label",
        {"podSelector": labels(pod="b")},
        let=lambda p: p.source == "x/b",
    ),
    _ingress("any pod of the same namespace", {"podSelector": {}}, let=lambda p: _space(p.source) == "x"),
    _ingress("pods of all namespaces", {"namespaceSelector": {}}, let=lambda p: True),
    _ingress(
        "another namespace, by a label",
        {"namespaceSelector": labels(ns="y")},
        let=lambda p: _space(p.source) == "y",
    ),
    _ingress(
        "pods by an expression",
        {"podSelector": expressions(("pod", "In", ["b", "d"]))},
        let=lambda p: p.source == "x/b",
    ),
    _ingress(
        "pods by what they are not",
        {"podSelector": expressions(("pod", "NotIn", ["b"]), ("none", "DoesNotExist", []))},
        let=lambda p: p.source in ("x/a", "x/c"),
    ),
    _ingress(
        "namespaces by an expression",
        {"namespaceSelector": expressions(("ns", "NotIn", ["x"]), ("ns", "Exists", []))},
        let=lambda p: _space(p.source) != "x",
    ),
    _ingress(
        "pods of the namespace or other namespaces",
        {"podSelector": labels(pod="b")},
        {"namespaceSelector": labels(ns="y")},
        let=lambda p: p.source == "x/b" or _space(p.source) == "y",
    ),
    _ingress(
        "pods in another namespace, by both labels",
        {"podSelector": labels(pod="b"), "namespaceSelector": labels(ns="y")},
        let=lambda p: p.source == "y/b",
    ),
    _ingress(
        "several pods of several namespaces",
        {
            "podSelector": expressions(("pod", "In", ["b", "c"])),
            "namespaceSelector": expressions(("ns", "NotIn", ["x"])),
        },
        let=lambda p: _space(p.source) != "x" and _name(p.source) != "a",
    ),
    Case(
        "ingress by a port's number",
        (policy("x", "ports", _A, ingress=[{"ports": [{"port": 81, "protocol": "TCP"}]}]),),
        lambda p: p.target == "x/a" and (p.protocol, p.port) != ("TCP", 81),
    ),
    Case(
        "overlapping policies add up",
        (
            policy("x", "one", _A, ingress=[{"from": [{"namespaceSelector": labels(ns="y")}], "ports": [_TCP_80]}]),
            policy("x", "two", _ALL, ingress=[{"from": [{"namespaceSelector": labels(ns="z")}], "ports": [{"port": 81}]}]),
        ),
        lambda p: _space(p.target) == "x"
        and not (_space(p.source) == "z" and (p.protocol, p.port) == ("TCP", 81))
        and not (p.target == "x/a" and _space(p.source) == "y" and (p.protocol, p.port) == ("TCP", 80)),
    ),
    Case(
        "one that allows all beside one that denies all",
        (policy("x", "deny", _ALL, ingress=[]), policy("x", "allow", _ALL, ingress=[{}])),
        lambda p: False,
    ),
    Case(
        "ingress by a port's name",
        (policy("x", "named", _A, ingress=[{"ports": [{"port": "serve-81-tcp"}]}]),),
        lambda p: p.target == "x/a" and (p.protocol, p.port) != ("TCP", 81),
    ),
    Case(
        "ingress of a namespace by a port's name",
        (
            policy(
                "x", "named", _A,
                ingress=[{"from": [{"namespaceSelector": labels(ns="y")}], "ports": [{"port": "serve-80-udp", "protocol": "UDP"}]}],
            ),
        ),
        lambda p: p.target == "x/a" and not (_space(p.source) == "y" and (p.protocol, p.port) == ("UDP", 80)),
    ),
    Case(
        "egress by a port's name",
        (policy("x", "named", _A, egress=[{"ports": [{"port": "serve-80-tcp"}]}]),),
        lambda p: p.source == "x/a" and (p.protocol, p.port) != ("TCP", 80),
    ),
    Case(
        "a port's name that no pod has",
        (policy("x", "named", _A, ingress=[{"ports": [{"port": "nobody-has"}]}]),),
        _TO_XA,
    ),
    Case(
        "a namespace that gets the label",
        (policy("x", "labelled", _A, ingress=[{"from": [{"namespaceSelector": labels(let="in")}]}]),),
        lambda p: p.target == "x/a" and _space(p.source) != "y",
        labels={"y": {"let": "in"}},
    ),
    Case(
        "a pod that gets the label",
        (policy("x", "labelled", _A, ingress=[{"from": [{"podSelector": labels(let="in"), "namespaceSelector": {}}]}]),),
        _only("x/a", "y/c"),
        labels={"y/c": {"let": "in"}},
    ),
    Case(
        "a pod that becomes subject to a policy",
        (policy("x", "subject", labels(guarded="yes"), ingress=[]),),
        lambda p: p.target == "x/b",
        labels={"x/b": {"guarded": "yes"}},
    ),
    Case(
        "egress to pods by their label",
        (policy("x", "egress", _A, egress=[{"to": [{"podSelector": labels(pod="b")}]}]),),
        lambda p: p.source == "x/a" and p.target != "x/b",
    ),
    Case(
        "egress to a namespace",
        (policy("x", "egress", _ALL, egress=[{"to": [{"namespaceSelector": labels(ns="y")}]}]),),
        lambda p: _space(p.source) == "x" and _space(p.target) != "y",
    ),
    Case(
        "ingress and egress in one policy",
        (
            policy(
                "x", "both", _A,
                ingress=[{"ports": [_TCP_80]}],
                egress=[{"ports": [{"port": 81, "protocol": "UDP"}]}],
            ),
        ),
        lambda p: (p.target == "x/a" and (p.protocol, p.port) != ("TCP", 80))
        or (p.source == "x/a" and (p.protocol, p.port) != ("UDP", 81)),
    ),
    Case(
        "egress to a range of addresses",
        (policy("x", "block", _A, egress=[{"to": [_X_BLOCK]}]),),
        lambda p: p.source == "x/a" and p.target != "x/b",
    ),
    Case(
        "egress to a range without a part of it",
        (policy("x", "block", _A, egress=[{"to": [{"ipBlock": {"cidr": "<x/b>/24", "except": ["<x/b>/32"]}}]}]),),
        lambda p: p.source == "x/a" and (node_of(p.target) != 1 or p.target == "x/b"),
    ),
    Case(
        "an address that one range leaves out and another has",
        (
            policy("x", "without", _A, egress=[{"to": [{"ipBlock": {"cidr": "<x/b>/24", "except": ["<x/b>/32"]}}]}]),
            policy("x", "with", _A, egress=[{"to": [_X_BLOCK]}]),
        ),
        lambda p: p.source == "x/a" and node_of(p.target) != 1,
    ),
    Case(
        "ingress from everywhere but two pods",
        (policy("x", "block", _A, ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["<x/c>/32", "<y/a>/32"]}}]}]),),
        lambda p: p.target == "x/a" and p.source in ("x/c", "y/a"),
    ),
    Case(
        "who may send may still not be let in",
        (
            policy("x", "out", _A, egress=[{"to": [{"namespaceSelector": labels(ns="y")}]}]),
            policy("y", "in", _A, ingress=[{"from": [{"podSelector": {}}]}]),
        ),
        lambda p: (p.source == "x/a" and _space(p.target) != "y")
        or (p.target == "y/a" and _space(p.source) != "y"),
    ),
    Case(
        "SCTP is not TCP",
        (policy("x", "sctp", _A, ingress=[{"ports": [{"port": 80, "protocol": "SCTP"}]}]),),
        lambda p: p.target == "x/a" and (p.protocol, p.port) != ("SCTP", 80),
    ),
    Case(
        "egress of SCTP by a port's name",
        (policy("x", "sctp", _A, egress=[{"ports": [{"port": "serve-81-sctp", "protocol": "SCTP"}]}]),),
        lambda p: p.source == "x/a" and (p.protocol, p.port) != ("SCTP", 81),
    ),
    Case(
        "UDP is not TCP",
        (policy("x", "udp", _A, ingress=[{"ports": [{"port": 80, "protocol": "UDP"}]}]),),
        lambda p: p.target == "x/a" and (p.protocol, p.port) != ("UDP", 80),
    ),
    Case(
        "a protocol without a port",
        (policy("x", "tcp", _A, ingress=[{"ports": [{"protocol": "TCP"}]}]),),
        lambda p: p.target == "x/a" and p.protocol != "TCP",
    ),
    Case(
        "a range of ports",
        (policy("x", "range", _A, ingress=[{"ports": [{"port": 81, "endPort": 90}, {"port": 85, "endPort": 99}]}]),),
        lambda p: p.target == "x/a" and (p.protocol, p.port) != ("TCP", 81),
        since=22,
    ),
    Case(
        "a range of ports from below",
        (policy("x", "range", _A, egress=[{"ports": [{"port": 1, "endPort": 80, "protocol": "UDP"}]}]),),
        lambda p: p.source == "x/a" and (p.protocol, p.port) != ("UDP", 80),
        since=22,
    ),
    Case(
        "a namespace by the name that Kubernetes gives it",
        (policy("x", "name", _A, ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]}]),),
        lambda p: p.target == "x/a" and _space(p.source) != "z",
        since=21,
    ),
)  # fmt: skip
