"""What commands ask of a cluster before they begin; a cluster that is not so is refused."""

from __future__ import annotations

from collections.abc import Sequence

from sykube.cluster.cluster import Cluster
from sykube.errors import ExitCode, SykubeError
from sykube.node.node import Node


def require_complete(cluster: Cluster) -> None:
    """Refuse a cluster that init did not finish.

    Raises:
        SykubeError: it did not (DEGRADED).
    """
    if not cluster.state.complete:
        raise SykubeError(
            f"the cluster {cluster.name} was never finished",
            resolution=f"`sykube init{cluster.name_option}` resumes it, "
            f"`sykube delete{cluster.name_option}` removes it.",
            exit_code=ExitCode.DEGRADED,
        )


def require_no_update(cluster: Cluster) -> None:
    """Refuse a cluster that is half-way to another version.

    Raises:
        SykubeError: it is.
    """
    if update := cluster.state.update:
        raise SykubeError(
            f"the cluster {cluster.name} is half-way to Kubernetes {update.after.kubernetes}",
            resolution=f"Let that end first: sykube update{cluster.name_option}",
        )


def require_awake(cluster: Cluster, nodes: Sequence[Node] = ()) -> None:
    """Refuse a cluster that is paused.

    Args:
        nodes: those that it is about; all if there are none.

    Raises:
        SykubeError: it is (STOPPED).
    """
    if any(node.is_frozen() for node in nodes or cluster.nodes):
        raise SykubeError(
            f"the cluster {cluster.name} is paused",
            resolution=f"sykube unpause{cluster.name_option}",
            exit_code=ExitCode.STOPPED,
        )


def require_running(cluster: Cluster, nodes: Sequence[Node] = (), *, otherwise: str = "") -> None:
    """Refuse a cluster of which nodes do not run.

    Args:
        nodes: those that it is about; all if there are none.
        otherwise: how the line ends that says what to do.

    Raises:
        SykubeError: some do not (DEGRADED), or none of the cluster does (STOPPED).
    """
    running = cluster.running()
    stopped = [node.name for node in nodes or cluster.nodes if node not in running]
    if stopped:
        raise SykubeError(
            f"nodes of the cluster {cluster.name} do not run: {', '.join(stopped)}",
            resolution=f"sykube start{cluster.name_option}{otherwise}",
            exit_code=ExitCode.DEGRADED if running else ExitCode.STOPPED,
        )
