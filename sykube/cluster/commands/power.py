"""Stopping, starting and pausing a cluster that was made."""

from __future__ import annotations

from dataclasses import dataclass

from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import certs, network, sifs
from sykube.cluster.operations.data import remains_after_boot
from sykube.cluster.operations.drain import drain, note, uncordon
from sykube.cluster.operations.join import join_all
from sykube.cluster.operations.join import missing as missing_members
from sykube.cluster.operations.nodes import (
    end,
    end_pods,
    look_for_api,
    reconnect,
    resume,
    start_missing,
)
from sykube.cluster.operations.opening import opened, require_running
from sykube.cluster.operations.ready import (
    wait_alive,
    wait_answer,
    wait_api,
    wait_ready,
    wait_restarted,
)
from sykube.errors import SykubeError
from sykube.host import granted, space
from sykube.host.host import Host
from sykube.network import subnets
from sykube.node import local
from sykube.ui import Ui

# An emulated machine that has just booted took more than five minutes, and was well then.
_API_TIMEOUT_S = 600.0
_ANY = {"unfinished": True, "stopped": True, "paused": True, "updating": True}
# etcd allocates its log in pieces of 64 MB (SegmentSizeBytes of its server/storage/wal).
_START_BYTES = 100_000_000


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
    """End all pods, then the control planes and all nodes; their files and names stay.

    Returns:
        Whether there was anything to stop.

    Raises:
        SykubeError: draining or stopping failed; stop or start again goes on from there.
    """
    with opened(host, name, ui, stopped=True, paused=True, updating=True) as cluster:
        nodes = cluster.running()
        if options.restart:
            _require_startable(cluster)
        if not nodes and not cluster.bridge.exists():
            return False
        for node in nodes:
            node.freeze(frozen=False)
        if options.drain:
            _drain_workers(cluster, options)
        with ui.step("Stopping the pods"):
            on_each(nodes, lambda node: end_pods(node, options.grace))
        # An API server waits for whoever watches something: by now, nobody does.
        with ui.step("Stopping the nodes"):
            without = on_each(nodes, lambda node: end(node, options.grace))
        # Of several API servers one may have taken some after another one's etcd was asked.
        alone = len(cluster.control_planes) == 1
        cluster.state.without_policies = alone and cluster.master in nodes and any(without)
        cluster.save()
        with ui.step("Taking down the network"):
            for node in cluster.nodes:
                # One that had died by itself, or that the engine has lost track of.
                if node not in nodes:
                    node.kill()
            local.forget_addresses(host, cluster.engine, cluster.network_name)
            cluster.bridge.remove()
        return True


def start(host: Host, name: str, ui: Ui) -> bool:
    """Bring back what is missing of a cluster, up to all of it, and wait until it is well.

    Returns:
        Whether anything was missing.

    Raises:
        SykubeError: it was never finished, its disk is full, its API server does not answer within
            10 minutes, or the cluster does not get well.
    """
    with opened(host, name, ui, stopped=True, paused=True, updating=True) as cluster:
        remains_after_boot(cluster)
        _require_startable(cluster)
        if near := certs.warning(cluster):
            ui.warn(near)
        if ending := granted.logout_warning(host):
            ui.warn(f"logout: {'. '.join(ending)}")
        for node in cluster.nodes:
            node.freeze(frozen=False)
        running = cluster.running()
        missing = [node for node in cluster.nodes if node not in running]
        if not cluster.bridge.exists():
            _check_subnet(cluster)
        since = float(int(cluster.host.time()))
        with ui.step("Setting up the network"):
            network.set_up(cluster)
        with ui.step("Starting the nodes"):
            ended = reconnect(cluster, running)
            missing += ended
            resumed = resume([node for node in running if node not in ended])
            # They can do nothing yet, and would take the API server's time while it starts.
            start_missing(cluster, without_kubelet=cluster.workers)
        with ui.step("Waiting for nodes, pods and DNS"):
            wait_answer(cluster, timeout=_API_TIMEOUT_S)
            look_for_api([*missing, *resumed])
            # A node that was being added when sykube was killed. The others are left alone, Ready
            # or not: joining would make them anew.
            join_all(cluster, missing_members(cluster))
            if resumed:
                wait_alive(cluster, [node.instance for node in resumed], since)
            wait_restarted(cluster, [node.instance for node in missing], since)
            wait_ready(cluster)
            wait_api(cluster)
            uncordon(cluster, cluster.state.cordoned)
            sifs.prune(cluster)
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
        HostError: nodes have no cgroups.
        SykubeError: not all of it runs.
    """
    host.grants.require_cgroups("pausing")
    with opened(host, name, ui, **_ANY) as cluster:
        require_running(cluster)
        with ui.step(f"Pausing the cluster {name}"):
            for node in reversed(cluster.nodes):
                node.freeze(frozen=True)


def unpause(host: Host, name: str, ui: Ui) -> None:
    """Let every process of the cluster go on, control planes first, and wait until all is well.

    Raises:
        SykubeError: it is not paused, or does not get well.
    """
    with opened(host, name, ui, **_ANY) as cluster:
        if not any(node.is_frozen() for node in cluster.nodes):
            raise SykubeError(
                f"the cluster {name} is not paused",
                resolution=f"sykube status{cluster.name_option}",
            )
        with ui.step(f"Unpausing the cluster {name}"):
            since = float(int(cluster.host.time()))
            for node in cluster.nodes:
                node.freeze(frozen=False)
            wait_alive(cluster, [node.instance for node in cluster.nodes], since)
            wait_ready(cluster)


def _drain_workers(cluster: Cluster, options: StopOptions) -> None:
    for node in cluster.workers:
        with cluster.ui.step(f"Draining {node.name}"):
            note(cluster, node)
            drain(cluster, node, options.drain_timeout)


def _check_subnet(cluster: Cluster) -> None:
    """The nodes' subnet is still free: a VPN may have come up since the cluster was stopped.

    Raises:
        HostError: it is not.
    """
    ranges = cluster.state.subnets
    subnets.choose(subnets.host_routes(cluster.host), nodes=ranges.nodes)
