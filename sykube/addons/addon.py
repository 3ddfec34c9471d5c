"""What an add-on is: something that a cluster can do without, and that goes without a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sykube import resources
from sykube.kubernetes import api as kubernetes
from sykube.kubernetes.api import Api, ApiError
from sykube.network.subnets import Subnets
from sykube.node.node import Node

# Server-side apply takes the objects of a manifest in any order, but pods without their account,
# and what is in a namespace without it, are refused. Deleting goes the other way round.
Manifest = list[dict[str, Any]]


@dataclass(frozen=True)
class Site:
    """What add-ons are told of the cluster that they are in.

    Attributes:
        domain: of the cluster's own names.
        endpoint: HOST:PORT of the API server.
    """

    api: Api
    cluster: str
    domain: str
    endpoint: str
    subnets: Subnets
    nodes: tuple[Node, ...]


class Addon(Protocol):
    """An add-on of the catalogue.

    Attributes:
        by_default: whether init enables it unasked.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def by_default(self) -> bool: ...

    def enable(self, site: Site) -> None:
        """Make it, or bring it up to date; what waits for it asks `problem`."""

    def disable(self, site: Site) -> None:
        """Remove all of it but the user's data; what is gone already is no error."""

    def settle(self, site: Site) -> None:
        """Take in which nodes there are now, and their certificates; all of them are up."""

    def problem(self, site: Site) -> str:
        """What keeps it from working, or nothing."""


@dataclass(frozen=True)
class Manifested:
    """An add-on that is objects in the cluster alone.

    Attributes:
        template: of its manifest, in manifests/.
        deployments: NAMESPACE/NAME of those that must be available.
    """

    name: str
    summary: str
    template: str
    deployments: tuple[str, ...]
    by_default: bool = False

    def variables(self, site: Site) -> dict[str, Any]:
        """What its template is rendered with, beside nothing."""
        return {}

    def objects(self, site: Site) -> Manifest:
        text = resources.render("manifests", self.template, **self.variables(site))
        return list(kubernetes.manifests(text))

    def enable(self, site: Site) -> None:
        for each in self.objects(site):
            site.api.apply(each)

    def disable(self, site: Site) -> None:
        for each in reversed(self.objects(site)):
            site.api.delete(f"{kubernetes.collection_path(each)}/{each['metadata']['name']}")

    def settle(self, site: Site) -> None:
        """Most take the nodes as they come."""

    def problem(self, site: Site) -> str:
        found = (deployment_problem(site.api, each) for each in self.deployments)
        return "; ".join(filter(None, found))


def deployment_problem(api: Api, deployment: str) -> str:
    """What keeps a Deployment (NAMESPACE/NAME) from being available in its newest form."""
    namespace, _, name = deployment.partition("/")
    try:
        found = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
        return f"there is no Deployment {deployment}"
    status, wanted = found.get("status", {}), found["spec"]["replicas"]
    if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return f"{deployment} was just changed"
    counts = [status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas")]
    if counts != [wanted] * 3:
        return f"{deployment}: {counts[1]} of {wanted} pods are available"
    return ""
