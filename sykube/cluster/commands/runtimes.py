"""What the pods of a cluster can run in."""

from __future__ import annotations

from dataclasses import dataclass

from sykube.cluster.model import runtime
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import runtimes
from sykube.kubernetes.api import ApiError


@dataclass(frozen=True)
class Listed:
    """A runtime as `sykube runtimes` shows it.

    Attributes:
        version: of its program in the node image; empty where that does not say.
        default: whether pods without a RuntimeClass run in it, outside of kube-system.
        since: when its RuntimeClass was created (RFC 3339, UTC), by which pods ask for it; empty
            where there is none, or the API server does not answer.
        lacking: why pods cannot run in it, and what to do; empty where they can.
        options: what pods may ask for by annotations (init --allow-pod-option).
    """

    name: str
    summary: str
    version: str
    default: bool
    since: str
    lacking: str
    options: tuple[str, ...]


def listing(cluster: Cluster) -> list[Listed]:
    """All of sykube's, also what this cluster lacks."""
    try:
        created = runtimes.created(cluster)
    except ApiError:
        created = None
    state = cluster.state
    return [
        Listed(
            name,
            summary,
            state.versions.get(name, ""),
            name == state.spec.runtime,
            (created or {}).get(name, ""),
            _lacking(cluster, name, created),
            state.spec.allow_pod_option if name == runtime.APPTAINER else (),
        )
        for name, summary in runtime.SUMMARIES.items()
    ]


def _lacking(cluster: Cluster, name: str, created: dict[str, str] | None) -> str:
    if name not in runtimes.offered(cluster):
        if cluster.host.grants.rootless:
            return "its starter mounts as the host's root does, and this cluster is a user's"
        return f"the nodes have none; a newer node image may: sykube update{cluster.name_option}"
    if created is not None and name not in created:
        return (
            f"its RuntimeClass was deleted; create one: metadata.name {name}, handler {name} "
            "(docs/runtimes.md)"
        )
    return ""
