"""Bringing one node up to date: kubeadm's part, then all the rest, started anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from sykube.cluster.commands.update import upgrade
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.progress import Progress
from sykube.cluster.operations.drain import drain, note, uncordon
from sykube.cluster.operations.nodes import (
    look_for_api,
    prepare,
    shut_down,
    start,
    wait_and_check,
)
from sykube.cluster.operations.ready import reelect, wait_answer, wait_ready, wait_restarted
from sykube.errors import SykubeError
from sykube.image import containerd, reference
from sykube.kubernetes import readiness
from sykube.kubernetes.api import Api, wait_until
from sykube.node.node import Node

_TIMEOUT_S = 300.0
# Names of the images that a node had beside those of its node image.
_KEPT = "/etc/sykube/kept-images.json"


@dataclass(frozen=True)
class UpdateOptions:
    """How an update goes about it.

    Attributes:
        drain_timeout: seconds that emptying a node may take.
        grace: seconds that the pods which stay on a node have to end by themselves.
        yes: install missing packages without asking.
        ask: puts a question to the user.
    """

    drain_timeout: int = 300
    grace: int = 10
    yes: bool = False
    ask: Callable[[str], bool] = lambda _question: False


class EvictionTimeoutError(SykubeError):
    """The cluster works as it is; the same command goes on from here."""


def recreate_node(cluster: Cluster, node: Node, progress: Progress, options: UpdateOptions) -> None:
    """Bring one node up to date: its kubeadm's part, then all the rest, started anew."""
    ui = cluster.ui
    if upgrade.is_needed(progress) and node.name not in {*progress.upgraded, *progress.renewed}:
        with ui.step(f"Upgrading {node.name} (kubeadm upgrade)"):
            if node == cluster.master:
                upgrade.apply(cluster, node, progress)
                reelect(cluster)
            else:
                upgrade.node(cluster, node, progress)
            progress.upgraded.append(node.name)
            cluster.save()
    if upgrade.is_needed(progress):
        with cluster.api() as api:
            upgrade.use_images(api, progress.after.image)
    since = 0.0
    if node.name not in progress.renewed:
        _empty(cluster, node, options)
        with ui.step(f"Starting {node.name} from the new node image"):
            _note_images(cluster, node)
            shut_down(node, options.grace)
            progress.renewed.append(node.name)
            cluster.save()
            since = float(int(cluster.host.time()))
            prepare(cluster, node)
            start(cluster, node)
            wait_and_check(cluster, [node])
    with ui.step(f"Waiting for {node.name}"):
        _give_back_images(cluster, node)
        wait_answer(cluster)
        if [node] == cluster.control_planes:
            look_for_api([node])
        wait_restarted(cluster, [node.instance], since)
        with cluster.api() as api:
            wait_until(
                cluster.host,
                f"the new kubelet of {node.name}",
                lambda: _kubelet_problem(api, node, progress),
                _TIMEOUT_S,
            )
        uncordon(cluster, {node.name} & {*cluster.state.cordoned})
        wait_ready(cluster)
    progress.finished.append(node.name)
    cluster.save()


def _empty(cluster: Cluster, node: Node, options: UpdateOptions) -> None:
    """Evict a node's pods, within their disruption budgets.

    Raises:
        EvictionTimeoutError: they could not be in time: the node takes pods again.
    """
    state = cluster.state
    with cluster.api() as api:
        found = api.get(f"/api/v1/nodes/{node.instance}")
    # What the user has closed stays closed.
    if not found["spec"].get("unschedulable") and node.name not in state.cordoned:
        note(cluster, node)
    try:
        with cluster.ui.step(f"Draining {node.name}"):
            drain(cluster, node, options.drain_timeout)
    except SykubeError as error:
        uncordon(cluster, {node.name} & {*state.cordoned})
        raise EvictionTimeoutError(
            f"not all pods of {node.name} could be evicted; the cluster works, and is updated "
            "in part",
            details=error.details or error.brief,
            resolution="Let their disruption budget allow it, end them yourself, or give more "
            f"--drain-timeout; then sykube update{cluster.name_option} goes on from here.",
        ) from error


def _kubelet_problem(api: Api, node: Node, progress: Progress) -> str:
    found = readiness.kubelets(readiness.registered(api)).get(node.instance, "")
    if found != progress.after.kubernetes:
        return f"the kubelet of {node.name} is {found or 'unknown'} yet"
    return readiness.nodes(api, [node.instance])


def _note_images(cluster: Cluster, node: Node) -> None:
    """Note the images that a node has beside those of its node image."""
    own = {*cluster.image_of(node).container_images()}
    update = cluster.state.update
    own |= {*update.after.image.container_images()} if update else set()
    kept = {
        name: digest
        for name, digest in containerd.names(node).items()
        if name not in own and not reference.is_id(name) and "@" not in name
    }
    containerd.detach(cluster.host, node, [*kept.values()])
    node.write(_KEPT, json.dumps(kept), mode="0600")


def _give_back_images(cluster: Cluster, node: Node) -> None:
    """Give a node the images that it had, out of what its containerd had."""
    file = node.pull(_KEPT)
    if not file.exists():
        return
    kept = json.loads(file.read_text(encoding="utf-8"))
    images, missing = containerd.stored(cluster.host, node.previous_containerd(), kept)
    for image in images:
        containerd.load(node, image)
    if missing:
        cluster.ui.warn(f"{node.name} has no longer: {', '.join(missing)}")
    node.discard(_KEPT)
