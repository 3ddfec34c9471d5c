"""A Slurm cluster where it is: in a namespace of a running cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.opening import require_awake, require_complete
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host import lock
from sykube.host.host import Host
from sykube.kubernetes.api import Api, ApiError
from sykube.slurm import manifests
from sykube.slurm.controller import Controller
from sykube.slurm.spec import SlurmSpec, namespace_problem
from sykube.ui import Ui

NAMESPACE = "slurm"
_GROUPS = {
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
}
# Of each object, and so of each pod.
_OURS = "app.kubernetes.io/name=slurm"
_NODES = f"{_OURS},app.kubernetes.io/component=node"
# The ConfigMap that says what a Slurm cluster is.
_RECORD, _OPTIONS = "slurm", "sykube.json"


@dataclass(frozen=True)
class Place:
    """Where a Slurm cluster is, or is to be; `api` is of the cluster's administrator."""

    cluster: Cluster
    namespace: str
    api: Api

    @property
    def controller(self) -> Controller:
        return Controller(
            self.cluster.host,
            self.cluster.image.kubectl,
            self.cluster.paths.kubeconfig,
            self.namespace,
        )

    @property
    def options(self) -> str:
        """How commands in messages name it: nothing for the default one."""
        namespace = "" if self.namespace == NAMESPACE else f" --namespace {self.namespace}"
        return f"{self.cluster.name_option}{namespace}"

    def path(self, kind: str, name: str = "") -> str:
        """Where the API has objects of the Slurm cluster: a kind of theirs, in the plural."""
        group = _GROUPS.get(kind, "/api/v1")
        return f"{group}/namespaces/{self.namespace}/{kind}{f'/{name}' if name else ''}"

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object of the Slurm cluster's namespace, or nothing."""
        return self.find(self.path(kind, name))

    def find(self, path: str) -> dict[str, Any] | None:
        """An object, or nothing."""
        try:
            found: dict[str, Any] = self.api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return found

    def spec(self) -> SlurmSpec | None:
        """The record of the Slurm cluster, where there is one.

        Raises:
            SykubeError: it cannot be read.
        """
        found = self.get("configmaps", _RECORD)
        if found is None:
            return None
        try:
            return SlurmSpec.from_json(found["data"][_OPTIONS])
        except (KeyError, TypeError, ValueError) as error:
            raise SykubeError(
                f"the ConfigMap slurm of the namespace {self.namespace} is none of sykube's",
                resolution="Take another namespace: --namespace NAME",
            ) from error

    def require(self) -> SlurmSpec:
        """The record of a Slurm cluster that must be there.

        Raises:
            SykubeError: there is none (NO_SUCH_CLUSTER).
        """
        if spec := self.spec():
            return spec
        raise SykubeError(
            f"there is no Slurm cluster in the namespace {self.namespace}",
            resolution=f"Make one with: sykube slurm up{self.options}",
            exit_code=ExitCode.NO_SUCH_CLUSTER,
        )

    def numbers(self) -> list[int]:
        """The nodes that have pods, or are to have one, by number."""
        return sorted(number for number, replicas in self.replicas().items() if replicas)

    def replicas(self) -> dict[int, int]:
        """The nodes that there are objects for, by number, and of how many pods each is to be."""
        found = self.api.get(self.path("statefulsets"), labelSelector=_NODES)["items"]
        numbers = {manifests.node_number(each["metadata"]["name"]): each for each in found}
        return {number: each["spec"]["replicas"] for number, each in numbers.items() if number}

    def pods(self) -> list[dict[str, Any]]:
        """All pods of the Slurm cluster."""
        found = self.api.get(self.path("pods"), labelSelector=_OURS)
        return list(found["items"])


def all_in(cluster: Cluster, api: Api) -> list[Place]:
    """Where a cluster has Slurm clusters of sykube's, by their namespaces.

    Raises:
        ApiError: the API server does not answer.
    """
    found = api.get("/api/v1/configmaps", labelSelector=_OURS)["items"]
    namespaces = sorted(
        each["metadata"]["namespace"]
        for each in found
        if each["metadata"]["name"] == _RECORD and _OPTIONS in each.get("data", {})
    )
    return [Place(cluster, each, api) for each in namespaces]


@contextmanager
def at(host: Host, name: str, namespace: str, ui: Ui) -> Iterator[Place]:
    """A namespace of a cluster that runs.

    Raises:
        UsageError: a Slurm cluster cannot have that namespace.
        SykubeError: there is no such cluster, or it does not run.
    """
    if problem := namespace_problem(namespace):
        raise UsageError(problem, resolution="Take another one, such as: --namespace slurm")
    cluster = lookup.load(host, name, ui)
    require_complete(cluster)
    cluster.running_control_plane()
    require_awake(cluster)
    with cluster.api() as api:
        yield Place(cluster, namespace, api)


@contextmanager
def held(place: Place) -> Iterator[None]:
    """Hold a Slurm cluster to change it.

    Not with the whole cluster: to wait for jobs may take hours.

    Raises:
        LockedError: another command holds it.
    """
    # Where it goes with the cluster, should this process be killed.
    file = place.cluster.paths.root / f".slurm-{place.namespace}.lock"
    with lock.exclusive(file, f"the Slurm cluster {place.namespace}"):
        yield
