"""The nodes and pods that there are, as far as their metrics need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import reconcile
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


class Objects(reconcile.Objects):
    """A sink for watchers. It keeps what it needs of each object: the rest is most of them."""

    def __init__(self) -> None:
        super().__init__(_trim)

    @property
    def complete(self) -> bool:
        """Whether both lists were seen once."""
        return self.has("nodes", "pods")

    def nodes(self) -> list[Node]:
        return sorted(self.all("nodes"), key=lambda node: str(node.name))

    def pods(self) -> list[Pod]:
        return sorted(self.all("pods"), key=lambda pod: (pod.namespace, pod.name))


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
