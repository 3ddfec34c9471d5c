"""Stopping, starting and pausing a cluster that was made."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from sykube import resources
from sykube.cluster import certs, lookup
from sykube.cluster.cluster import Cluster, on_each
from sykube.cluster.requirements import require_complete, require_running
from sykube.cluster.state import locked
from sykube.cluster.steps import nodes as node_steps
from sykube.cluster.steps.data import remains_after_boot
from sykube.cluster.steps.join import join_all
from sykube.cluster.steps.join import missing as missing_members
from sykube.cluster.steps.network import Network
from sykube.cluster.steps.ready import wait_alive, wait_ready, wait_restarted
from sykube.errors import SykubeError
from sykube.host import preflight, space
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.run import WITHOUT_PROXIES
from sykube.kubernetes import readiness
from sykube.kubernetes.api import Api, wait_until
from sykube.network import subnets
from sykube.node import cgroups
from sykube.node.node import Node
from sykube.ui import Ui

# Beyond the grace for the pods, in three turns, and for what follows them.
_STOP_MARGIN_S = 60.0
# etcd allocates its log in pieces of 64 MB (SegmentSizeBytes of its server/storage/wal).
_START_BYTES = 100_000_000
_API_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class StopOptions:
    """How stop goes about it.

    Attributes:
        grace: seconds that pods have to end by themselves.
        drain: evict the pods of the workers first, as `kubectl drain` does.
        drain_timeout: seconds that this may take for each worker.
        restart: it is started again afterwards, and stays as it is where that could not be.
    """

    grace: int = 10
    drain: bool = False
    drain_timeout: int = 120
    restart: bool = False


def stop(host: Host, name: str, options: StopOptions, ui: Ui) -> bool:
    """End all nodes in order: workers, then control planes; their files and names stay.

    Returns:
        Whether there was anything to stop.

    Raises:
        SykubeError: draining or stopping failed; stop or start again goes on from there.
    """
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)):
        cluster = lookup.load(host, name, ui)
        require_complete(cluster)
        running = cluster.engine.instances()
        nodes = [node for node in cluster.nodes if node.instance in running]
        if options.restart:
            _require_startable(cluster)
        if not nodes and not cluster.bridge.exists():
            return False
        for node in nodes:
            cgroups.freeze(host, node.instance, frozen=False)
        if options.drain:
            _drain_workers(cluster, options)
        for what, is_control_plane in (("workers", False), ("control plane", True)):
            group = [node for node in nodes if node.is_control_plane is is_control_plane]
            if group:
                with ui.step(f"Stopping the {what}"):
                    on_each(group, lambda node: shut_down(cluster, node, options.grace))
        with ui.step("Taking down the network"):
            for node in cluster.nodes:
                # One that had died by itself, or that the engine has lost track of.
                if node not in nodes:
                    node_steps.end(cluster, node.instance)
            node_steps.forget_addresses(cluster)
            cluster.bridge.remove()
        return True


def start(host: Host, name: str, ui: Ui) -> bool:
    """Bring back what is missing of a cluster, up to all of it, and wait until it is well.

    Returns:
        Whether anything was missing.

    Raises:
        SykubeError: it was never finished, its disk is full, or it is not well after 5 minutes.
    """
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)):
        cluster = lookup.load(host, name, ui)
        require_complete(cluster)
        remains_after_boot(cluster)
        _require_startable(cluster)
        if near := certs.warning(cluster):
            ui.warn(near)
        for node in cluster.nodes:
            cgroups.freeze(host, node.instance, frozen=False)
        running = cluster.engine.instances()
        missing = [node for node in cluster.nodes if node.instance not in running]
        if not cluster.bridge.exists():
            _check_subnet(cluster)
        since = float(int(cluster.host.time()))
        with ui.step("Setting up the network"):
            Network().apply(cluster)
        with ui.step("Starting the nodes"):
            missing += node_steps.reconnect(cluster, [n for n in cluster.nodes if n not in missing])
            node_steps.Nodes().apply(cluster)
        with ui.step("Waiting for nodes, pods and DNS"):
            wait_until(host, "the API server", lambda: _api_problem(cluster), _API_TIMEOUT_S)
            # A node that was being added when sykube was killed. The others are left alone, Ready
            # or not: joining would make them anew.
            join_all(cluster, missing_members(cluster))
            wait_restarted(cluster, [node.instance for node in missing], since)
            wait_ready(cluster)
            _uncordon(cluster)
        return bool(missing)


def _require_startable(cluster: Cluster) -> None:
    """Refuse what would not come up.

    Raises:
        SykubeError: the disk is full, or certificates are past their end.
    """
    space.require(cluster.host, cluster.paths.root, _START_BYTES)
    certs.require_valid(cluster)


def pause(host: Host, name: str, ui: Ui) -> None:
    """Freeze every process of the cluster, workers first.

    Raises:
        SykubeError: not all of it runs.
    """
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)):
        cluster = lookup.load(host, name, ui)
        require_running(cluster)
        with ui.step(f"Pausing the cluster {name}"):
            for node in reversed(cluster.nodes):
                cgroups.freeze(host, node.instance, frozen=True)


def unpause(host: Host, name: str, ui: Ui) -> None:
    """Let every process of the cluster go on, control planes first, and wait until all is well.

    Raises:
        SykubeError: it is not paused, or not well after 5 minutes.
    """
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)):
        cluster = lookup.load(host, name, ui)
        if not any(cgroups.is_frozen(host, node.instance) for node in cluster.nodes):
            raise SykubeError(
                f"the cluster {name} is not paused",
                resolution=f"sykube status{cluster.name_option}",
            )
        with ui.step(f"Unpausing the cluster {name}"):
            since = float(int(cluster.host.time()))
            for node in cluster.nodes:
                cgroups.freeze(host, node.instance, frozen=False)
            wait_alive(cluster, [node.instance for node in cluster.nodes], since)
            wait_ready(cluster)


def _api_problem(cluster: Cluster) -> str:
    with cluster.api() as api:
        return readiness.health(api)


def shut_down(cluster: Cluster, node: Node, grace: int) -> None:
    """End a node's pods and programs in order, then the instance."""
    # A node in which not even this works, or hangs, is ended all the same.
    with contextlib.suppress(SykubeError):
        command = resources.script("stop-containers", "node", str(grace))
        node.run(command, timeout=4 * grace + _STOP_MARGIN_S)
    node_steps.end(cluster, node.instance)


def drain(cluster: Cluster, node: Node, timeout: int) -> None:
    """Evict a node's pods, as `kubectl drain` does; pods of DaemonSets and their data go with it.

    Raises:
        CommandError: a pod could not be evicted in time, a disruption budget forbids it, or a pod
            has no controller that would make it anew.
    """
    command = ["drain", node.instance, "--ignore-daemonsets", "--delete-emptydir-data"]
    cluster.host.run(
        [cluster.image.kubectl, *command, f"--timeout={timeout}s"],
        env={**WITHOUT_PROXIES, "KUBECONFIG": str(cluster.paths.kubeconfig)},
        timeout=timeout + 30,
    )


def uncordon(api: Api, node: Node) -> None:
    """Let pods back to a node that was drained."""
    patch = {"spec": {"unschedulable": None}}
    path = f"/api/v1/nodes/{node.instance}"
    api.request("PATCH", path, patch, content_type="application/merge-patch+json")


def _drain_workers(cluster: Cluster, options: StopOptions) -> None:
    for node in cluster.workers:
        with cluster.ui.step(f"Draining {node.name}"):
            cluster.state.cordoned = [*cluster.state.cordoned, node.name]
            cluster.save()
            drain(cluster, node, options.drain_timeout)


def _uncordon(cluster: Cluster) -> None:
    """Let pods back to the nodes that stop drained."""
    with cluster.api() as api:
        for name in cluster.state.cordoned:
            uncordon(api, cluster.node(name))
    if cluster.state.cordoned:
        cluster.state.cordoned = []
        cluster.save()


def _check_subnet(cluster: Cluster) -> None:
    """The nodes' subnet is still free: a VPN may have come up since the cluster was stopped.

    Raises:
        HostError: it is not.
    """
    ranges = cluster.state.subnets
    subnets.choose(subnets.host_routes(cluster.host), nodes=ranges.nodes)
