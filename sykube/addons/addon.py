"""Add-ons: optional parts of a cluster, which can be removed completely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sykube import resources
from sykube.host.host import Host
from sykube.image import versions
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node


class RegistryPort(Protocol):
    """The port of the host that leads to the cluster's own registry; nodes know it, too."""

    def open(self, node_port: int) -> None:
        """Let it lead to a port of the nodes; one that does already is kept."""

    def close(self) -> None:
        """Undo `open`; one that is closed is no error."""

    def is_open(self) -> bool:
        """Whether it was opened, and the user has not taken it away."""

    def problem(self) -> str:
        """What keeps the host from reaching the registry by it, or nothing."""


@dataclass(frozen=True)
class AddonContext:
    """What an add-on may use of its cluster.

    Attributes:
        domain: of the cluster's own names.
        api_server: the URL of the control plane, also for who cannot wait for Services.
        load_balancers: the first and last address for Services of type LoadBalancer.
    """

    host: Host
    api: Api
    domain: str
    api_server: str
    load_balancers: tuple[str, str]
    nodes: tuple[Node, ...]
    registry_port: RegistryPort


@dataclass(frozen=True)
class Addon:
    """An add-on of the catalogue: objects in the cluster, and for some a little more.

    Attributes:
        template: of its manifest, in manifests/.
        deployments, daemon_sets: NAMESPACE/NAME of those that must be available.
        by_default: whether init enables it unasked.
        of_bridge: whether it is a part of sykube's own pod network, and of no other.
        package: of Debian, which its node image must have; older ones lack it.
        kept: kinds of its objects that hold the users' data, which outlives it.
    """

    name: str
    summary: str
    template: str
    deployments: tuple[str, ...] = ()
    daemon_sets: tuple[str, ...] = ()
    by_default: bool = False
    of_bridge: bool = False
    package: str = ""
    kept: tuple[str, ...] = ()

    def variables(self, context: AddonContext) -> dict[str, Any]:
        """What its template is rendered with, beside the image of its programs."""
        return {}

    def objects(self, context: AddonContext) -> list[dict[str, Any]]:
        variables = {"image": versions.SYSTEM_IMAGE, **self.variables(context)}
        text = resources.render("manifests", self.template, **variables)
        # Not above: most commands read no YAML.
        from sykube import documents

        return documents.load_all(text)

    def enable(self, context: AddonContext) -> None:
        """Make it, or bring it up to date; what waits for it asks `problem`.

        In the order of its manifest: pods are refused while their account is not there.
        """
        for each in self.objects(context):
            context.api.apply(each)

    def disable(self, context: AddonContext) -> None:
        """Remove all of it but the users' data; what is gone already is no error."""
        for each in reversed(self.objects(context)):
            if each["kind"] not in self.kept:
                context.api.delete(each)

    def loss(self, context: AddonContext) -> str:
        """What users lose when it is disabled now, in words for them; mostly nothing."""
        return ""

    def sync_nodes(self, context: AddonContext) -> None:
        """Update what depends on the nodes and their certificates. All nodes must be running."""

    def wait(self, context: AddonContext) -> None:
        """Wait until it can be used; its pods are Ready."""

    def problem(self, context: AddonContext) -> str:
        """What keeps it from working, or nothing."""
        problems = [deployment_problem(context.api, each) for each in self.deployments]
        problems += [daemon_set_problem(context.api, each) for each in self.daemon_sets]
        return "; ".join(filter(None, problems))


def deployment_problem(api: Api, deployment: str) -> str:
    """What keeps a Deployment (NAMESPACE/NAME) from being available in its newest form."""
    found = _found(api, "Deployment", deployment)
    if isinstance(found, str):
        return found
    status, wanted = found.get("status", {}), found["spec"]["replicas"]
    counts = [status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas")]
    if counts != [wanted] * 3:
        return f"{deployment}: {counts[1]} of {wanted} pods are available"
    return ""


def daemon_set_problem(api: Api, daemon_set: str) -> str:
    """As deployment_problem, of a DaemonSet."""
    found = _found(api, "DaemonSet", daemon_set)
    if isinstance(found, str):
        return found
    status = found.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    counts = [status.get(key, 0) for key in ("numberAvailable", "updatedNumberScheduled")]
    if counts != [wanted] * 2 or not wanted:
        return f"{daemon_set}: {counts[0]} of {wanted} pods are available"
    return ""


def _found(api: Api, kind: str, where: str) -> dict[str, Any] | str:
    """An object that its controller has seen as it is; else what is wrong."""
    namespace, _, name = where.partition("/")
    try:
        found: dict[str, Any] = api.get(
            f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s/{name}"
        )
    except ApiError as error:
        if error.status != 404:
            raise
        return f"there is no {kind} {where}"
    if found.get("status", {}).get("observedGeneration", 0) < found["metadata"]["generation"]:
        return f"{where} was just changed"
    return found
