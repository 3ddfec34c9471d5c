"""Removing clusters, also half-made ones and those without a record."""

from __future__ import annotations

import contextlib

from sykube.cluster.commands import autostart, plan, steps
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import DONE, State, clusters
from sykube.cluster.operations.nodes import is_node
from sykube.cluster.operations.opening import held
from sykube.errors import SykubeError, UsageError
from sykube.host import engines, lock, preflight
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.records import HostRecords
from sykube.network import subnets
from sykube.node import cgroups
from sykube.ui import Ui


def delete(host: Host, name: str, ui: Ui) -> list[str]:
    """Remove a cluster, also one that is half-made or has lost its record.

    Returns:
        What could not be undone or restored, a line each. Where nodes cannot be ended, the cluster
        is still known, and their files are there.

    Raises:
        SykubeError: there is nothing of that name (NO_SUCH_CLUSTER).
    """
    preflight.check_identity(host)
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
            state = _unknown_state(host, name)
        with ui.step(f"Deleting the cluster {name}"):
            return problems + remove(Cluster.of(host, state, ui))


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


def remove(cluster: Cluster) -> list[str]:
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
        # Their files stay, which are in use, and the record with which this goes on.
        pids = " ".join(map(str, sorted({pid for found in left.values() for pid in found})))
        return [
            *problems,
            f"{', '.join(sorted(left))} cannot be ended: ps -o pid,stat,wchan,args {pids}",
        ]
    problems += plan.undo(cluster, [data])
    _pass_on_context(cluster)
    with lock.host_settings(cluster.host):
        if not clusters(cluster.host):
            records = HostRecords.load(cluster.host)
            if records is not None:
                problems += records.restore()
            elif cluster.state.steps.get(steps.NETWORK.name) == DONE:
                problems.append("the host's earlier sysctls: they were not recorded")
            for folder in (cluster.host.records, cluster.paths.root.parent):
                with contextlib.suppress(OSError):
                    folder.rmdir()
    return problems


def _left(cluster: Cluster) -> dict[str, list[int]]:
    """Nodes that are still there, with their processes."""
    left = {
        instance: cgroups.members(cluster.host, instance)
        for instance in lookup.living(cluster.host, cluster.name)
    }
    # An engine whose records cannot be read is among the problems of the steps.
    with contextlib.suppress(SykubeError):
        for instance in cluster.engine.instances().values():
            if is_node(instance.name, f"{cluster.name}-"):
                left.setdefault(instance.name, []).append(instance.pid)
    return left


def _pass_on_context(cluster: Cluster) -> None:
    """A cluster that was made after this one will give back the context before this one."""
    for name in clusters(cluster.host):
        # One whose record is damaged or in use keeps what it has: it is a context, no more.
        with contextlib.suppress(SykubeError, OSError), held(cluster.host, name):
            other = State.load(ClusterPaths(cluster.host, name).state)
            if other and other.previous_context == cluster.name:
                other.previous_context = cluster.state.previous_context
                other.save(ClusterPaths(cluster.host, name).state)


def _unknown_state(host: Host, name: str) -> State:
    """A state for a cluster without a record: enough for every undo to look for its things."""
    engine = engines.find(host)
    if engine is None:
        raise UsageError(
            "could not find Apptainer, which is required to stop the nodes",
            resolution="Set SYKUBE_CACHE_DIR to the folder that was used for init.",
        )
    return State(
        spec=ClusterSpec(name=name),
        subnets=subnets.choose(()),
        engine=str(engine.binary),
        engine_environment=dict(engine.environment),
        image="",
        image_folder="",
        versions={},
        loopback_resolver="",
        resolvers=(),
        steps={step.name: DONE for step in steps.ALL},
    )
