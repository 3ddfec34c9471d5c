"""Other clusters, by contexts of the user's kubeconfig, whose pods are measured, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube.cluster.commands.bench import laboratory
from sykube.cluster.commands.bench.laboratory import NAMESPACE
from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.kubernetes import kubeconfig
from sykube.kubernetes.api import ApiError
from sykube.kubernetes.elsewhere import Elsewhere

# What a measurement does there: verb, resource, and whether in its namespace.
_RIGHTS = (
    ("get", "namespaces", False), ("create", "namespaces", False), ("delete", "namespaces", False),
    ("list", "nodes", False), ("get", "serviceaccounts", True), ("get", "pods", True),
    ("list", "pods", True), ("create", "pods", True), ("deletecollection", "pods", True),
    ("create", "pods/exec", True), ("get", "pods/log", True),
)  # fmt: skip
_SERVICES = "create", "services", True
# Until pods run, which may have to pull their image.
_PULLED_S = 600.0
_NAMESPACE = f"/api/v1/namespaces/{NAMESPACE}"
_SYSTEM = "/api/v1/namespaces/kube-system"
_CONTROL_PLANES = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
# Source: Kubernetes, pkg/kubelet/images/types.go.
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


@dataclass(frozen=True)
class Other:
    """Another cluster.

    Attributes:
        nodes: those that are ready, a control plane first.
        image: what its pods run.
        version: of its API server.
    """

    server: Elsewhere
    nodes: Sequence[str]
    image: str
    version: str

    @property
    def kubectl(self) -> str:
        """How its user calls kubectl there."""
        return f"kubectl --context {self.server.context}"

    def inside(self, pod: str, *command: str, container: str = "main") -> list[str | Path]:
        """The command line of a program in a pod of the namespace, which is handed its input."""
        return self.server.command(
            "--namespace", NAMESPACE, "exec", "--stdin", pod, "--container", container, "--",
            *command,
        )  # fmt: skip

    def ready(self, host: Host) -> dict[str, dict[str, Any]]:
        """Wait until all pods of the namespace are ready; the status of each, by its name.

        Raises:
            SykubeError: they are not within ten minutes, or cannot get their image.
        """
        return laboratory.ready(host, self.server, watch=self.require_image, timeout=_PULLED_S)

    def require_image(self, pods: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse to wait for pods whose image the cluster cannot get.

        Args:
            pods: the status of each, by its name.

        Raises:
            SykubeError: there is one.
        """
        for name, status in pods.items():
            for container in status.get("containerStatuses", []):
                waiting = container["state"].get("waiting", {})
                if waiting.get("reason") in _NO_IMAGE:
                    raise SykubeError(
                        f"pods of the context {self.server.context} cannot get the image "
                        f"{self.image}",
                        details=f"{name}: {waiting['reason']}: {waiting.get('message', '')}",
                        resolution="Load it there, such as what `sykube bench image stream "
                        "--archive FILE` writes, by `kind load image-archive FILE`"
                        "\n  Or name one that it can pull: --image REFERENCE",
                    )


def versions(others: Mapping[str, Other]) -> dict[str, str]:
    """What a result says of other clusters, by what it is of."""
    return {
        f"the context {context}": f"{other.version} with {other.image}"
        for context, other in others.items()
    }


def found(
    cluster: Cluster,
    contexts: Sequence[str],
    image: str,
    taken: Collection[str],
    *,
    services: bool = False,
) -> dict[str, Other]:
    """Other clusters by their contexts; nothing is made in them.

    Args:
        image: what their pods run.
        taken: names of places that are none of another cluster.
        services: whether Services are made there, too.

    Raises:
        UsageError: there is no such context, its name is taken, or two of them are one cluster.
        SykubeError: a cluster is not reached, lacks a right, has no node that is ready, or has the
            namespace already.
    """
    owner = Owner.of_caller()
    there = kubeconfig.contexts(owner) if contexts else []
    for context in contexts:
        if context not in there:
            raise UsageError(
                f"your kubeconfig has no context {context!r}",
                resolution=f"There are {', '.join(there) or 'none'}: kubectl config get-contexts",
            )
        if context in taken:
            raise UsageError(
                f"a context {context!r} would be taken for a place of that name",
                resolution="Rename it: kubectl config rename-context OLD NEW",
            )
    seen: dict[str, str] = {}
    if contexts:
        with cluster.api() as api:
            seen[api.get(_SYSTEM)["metadata"]["uid"]] = f"the cluster {cluster.name}"
    others = {}
    for context in dict.fromkeys(contexts):
        server = Elsewhere(cluster.host, context, cluster.image.kubectl, owner)
        with cluster.ui.step(f"Asking the cluster of the context {context}"):
            _require_rights(server, [*_RIGHTS, *[_SERVICES] * services])
            others[context] = _asked(server, image, seen)
    return others


def _asked(server: Elsewhere, image: str, seen: dict[str, str]) -> Other:
    """A cluster that can be measured.

    Args:
        seen: what clusters are already, by the UID of their first namespace; it is added.
    """
    uid = server.get(_SYSTEM)["metadata"]["uid"]
    if uid in seen:
        raise UsageError(
            f"the context {server.context} is of the same cluster as {seen[uid]}",
            resolution="Name contexts of other clusters.",
        )
    seen[uid] = f"the context {server.context}"
    _require_free(server)
    nodes = [node for node in server.get("/api/v1/nodes")["items"] if _is_ready(node)]
    if not nodes:
        raise SykubeError(
            f"no node of the context {server.context} is ready",
            resolution=f"kubectl --context {server.context} get nodes",
        )
    nodes.sort(key=lambda node: (not _is_control_plane(node), node["metadata"]["name"]))
    names = [node["metadata"]["name"] for node in nodes]
    return Other(server, names, image, server.get("/version")["gitVersion"])


def _require_rights(server: Elsewhere, rights: Sequence[tuple[str, str, bool]]) -> None:
    lacking = [
        f"{verb} {resource}"
        for verb, resource, is_inside in rights
        if not server.may(verb, resource, NAMESPACE if is_inside else "")
    ]
    if lacking:
        raise SykubeError(
            f"the user of the context {server.context} lacks rights that measuring takes",
            details=f"it may not: {', '.join(lacking)}",
            resolution="Take a context of a user who has them, such as the cluster's admin.",
        )


def _require_free(server: Elsewhere) -> None:
    try:
        server.get(_NAMESPACE)
    except ApiError as error:
        if error.status != 404:
            raise
        return
    raise SykubeError(
        f"the cluster of the context {server.context} has a namespace {NAMESPACE} already: another "
        "`sykube bench` was killed",
        resolution=f"kubectl --context {server.context} delete namespace {NAMESPACE}",
    )


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return not node["spec"].get("unschedulable") and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )


def _is_control_plane(node: Mapping[str, Any]) -> bool:
    return any(label in node["metadata"].get("labels", {}) for label in _CONTROL_PLANES)
