"""The nodes and pods that there are, as far as their metrics need them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..api import Json


@dataclass(frozen=True)
class Node:
    """A node and where its kubelet answers."""

    name: str
    labels: Mapping[str, str]
    address: str
    port: int


@dataclass(frozen=True)
class Pod:
    """A pod and its containers that run now."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    node: str
    containers: tuple[str, ...]


class Objects:
    """A sink for watchers. It keeps what it needs of each object: the rest is most of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, Node | Pod]] = {}

    def replace(self, resource: str, objects: Sequence[Json]) -> None:
        """Take in a whole list."""
        with self._lock:
            self._found[resource] = {_id(each): _trim(resource, each) for each in objects}

    def change(self, resource: str, obj: Json) -> None:
        """Take in one object."""
        with self._lock:
            self._found[resource][_id(obj)] = _trim(resource, obj)

    def remove(self, resource: str, obj: Json) -> None:
        """Forget one object."""
        with self._lock:
            self._found[resource].pop(_id(obj), None)

    @property
    def complete(self) -> bool:
        """Whether both lists were seen once."""
        with self._lock:
            return {"nodes", "pods"} <= self._found.keys()

    def nodes(self) -> list[Node]:
        """All nodes, by name."""
        found = [each for each in self._all("nodes") if isinstance(each, Node)]
        return sorted(found, key=lambda node: node.name)

    def pods(self) -> list[Pod]:
        """All pods, by namespace and name."""
        found = [each for each in self._all("pods") if isinstance(each, Pod)]
        return sorted(found, key=lambda pod: (pod.namespace, pod.name))

    def _all(self, resource: str) -> list[Node | Pod]:
        with self._lock:
            return [*self._found.get(resource, {}).values()]


def _id(obj: Json) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _trim(resource: str, obj: Json) -> Node | Pod:
    metadata, status = obj["metadata"], obj.get("status", {})
    labels = metadata.get("labels") or {}
    if resource == "nodes":
        addresses = {each["type"]: each["address"] for each in status.get("addresses") or ()}
        endpoint = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {})
        address = addresses.get("InternalIP", "")
        return Node(metadata["name"], labels, address, int(endpoint.get("Port", 0)))
    running = tuple(
        each["name"]
        for each in status.get("containerStatuses") or ()
        if "running" in each.get("state", {})
    )
    node = obj["spec"].get("nodeName", "")
    return Pod(metadata["namespace"], metadata["name"], labels, node, running)
