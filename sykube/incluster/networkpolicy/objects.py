"""Pods and namespaces, as far as policies are about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import reconcile
from ..api import Json
from . import policies

_ENDED = ("Succeeded", "Failed")
# A mirror pod's UID is not the one that the kubelet gives the container runtime.
_STATIC = "kubernetes.io/config.hash"


@dataclass(frozen=True)
class Pod:
    """A pod.

    Attributes:
        uids: what the container runtime may know it by.
        address: of IPv4, as the API has it, which is late; empty where it has none of its own: it
            is not there yet, it has ended, or it is on its node's network.
        awaits: whether it will have one.
        ports: protocol, name and number of those that have a name.
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    node: str
    uids: tuple[str, ...] = ()
    address: str = ""
    awaits: bool = True
    ports: tuple[tuple[str, str, int], ...] = ()


class Objects(reconcile.Objects):
    """A sink for watchers. It keeps what it needs of each object: the rest is most of them."""

    def __init__(self) -> None:
        super().__init__(_trim)

    def change(self, resource: str, obj: Json) -> None:
        # Most changes of a pod, its probes and restarts, are none here.
        key = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        if self._found[resource].get(key) != self.keep(resource, obj):
            super().change(resource, obj)

    def policies(self) -> list[policies.Policy]:
        return self.all("networkpolicies")

    def pods(self) -> list[Pod]:
        return self.all("pods")

    def namespaces(self) -> dict[str, Mapping[str, str]]:
        """The labels of each."""
        return dict(self.all("namespaces"))


def _trim(resource: str, obj: Json) -> object:
    match resource:
        case "networkpolicies":
            return policies.read(obj)
        case "namespaces":
            return obj["metadata"]["name"], obj["metadata"].get("labels") or {}
        case _:
            return pod_of(obj)


def pod_of(obj: Json) -> Pod:
    """What matters of a core/v1 Pod."""
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    awaits = not spec.get("hostNetwork") and status.get("phase") not in _ENDED
    addresses = [each.get("ip", "") for each in status.get("podIPs") or ()]
    address = next((each for each in addresses if "." in each), status.get("podIP", ""))
    uids = metadata.get("uid", ""), (metadata.get("annotations") or {}).get(_STATIC, "")
    return Pod(
        metadata["namespace"],
        metadata["name"],
        metadata.get("labels") or {},
        spec.get("nodeName", ""),
        tuple(filter(None, uids)),
        address if awaits else "",
        awaits,
        tuple(
            (port.get("protocol", "TCP"), port["name"], int(port["containerPort"]))
            for container in _running_containers(spec)
            for port in container.get("ports") or ()
            if port.get("name")
        ),
    )


def _running_containers(spec: Json) -> list[Json]:
    """Those that run all the time: also sidecars, which are init containers that are restarted."""
    first = spec.get("initContainers") or ()
    sidecars = [each for each in first if each.get("restartPolicy") == "Always"]
    return [*sidecars, *(spec.get("containers") or ())]
