"""Which node an address leads to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..api import Json

# kubeadm gives it to every control plane.
_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


@dataclass(frozen=True)
class Node:
    """A node of the cluster; excluded ones are for where there are no others."""

    name: str
    address: str
    ready: bool
    excluded: bool


def node_of(obj: Json) -> Node:
    """What matters of a core/v1 Node."""
    status, labels = obj.get("status", {}), obj["metadata"].get("labels") or {}
    addresses = status.get("addresses") or []
    internal = (each["address"] for each in addresses if each["type"] == "InternalIP")
    ready = any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in status.get("conditions") or ()
    )
    return Node(obj["metadata"]["name"], next(internal, ""), ready, _EXCLUDED in labels)


def choose(
    service: Json, address: str, endpoints: Json | None, nodes: Iterable[Node], now: str = ""
) -> str:
    """The name of the node that an address of a Service leads to; empty where there is none.

    With the traffic policy Local it is one with a pod of the Service that is ready: kube-proxy
    drops what comes to any other. Else it is any that is ready.

    Args:
        now: the node that it leads to, which it stays on as long as it can: what is connected is
            only known there.
    """
    usable = [node for node in nodes if node.ready and node.address]
    if service["spec"].get("externalTrafficPolicy") == "Local":
        local = _nodes_of(endpoints or {})
        usable = [node for node in usable if node.name in local]
    usable = [node for node in usable if not node.excluded] or usable
    names = [node.name for node in usable]
    if now in names:
        return now
    # Addresses are spread over nodes, and a restarted program chooses as the last one did.
    return max(names, key=lambda name: _weight(name, address), default="")


def by_service(endpoints: Iterable[Json]) -> Mapping[tuple[str, str], Json]:
    """Endpoints by namespace and name, which are their Service's."""
    return {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in endpoints}


def _nodes_of(endpoints: Json) -> set[str]:
    return {
        each.get("nodeName") or ""
        for subset in endpoints.get("subsets") or ()
        for each in subset.get("addresses") or ()
    }


def _weight(name: str, address: str) -> bytes:
    return hashlib.sha256(f"{name} {address}".encode()).digest()
