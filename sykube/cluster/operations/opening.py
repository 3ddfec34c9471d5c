"""How commands open a cluster that they change, and what they ask of it before they begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import locked
from sykube.errors import ExitCode, SykubeError
from sykube.host import belonging, identity
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.node.node import Node
from sykube.ui import Ui


@contextmanager
def held(host: Host, name: str) -> Iterator[None]:
    """Hold a cluster that may not be there, or may have lost its record: for init and delete.

    Raises:
        UsageError: this process is not root's.
        LockedError: another command holds it; says which.
        SykubeError: it belongs to another host (ELSEWHERE).
    """
    identity.check(host)
    belonging.require_here(host, name)
    with locked(ClusterPaths(host, name)):
        yield


@contextmanager
def opened(
    host: Host,
    name: str,
    ui: Ui,
    *,
    unfinished: bool = False,
    stopped: bool = False,
    paused: bool = False,
    updating: bool = False,
) -> Iterator[Cluster]:
    """Hold a cluster to change it; one that the command does not cope with is refused.

    Args:
        unfinished: the command copes with a cluster that init did not finish,
        stopped: with one of which no control plane runs,
        paused: with one that is paused,
        updating: with one that is half-way to another version.

    Raises:
        UsageError: this process is not root's.
        LockedError: another command holds it; says which.
        SykubeError: there is no such cluster (NO_SUCH_CLUSTER), it belongs to another host
            (ELSEWHERE), or it is refused.
    """
    identity.check(host)
    if not lookup.exists(host, name):
        # Nor is there anything to hold: a user's folder for that is made with the namespaces.
        raise lookup.no_such_cluster(host, name)
    with held(host, name):
        cluster = lookup.load(host, name, ui)
        if not unfinished:
            require_complete(cluster)
        if not stopped:
            cluster.running_control_plane()
        if not paused:
            require_awake(cluster)
        if not updating:
            require_no_update(cluster)
        yield cluster


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
