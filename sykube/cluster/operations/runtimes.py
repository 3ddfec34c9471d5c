"""What a cluster's nodes can run pods by: its RuntimeClasses, and what pods without one get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sykube import resources
from sykube.cluster.model import pod_options
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.runtime import APPTAINER, CRUN, DEFAULT, RUNC
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import containerd_config
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.kubernetes.api import Api

_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
# Users may have classes of their own, of the same runtimes.
_MANAGER = "app.kubernetes.io/managed-by"
# Of a runtime in containerd's configuration: what it is told of a pod's annotations.
_ANNOTATIONS = "pod_annotations"
_HANDED_ON = f"{pod_options.ANNOTATION}*"


def offered(cluster: Cluster) -> tuple[str, ...]:
    """Names of the runtimes that pods of a cluster can have.

    Apptainer's starter makes its mounts as the host's root. Node images of before bring none.
    """
    has_apptainer = APPTAINER in cluster.state.versions and not cluster.host.grants.rootless
    return (RUNC, CRUN, APPTAINER) if has_apptainer else (RUNC, CRUN)


def require_of_host(host: Host, spec: ClusterSpec) -> None:
    """Refuse what pods cannot run in, or have of Apptainer's options, whatever the node image.

    Raises:
        UsageError: it takes Apptainer, and the cluster would be an ordinary user's; or a folder
            that pods may bind is not there, or is not for them.
    """
    if host.grants.rootless and (spec.runtime == APPTAINER or spec.allow_pod_option):
        leave_out = "--allow-pod-option" if spec.allow_pod_option else f"--runtime {APPTAINER}"
        raise UsageError(
            f"pods of an ordinary user's cluster cannot run in {APPTAINER}",
            details="Its starter makes its mounts as the host's root.",
            resolution=f"Leave out {leave_out}: there are {CRUN} and {RUNC}.",
        )
    pod_options.require_folders(spec.allow_pod_option)


def require_of_image(host: Host, spec: ClusterSpec, image: NodeImage, builder: Builder) -> None:
    """Refuse what pods cannot run in, or have of Apptainer's options, of a node image.

    Raises:
        UsageError: the image lacks it, or is from before pods could have another runtime than runc,
            or options, or a patch keeps them from it.
        SykubeError: the image cannot be read.
    """
    runtime, options = spec.runtime, spec.allow_pod_option
    if runtime == RUNC and not options:
        return
    there = containerd_config.runtimes(host, image, builder)
    if (runtime == APPTAINER or options) and APPTAINER not in image.versions():
        lacks = "has no Apptainer that runs pods"
    elif runtime != RUNC and not {runtime, DEFAULT} <= there.keys():
        lacks = f"is from before pods without a RuntimeClass could run in {runtime}"
    elif options and not _hands_on(there):
        lacks = "is from before pods could ask for options of Apptainer"
    else:
        if options:
            _require_handed_on(host, spec, image, builder)
        return
    leave_out = "--allow-pod-option" if options else "--runtime"
    raise UsageError(
        f"the node image {image.sif} {lacks}",
        resolution=f"Build another one (sykube node-image build), or leave out {leave_out}.",
    )


def _require_handed_on(host: Host, spec: ClusterSpec, image: NodeImage, builder: Builder) -> None:
    merges, operations = spec.containerd_config_patches, spec.containerd_config_patches_json6902
    if not _hands_on(containerd_config.runtimes(host, image, builder, merges, operations)):
        raise UsageError(
            "a patch of containerd's configuration keeps annotations of pods from what runs them",
            resolution=f"Leave {_HANDED_ON!r} among the {_ANNOTATIONS} of each runtime, "
            "or leave out --allow-pod-option.",
        )


def _hands_on(runtimes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether those of sykube's are told what a pod asks for."""
    own = (RUNC, CRUN, APPTAINER, DEFAULT)
    return all(_HANDED_ON in runtimes.get(each, {}).get(_ANNOTATIONS, ()) for each in own)


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
