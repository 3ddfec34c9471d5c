"""The RuntimeClasses of a cluster: what its nodes can run pods by."""

from __future__ import annotations

from sykube import resources
from sykube.cluster.model.cluster import Cluster
from sykube.kubernetes.api import Api

RUNC, CRUN, APPTAINER = "runc", "crun", "apptainer"
_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
# Users may have classes of their own, of the same runtimes.
_MANAGER = "app.kubernetes.io/managed-by"


def offered(cluster: Cluster) -> tuple[str, ...]:
    """Names of the runtimes that pods of a cluster can have.

    Apptainer's starter makes its mounts as the host's root. Node images of before bring none.
    """
    has_apptainer = APPTAINER in cluster.state.versions and not cluster.host.grants.rootless
    return (RUNC, CRUN, APPTAINER) if has_apptainer else (RUNC, CRUN)


def are_there(cluster: Cluster) -> bool:
    """Whether the cluster has those that it offers, and no others of sykube's."""
    with cluster.api() as api:
        return _present(api) == {*offered(cluster)}


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
    found = [each["metadata"] for each in api.get(_CLASSES)["items"]]
    return {each["name"] for each in found if each.get("labels", {}).get(_MANAGER) == "sykube"}
