"""Workers that join and leave a running cluster."""

from __future__ import annotations

import dataclasses
import logging

from sykube.cluster.model import members
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import gpus, patch_check, sifs
from sykube.cluster.operations.drain import drain, uncordon
from sykube.cluster.operations.join import join_all
from sykube.cluster.operations.nodes import apply_network, prepare, start_missing
from sykube.cluster.operations.opening import opened, require_running
from sykube.cluster.operations.ready import wait_ready
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host import preflight, signals
from sykube.host.host import Host
from sykube.node import local
from sykube.node.node import Node
from sykube.ui import Ui

log = logging.getLogger("sykube.scaling")


def add(host: Host, name: str, count: int, ui: Ui, wanted: str = "") -> list[str]:
    """Add workers to a running cluster; when that fails, they are removed again.

    Args:
        wanted: GPUs for each, a number, or all that no node has.

    Returns:
        Their names.

    Raises:
        SykubeError: the cluster does not run (STOPPED), or the workers do not become Ready.
        HostError: there are too few GPUs, or too little of something else.
        UsageError: there would be more than the subnets have room for.
    """
    with opened(host, name, ui) as cluster:
        require_running(cluster)
        added = members.next_workers(cluster.state.nodes, count)
        if len(added) < count:
            raise UsageError(
                f"the cluster {name} has room for {len(added)} further workers, not {count}",
                resolution=f"A cluster has at most {members.MAX_WORKERS}.",
            )
        version = cluster.state.versions["kubernetes"].removeprefix("v")
        patch_check.check_patches(cluster.state.spec, version, ui.warn, added)
        findings = preflight.check_for_workers(host, count, cluster.paths.root)
        preflight.require(host, findings)
        given = gpus.shared(host, dict.fromkeys(added, wanted), cluster.state.gpus)
        gpus.require_of_image(cluster.image, asked=bool(given))
        if given:
            ui.say(gpus.introduction(host, given))
        cluster.state.gpus |= given
        before = cluster.nodes
        _record(cluster, [*cluster.state.nodes, *added])
        nodes = [cluster.node(each) for each in added]
        try:
            with ui.step(f"Starting {', '.join(added)}"):
                start_missing(cluster)
                _configure(cluster, before)
                sifs.give(cluster, before, nodes)
            with ui.step("Joining the cluster"):
                join_all(cluster, nodes)
            with ui.step("Waiting for nodes, pods and DNS"):
                wait_ready(cluster)
        except BaseException:
            # The first error stays the one that is shown.
            try:
                with signals.uninterrupted(), ui.step(f"Removing {', '.join(added)} again"):
                    _take_out(cluster, nodes)
            except Exception as error:
                ui.warn(f"not undone: {error}; node delete --force removes the rest")
            raise
        return added


@dataclasses.dataclass(frozen=True)
class RemovalOptions:
    """How a worker is removed.

    Attributes:
        force: remove it also when its pods cannot be evicted, or when it does not run.
        timeout: seconds that evicting may take.
    """

    force: bool = False
    timeout: int = 120


def remove_node(host: Host, name: str, node_name: str, options: RemovalOptions, ui: Ui) -> None:
    """Evict a worker's pods and remove it from the cluster and from the host.

    Raises:
        UsageError: there is no such worker.
        SykubeError: its pods could not be evicted: it is there as before, and takes pods again.
    """
    with opened(host, name, ui, updating=True) as cluster:
        node = _worker(cluster, node_name)
        runs = node.is_running()
        if not runs and not options.force:
            raise SykubeError(
                f"{node.name} does not run, so its pods cannot end by themselves",
                resolution=f"sykube start{cluster.name_option}, or add --force.",
                exit_code=ExitCode.STOPPED,
            )
        if runs:
            _empty(cluster, node, options)
        with ui.step(f"Removing {node.name}"):
            _take_out(cluster, [node])
            sifs.prune(cluster)


def _empty(cluster: Cluster, node: Node, options: RemovalOptions) -> None:
    try:
        with cluster.ui.step(f"Draining {node.name}"):
            drain(cluster, node, options.timeout)
    except SykubeError as error:
        if options.force:
            cluster.ui.warn(f"not all pods of {node.name} could be evicted: {error.brief}")
            return
        uncordon(cluster, [node.name])
        error.resolution = "End these pods yourself, give more --timeout, or add --force."
        raise


def _take_out(cluster: Cluster, nodes: list[Node]) -> None:
    """Remove nodes from Kubernetes, from the host, and from what the others know."""
    on_each(nodes, lambda node: node.remove())
    with cluster.api() as api:
        for node in nodes:
            api.delete(f"/api/v1/nodes/{node.instance}")
    gone = {node.name for node in nodes}
    _record(cluster, [each for each in cluster.state.nodes if each not in gone])
    local.forget_addresses(cluster.host, cluster.engine, cluster.network_name)
    _configure(cluster, cluster.running())


def _record(cluster: Cluster, names: list[str]) -> None:
    """Note which nodes there are; init again asks for that number of workers from then on."""
    state = cluster.state
    state.nodes = members.order(names)
    state.cordoned = [each for each in state.cordoned if each in names]
    state.gpus = {name: each for name, each in state.gpus.items() if name in names}
    state.spec = dataclasses.replace(state.spec, workers=len(cluster.workers))
    cluster.save()


def _configure(cluster: Cluster, nodes: list[Node]) -> None:
    """Let running nodes know which others there are: their names and the routes to their pods."""
    for node in nodes:
        prepare(cluster, node)
    on_each(nodes, apply_network)


def _worker(cluster: Cluster, name: str) -> Node:
    for node in cluster.workers:
        if name in (node.name, node.instance):
            return node
    why = (
        "is a control plane" if name in [n.name for n in cluster.control_planes] else "is not there"
    )
    workers = ", ".join(node.name for node in cluster.workers) or "none"
    raise UsageError(f"{name} {why}: only workers can be removed", resolution=f"Workers: {workers}")
