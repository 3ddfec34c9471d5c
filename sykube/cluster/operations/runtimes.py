"""What a cluster's nodes can run pods by: its RuntimeClasses, and what pods without one get."""

from __future__ import annotations

from typing import Any

from sykube import resources
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.runtime import APPTAINER, CRUN, DEFAULT, RUNC
from sykube.cluster.operations import containerd_config
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.kubernetes.api import Api

_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
# Users may have classes of their own, of the same runtimes.
_MANAGER = "app.kubernetes.io/managed-by"


def offered(cluster: Cluster) -> tuple[str, ...]:
    """Names of the runtimes that pods of a cluster can have.

    Apptainer's starter makes its mounts as the host's root. Node images of before bring none.
    """
    has_apptainer = APPTAINER in cluster.state.versions and not cluster.host.grants.rootless
    return (RUNC, CRUN, APPTAINER) if has_apptainer else (RUNC, CRUN)


def require_of_host(host: Host, runtime: str) -> None:
    """Refuse what pods without a RuntimeClass cannot run in, whatever the node image.

    Raises:
        UsageError: it is Apptainer, and the cluster would be an ordinary user's.
    """
    if runtime == APPTAINER and host.grants.rootless:
        raise UsageError(
            f"pods of an ordinary user's cluster cannot run in {APPTAINER}",
            details="Its starter makes its mounts as the host's root.",
            resolution=f"Take --runtime {CRUN} or {RUNC}.",
        )


def require_of_image(host: Host, runtime: str, image: NodeImage, builder: Builder) -> None:
    """Refuse what pods without a RuntimeClass cannot run in, of a node image.

    Raises:
        UsageError: the image lacks it, or is from before pods could have another one than runc.
        SykubeError: the image cannot be read.
    """
    if runtime == RUNC:
        return
    there = containerd_config.runtimes(host, image, builder)
    if runtime == APPTAINER and APPTAINER not in image.versions():
        lacks = "has no Apptainer that runs pods"
    elif not {runtime, DEFAULT} <= there:
        lacks = f"is from before pods without a RuntimeClass could run in {runtime}"
    else:
        return
    raise UsageError(
        f"the node image {image.sif} {lacks}",
        resolution="Build another one (sykube node-image build), or leave out --runtime.",
    )


def are_there(cluster: Cluster) -> bool:
    """Whether the cluster has those that it offers, and no others of sykube's."""
    with cluster.api() as api:
        return _present(api) == {*offered(cluster)}


def created(cluster: Cluster) -> dict[str, str]:
    """When each of sykube's RuntimeClasses was created, as Kubernetes writes it.

    Raises:
        ApiError: the API server does not answer.
    """
    with cluster.api() as api:
        return {name: each.get("creationTimestamp", "") for name, each in _own(api).items()}


def reconcile(cluster: Cluster) -> None:
    """Create what a cluster offers, and delete what it no longer does, as after an update back."""
    wanted = offered(cluster)
    text = resources.render("manifests", "runtimes.yaml.j2", runtimes=wanted)
    # Not above: most commands read no YAML.
    from sykube import documents

    with cluster.api() as api:
        for each in documents.load_all(text):
            api.apply(each)
        for name in _present(api) - {*wanted}:
            api.delete(f"{_CLASSES}/{name}")


def _present(api: Api) -> set[str]:
    return {*_own(api)}


def _own(api: Api) -> dict[str, dict[str, Any]]:
    """The metadata of sykube's classes, by name."""
    found = [each["metadata"] for each in api.get(_CLASSES)["items"]]
    own = [each for each in found if each.get("labels", {}).get(_MANAGER) == "sykube"]
    return {each["name"]: each for each in own}
