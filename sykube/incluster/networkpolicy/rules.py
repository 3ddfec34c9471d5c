"""What nftables has to hold, so that policies are kept on one node.

Every packet that the node forwards to or from its pods' bridge passes one chain: also what the
bridge passes from port to port (br_netfilter), and after kube-proxy has put a pod's address in the
place of a Service's. What the node itself sends to its pods and gets from them does not pass it:
the specification has it that this is never denied, and the kubelet's probes are of it.

Two maps lead from a pod's address to a chain with what its policies let through. Pods with the same
policies share a chain, rules with the same selectors a set of addresses. Chains and sets are named
by what they say, so a chain is never changed: another one takes its place. An address on the bridge
that is in no map is nobody's yet, and gets nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .objects import Pod
from .policies import PROTOCOLS, Block, Peer, Policy, Port, Rule, Selection
from .selectors import Labels, matches

INGRESS, EGRESS, SELF = "ingress", "egress", "self"
ADDRESS, ADDRESS_PORT, PAIR = "ipv4_addr", "ipv4_addr . inet_service", "ipv4_addr . ipv4_addr"
# Whoever is let out must still be let in.
_LET_OUT, _LET_IN = "goto arriving", "accept"
_DROP = "drop"


@dataclass(frozen=True)
class Set:
    """A set of nftables, with its type."""

    kind: str
    elements: frozenset[str]


@dataclass(frozen=True)
class Ruleset:
    """All that there is beside the chains that never change.

    Attributes:
        sets, chains: by their names.
        maps: of INGRESS and EGRESS, what to do by the address of a pod.
    """

    sets: Mapping[str, Set] = field(default_factory=dict)
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {INGRESS: {}, EGRESS: {}})


class Compiler:
    """Computes the rules of a moment.

    Args:
        pods: all of the cluster.
        namespaces: the labels of each.
        local: pods of this node by their addresses.
        node: its name.
    """

    def __init__(
        self,
        pods: Iterable[Pod],
        namespaces: Mapping[str, Labels],
        local: Mapping[str, Pod],
        node: str,
    ) -> None:
        self._namespaces, self._local = namespaces, local
        # Of its own pods the node knows better than the API.
        elsewhere = ((each.address, each) for each in pods if each.address and each.node != node)
        self._pods = {**dict(elsewhere), **local}
        self._sets: dict[str, Set] = {}

    def compile(self, policies: Sequence[Policy]) -> Ruleset:
        """The rules for these policies."""
        by_namespace: dict[str, list[Policy]] = {}
        for policy in policies:
            by_namespace.setdefault(policy.namespace, []).append(policy)
        chains: dict[str, tuple[str, ...]] = {}
        maps: dict[str, dict[str, str]] = {INGRESS: {}, EGRESS: {}}
        known: dict[tuple[str, ...], str] = {}
        for address, pod in self._local.items():
            own = [p for p in by_namespace.get(pod.namespace, ()) if matches(p.pods, pod.labels)]
            for direction, let in ((INGRESS, _LET_IN), (EGRESS, _LET_OUT)):
                about = [p for p in own if _rules(p, direction) is not None]
                key = (direction, pod.namespace, *(p.name for p in about))
                if not about:
                    maps[direction][address] = let
                    continue
                if key not in known:
                    lines = self._chain(about, direction, let)
                    known[key] = _name(direction, lines)
                    chains[known[key]] = lines
                maps[direction][address] = f"goto {known[key]}"
        # What a pod sends itself is nobody's to deny.
        own_pairs = frozenset(f"{address} . {address}" for address in self._local)
        return Ruleset({SELF: Set(PAIR, own_pairs), **self._sets}, chains, maps)

    def _chain(self, policies: Sequence[Policy], direction: str, let: str) -> tuple[str, ...]:
        lines = {
            f"{match} {let}".strip()
            for policy in policies
            for rule in _rules(policy, direction) or ()
            for match in self._matches(rule, "saddr" if direction == INGRESS else "daddr")
        }
        return (*sorted(lines), _DROP)

    def _matches(self, rule: Rule, field: str) -> Iterable[str]:
        """What of a packet must be so, each of them enough."""
        peers = [""] if rule.peers is None else [self._peer(each, field) for each in rule.peers]
        ports = [""] if rule.ports is None else list(self._ports(rule.ports))
        for peer in peers:
            for port in ports if peer is not None else ():
                yield " ".join(filter(None, (peer, port)))

    def _peer(self, peer: Peer, field: str) -> str | None:
        if isinstance(peer, Selection):
            return f"ip {field} @{self._selected(peer)}"
        return _block(peer, field)

    def _selected(self, selection: Selection) -> str:
        where = selection.namespace if selection.namespaces is None else selection.namespaces
        name = _name("pods", [where, selection.pods])
        if name not in self._sets:
            self._sets[name] = Set(ADDRESS, frozenset(self._addresses(selection)))
        return name

    def _addresses(self, selection: Selection) -> Iterable[str]:
        wanted = selection.namespaces
        namespaces = {
            name
            for name, labels in self._namespaces.items()
            if (name == selection.namespace if wanted is None else matches(wanted, labels))
        }
        for address, pod in self._pods.items():
            if pod.namespace in namespaces and matches(selection.pods, pod.labels):
                yield address

    def _ports(self, ports: Sequence[Port]) -> Iterable[str]:
        for protocol in PROTOCOLS:
            meant = [each for each in ports if each.protocol == protocol]
            word = protocol.lower()
            if any(not each.name and not each.first for each in meant):
                yield f"meta l4proto {word}"
                continue
            if numbers := _merged((each.first, each.last) for each in meant if each.first):
                yield f"{word} dport {{ {', '.join(numbers)} }}"
            for name in sorted({each.name for each in meant if each.name}):
                yield f"ip daddr . {word} dport @{self._named(protocol, name)}"

    def _named(self, protocol: str, name: str) -> str:
        """A set with each pod's number of the port of that name: every pod has its own."""
        where = _name("ports", [protocol, name])
        if where not in self._sets:
            found = (
                f"{address} . {number}"
                for address, pod in self._pods.items()
                for kind, called, number in pod.ports
                if (kind, called) == (protocol, name)
            )
            self._sets[where] = Set(ADDRESS_PORT, frozenset(found))
        return where


def _rules(policy: Policy, direction: str) -> tuple[Rule, ...] | None:
    return policy.ingress if direction == INGRESS else policy.egress


def _block(block: Block, field: str) -> str | None:
    """None where no address of IPv4 is in it."""
    if block.network is None:
        return None
    whole = "" if block.network.prefixlen == 0 else f"ip {field} {block.network}"
    listed = ", ".join(map(str, block.excluded))
    return " ".join(filter(None, (whole, f"ip {field} != {{ {listed} }}" if listed else "")))


def _merged(ranges: Iterable[tuple[int, int]]) -> list[str]:
    """Ranges of ports, those that meet as one: nftables refuses what overlaps."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def _name(kind: str, content: object) -> str:
    text = json.dumps(content, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
