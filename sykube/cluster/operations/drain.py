"""Emptying nodes of pods, and letting pods back; what is drained is noted until then."""

from __future__ import annotations

from collections.abc import Collection

from sykube.cluster.model.cluster import Cluster
from sykube.host.run import WITHOUT_PROXIES
from sykube.node.node import Node


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


def note(cluster: Cluster, node: Node) -> None:
    """Note a node that is drained, before it is: `uncordon` forgets it."""
    cluster.state.cordoned = [*cluster.state.cordoned, node.name]
    cluster.save()


def uncordon(cluster: Cluster, names: Collection[str]) -> None:
    """Let pods back to nodes that were drained."""
    with cluster.api() as api:
        for name in names:
            patch = {"spec": {"unschedulable": None}}
            path = f"/api/v1/nodes/{cluster.node(name).instance}"
            api.request("PATCH", path, patch, content_type="application/merge-patch+json")
    noted = [each for each in cluster.state.cordoned if each not in names]
    if noted != cluster.state.cordoned:
        cluster.state.cordoned = noted
        cluster.save()
