"""Removing clusters, also half-made ones and those without a record."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from sykube.cluster.commands import autostart, plan, steps
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import DONE, State, clusters
from sykube.cluster.operations.nodes import is_node
from sykube.cluster.operations.opening import held
from sykube.errors import SykubeError, UsageError
from sykube.host import engines, identity, lock
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.records import HostRecords
from sykube.node.node import Node
from sykube.ui import Ui


def delete(host: Host, name: str, ui: Ui) -> list[str]:
    """Remove a cluster, also one that is half-made or has lost its record.

    Returns:
        What could not be undone or restored, a line each. Where nodes cannot be ended, the cluster
        is still known, and their files are there.

    Raises:
        SykubeError: there is nothing of that name (NO_SUCH_CLUSTER).
    """
    identity.check(host)
    paths = ClusterPaths(host, name)
    if not lookup.exists(host, name):
        # All that an init leaves that was killed before it recorded anything.
        lock.remove_abandoned(host, paths.lock)
        raise lookup.no_such_cluster(host, name)
    with held(host, name):
        problems: list[str] = []
        try:
            state = State.load(paths.state)
        except SykubeError as error:
            state, problems = None, [error.brief]
        if state is None:
            ui.warn(f"the cluster {name} has no record: removing what is found of it")
            state = _unknown_state(host, name, ui)
        with ui.step(f"Deleting the cluster {name}"):
            return problems + remove_cluster(Cluster.of(host, state, ui))


def delete_all(host: Host, ui: Ui) -> list[str]:
    """Remove every cluster; one that cannot be removed does not keep the others from it.

    Returns:
        What could not be undone or restored, a line each.
    """
    problems = []
    for name in clusters(host):
        try:
            problems += delete(host, name, ui)
        except SykubeError as error:
            problems.append(f"{name}: {error}")
    return problems


def remove_cluster(cluster: Cluster) -> list[str]:
    """Undo all steps; the last cluster's going puts the host's own settings back."""
    problems = []
    try:
        autostart.remove(cluster.host, cluster.name)
    except SykubeError as error:
        problems.append(f"autostart: {error}")
    data, *others = steps.ALL
    problems += plan.undo(cluster, others)
    left = _left(cluster)
    if left:
        # Their files stay, which are in use, and the record with which this goes on: also an init,
        # for which nothing is done any more.
        cluster.state.steps.clear()
        cluster.save()
        pids = " ".join(map(str, sorted({pid for node in left for pid in node.processes()})))
        names = ", ".join(node.instance for node in left)
        return [*problems, f"{names} cannot be ended: ps -o pid,stat,wchan,args {pids}"]
    problems += plan.undo(cluster, [data])
    _pass_on_context(cluster)
    with lock.host_settings(cluster.host):
        if not clusters(cluster.host):
            records = HostRecords.load(cluster.host)
            if records is not None:
                problems += records.restore()
            # A user's are those of namespaces, of which these may be others than init's.
            elif (
                not cluster.host.grants.rootless
                and cluster.state.steps.get(steps.NETWORK.name) == DONE
            ):
                problems.append("the host's earlier sysctls: they were not recorded")
            for folder in (cluster.host.records, cluster.paths.root.parent):
                with contextlib.suppress(OSError):
                    folder.rmdir()
    return problems


def _left(cluster: Cluster) -> list[Node]:
    """Nodes that are still there."""
    left = {*lookup.living(cluster.host, cluster.name)}
    # An engine whose records cannot be read is among the problems of the steps.
    with contextlib.suppress(SykubeError):
        left |= {each for each in cluster.engine.instances() if is_node(each, f"{cluster.name}-")}
    return [cluster.node(each.removeprefix(f"{cluster.name}-")) for each in sorted(left)]


def _pass_on_context(cluster: Cluster) -> None:
    """A cluster that was made after this one will give back the context before this one."""
    for name in clusters(cluster.host):
        # One whose record is damaged or in use keeps what it has: it is a context, no more.
        with contextlib.suppress(SykubeError, OSError), held(cluster.host, name):
            other = State.load(ClusterPaths(cluster.host, name).state)
            if other and other.previous_context == cluster.name:
                other.previous_context = cluster.state.previous_context
                other.save(ClusterPaths(cluster.host, name).state)


def _unknown_state(host: Host, name: str, ui: Ui) -> State:
    """A state for a cluster without a record: enough for every undo to look for its things."""
    engine = engines.find(host)
    if engine is None:
        raise UsageError(
            "could not find Apptainer, which is required to stop the nodes",
            resolution="Set SYKUBE_CACHE_DIR to the folder that was used for init.",
        )
    return replace(
        lookup.without_record(host, name, ui).state,
        engine=str(engine.binary),
        engine_environment=dict(engine.environment),
        steps={step.name: DONE for step in steps.ALL},
    )
