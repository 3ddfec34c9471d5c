"""Making a cluster's certificates anew, also when they are past their end.

Nothing of it asks the API server for leave: with certificates past their end, it refuses everybody,
and a kubelet that is started then does not even run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sykube import resources
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import kubelet_identity, nodes, user_kubeconfig
from sykube.cluster.operations.control_plane import keep_credentials
from sykube.cluster.operations.data import remains_after_boot
from sykube.cluster.operations.opening import opened
from sykube.cluster.operations.ready import wait_alive, wait_answer, wait_api, wait_ready
from sykube.host.host import Host
from sykube.kubernetes import kubeadm
from sykube.kubernetes.api import Api, wait_until
from sykube.node.node import Node
from sykube.ui import Ui

_API_TIMEOUT_S = 300.0
_CONFIG = "/etc/kubernetes/kubeadm-renew.yaml"
# The API server waits a minute for requests that watch, and would without its etcd, which can be
# killed at any time.
_GRACE_S = 2


def renew_certificates(host: Host, name: str, ui: Ui) -> Cluster:
    """Make every certificate but the authorities' anew, node by node, and wait until all is well.

    A stopped cluster is started for it.

    Raises:
        SykubeError: there is no such cluster, it is paused, or something failed on the way; the
            same command goes on from there.
    """
    with opened(host, name, ui, stopped=True, updating=True) as cluster:
        remains_after_boot(cluster)
        nodes.bring_up(cluster)
        leader, last = cluster.control_planes[0], cluster.control_planes[-1]
        for node in cluster.control_planes:
            with ui.step(f"Renewing the certificates of {node.name}"):
                ended = float(int(cluster.host.time()))
                _renew_control_plane(cluster, leader, node)
                # Meanwhile the others serve, where there are others.
                if node != last:
                    _wait_restarted(cluster, node, ended)
        if cluster.workers:
            with ui.step("Renewing the certificates of the workers"):
                on_each(cluster.workers, lambda node: _renew_worker(leader, node))
        since = float(int(cluster.host.time()))
        with ui.step("Adding the new credentials to your kubeconfig"):
            user_kubeconfig.rewrite(cluster)
        with ui.step("Waiting for nodes, pods and DNS"):
            # A Node stays Ready for a while when its kubelet is gone.
            wait_alive(cluster, [node.instance for node in cluster.nodes], since)
            _wait_restarted(cluster, last, ended)
            wait_ready(cluster)
        return cluster


def _renew_control_plane(cluster: Cluster, leader: Node, node: Node) -> None:
    # What it would find in the cluster, it could not get from an API server that refuses.
    config = kubeadm.renewal_configuration(cluster.minor, cluster.state.versions["kubernetes"])
    node.write(_CONFIG, config, mode="0600")
    try:
        with _without_kubelet(node):
            node.run(["kubeadm", "certs", "renew", "all", "--config", _CONFIG], timeout=120)
            kubelet_identity.renew_certificate(leader, node)
            command = resources.script("stop-containers", "control-plane", str(_GRACE_S))
            node.run(command, timeout=120)
    finally:
        node.discard(_CONFIG)
    keep_credentials(cluster, node)
    wait_answer(cluster, node)
    nodes.look_for_api([node])


def _wait_restarted(cluster: Cluster, node: Node, since: float) -> None:
    """Wait until the control plane of a node runs since a time, as far as the API server knows."""
    wait_api(cluster, node)
    with cluster.api_of(node) as api:
        wait_until(
            cluster.host,
            f"the control plane of {node.name}",
            lambda: _restarted(api, node, since),
            _API_TIMEOUT_S,
        )


def _renew_worker(leader: Node, node: Node) -> None:
    with _without_kubelet(node):
        kubelet_identity.renew_certificate(leader, node)


@contextmanager
def _without_kubelet(node: Node) -> Iterator[None]:
    """It reads its certificate when it starts; containers go on without it."""
    node.stop_service("kubelet")
    try:
        yield
    finally:
        node.start_service("kubelet")


def _restarted(api: Api, node: Node, since: float) -> str:
    """The pods of a node's control plane run since a time, as far as the API server knows."""
    pods = api.get(
        "/api/v1/namespaces/kube-system/pods", labelSelector="tier=control-plane"
    )["items"]  # fmt: skip
    waiting = [
        pod["metadata"]["name"]
        for pod in pods
        if pod.get("spec", {}).get("nodeName") == node.instance
        and not all(
            _started(status) >= since for status in pod["status"].get("containerStatuses", [])
        )
    ]
    return f"not restarted: {', '.join(waiting)}" if waiting else ""


def _started(status: dict[str, dict[str, dict[str, str]]]) -> float:
    started = status["state"].get("running", {}).get("startedAt", "")
    return datetime.fromisoformat(started).timestamp() if started else 0.0
