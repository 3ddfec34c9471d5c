"""What a NetworkPolicy says, and what of it cannot be enforced.

What is not understood lets nothing through: a policy exists to keep others out. What each field
means, and what it means that one is missing:
https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TypeVar

from ..api import Json
from . import selectors

PROTOCOLS = ("TCP", "UDP", "SCTP")
_LAST_PORT = 65535
_T = TypeVar("_T")


class PolicyError(ValueError):
    """A part of a policy cannot be enforced; says which, and why."""


@dataclass(frozen=True)
class Port:
    """A port or a range of ports; all of a protocol where neither a name nor numbers are given."""

    protocol: str
    name: str = ""
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Block:
    """A range of IPv4 addresses, without some of them; an empty one is of IPv6 only."""

    network: IPv4Network | None
    excluded: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Pods, by their labels and by their namespace's.

    Attributes:
        namespace: the only one that is meant, where `namespaces` is None.
    """

    pods: Json
    namespace: str
    namespaces: Json | None = None


Peer = Block | Selection


@dataclass(frozen=True)
class Rule:
    """Whom a policy lets through, and where to; None is everybody, everywhere."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[Port, ...] | None = None


@dataclass(frozen=True)
class Policy:
    """A policy.

    Attributes:
        ingress, egress: what it lets through to and from the pods that it is about; None where it
            says nothing of that direction.
        problems: what of it cannot be enforced, and lets nothing through.
    """

    namespace: str
    name: str
    pods: Json
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    problems: tuple[str, ...] = ()

    @property
    def port_names(self) -> set[str]:
        """The names of ports that it mentions."""
        rules = (*(self.ingress or ()), *(self.egress or ()))
        return {port.name for rule in rules for port in rule.ports or () if port.name}


def read(obj: Json) -> Policy:
    """Read a NetworkPolicy."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    namespace = metadata["namespace"]
    problems: list[str] = []
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    pods = spec.get("podSelector") or {}
    understood = True
    for problem in (
        *_unknown("spec", spec, ("podSelector", "policyTypes", "ingress", "egress")),
        *(f"policyTypes has {kind!r}" for kind in types if kind not in ("Ingress", "Egress")),
    ):
        problems.append(problem)
        understood = False
    if problem := selectors.problem(pods):
        problems.append(f"podSelector {problem}")
        pods = {}

    def rules(direction: str, peers: str) -> tuple[Rule, ...] | None:
        if direction.capitalize() not in types:
            return None
        items = spec.get(direction) or ()
        read = (
            _rule(each, f"{direction}[{number}]", peers, namespace, problems.append)
            for number, each in enumerate(items)
        )
        found = tuple(each for each in read if each is not None)
        return found if understood else ()

    ingress, egress = rules("ingress", "from"), rules("egress", "to")
    return Policy(namespace, metadata["name"], pods, ingress, egress, tuple(problems))


def unused_names(policies: Iterable[Policy], known: set[str]) -> dict[tuple[str, str], list[str]]:
    """The ports of policies that no pod has by that name, and so lead nowhere.

    Args:
        known: the names of all pods' ports.
    """
    found = {(each.namespace, each.name): sorted(each.port_names - known) for each in policies}
    return {key: names for key, names in found.items() if names}


def unused(name: str) -> str:
    """What is wrong with a port's name that no pod has."""
    return f"no pod has a port named {name!r}"


def _rule(
    item: Json, place: str, key: str, namespace: str, complain: Callable[[str], None]
) -> Rule | None:
    """A rule, without what cannot be enforced; None where nothing of it can."""
    if unknown := _unknown(place, item, (key, "ports")):
        for each in unknown:
            complain(each)
        return None
    peers = _each(item.get(key), f"{place}.{key}", partial(_peer, namespace), complain)
    ports = _each(item.get("ports"), f"{place}.ports", _port, complain)
    # What is left of a list that had something must not become everybody.
    if peers == () or ports == ():
        return None
    return Rule(peers, ports)


def _each(
    items: Sequence[Json] | None,
    place: str,
    read: Callable[[Json, str], _T],
    complain: Callable[[str], None],
) -> tuple[_T, ...] | None:
    """What can be read of a list; None where there is none, or an empty one."""
    found = []
    for number, item in enumerate(items or ()):
        try:
            found.append(read(item, f"{place}[{number}]"))
        except PolicyError as error:
            complain(str(error))
    return tuple(found) if items else None


def _peer(namespace: str, item: Json, place: str) -> Peer:
    if unknown := _unknown(place, item, ("podSelector", "namespaceSelector", "ipBlock")):
        raise PolicyError(unknown[0])
    block, pods, namespaces = (
        item.get(key) for key in ("ipBlock", "podSelector", "namespaceSelector")
    )
    if block is not None:
        if pods is not None or namespaces is not None:
            raise PolicyError(f"{place} has an ipBlock beside a selector")
        return _block(block, f"{place}.ipBlock")
    if pods is None and namespaces is None:
        raise PolicyError(f"{place} names nobody")
    for key, selector in (("podSelector", pods), ("namespaceSelector", namespaces)):
        if problem := selectors.problem(selector or {}):
            raise PolicyError(f"{place}.{key} {problem}")
    return Selection(pods or {}, namespace, namespaces)


def _block(item: Json, place: str) -> Block:
    if unknown := _unknown(place, item, ("cidr", "except")):
        raise PolicyError(unknown[0])
    whole = _network(item.get("cidr"), f"{place}.cidr")
    excluded = []
    for number, each in enumerate(item.get("except") or ()):
        at = f"{place}.except[{number}]"
        part = _network(each, at)
        if part.version != whole.version or not _within(part, whole):
            raise PolicyError(f"{at} {each} is not within {item.get('cidr')}")
        if isinstance(part, IPv4Network):
            excluded.append(part)
    if not isinstance(whole, IPv4Network):
        return Block(None)
    return Block(whole, tuple(collapse_addresses(excluded)))


def _within(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    return part.network_address in whole and part.broadcast_address in whole


def _network(text: object, place: str) -> IPv4Network | IPv6Network:
    if not isinstance(text, str) or "/" not in text:
        raise PolicyError(f"{place} {text or ''!r} is no range of addresses")
    try:
        # The API takes one with further bits, 10.0.0.1/8, for the whole range.
        return ip_network(text, strict=False)
    except ValueError as error:
        raise PolicyError(f"{place} {text!r} is no range of addresses") from error


def _port(item: Json, place: str) -> Port:
    if unknown := _unknown(place, item, ("protocol", "port", "endPort")):
        raise PolicyError(unknown[0])
    protocol, port, end = item.get("protocol") or "TCP", item.get("port"), item.get("endPort")
    if protocol not in PROTOCOLS:
        raise PolicyError(f"{place} has the unknown protocol {protocol!r}")
    if port is None and end is None:
        return Port(protocol)
    if isinstance(port, str) and port and end is None:
        return Port(protocol, name=port)
    if not isinstance(port, int) or not isinstance(end, int | None):
        raise PolicyError(f"{place} has an endPort without a port's number")
    last = port if end is None else end
    if not 0 < port <= last <= _LAST_PORT:
        raise PolicyError(f"{place} {port} to {last} is no range of ports")
    return Port(protocol, first=port, last=last)


def _unknown(place: str, item: Json, known: Sequence[str]) -> list[str]:
    """Fields that are newer than this program, or nobody's."""
    return [f"{place} has the unknown field {key}" for key in sorted(item.keys() - {*known})]
