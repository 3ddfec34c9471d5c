"""Making a cluster's certificates anew, also when they are past their end.

Nothing of it asks the API server for leave: with certificates past their end, it refuses everybody,
and a kubelet that is started then does not even run it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sykube import resources
from sykube.cluster import lookup
from sykube.cluster.cluster import Cluster, on_each
from sykube.cluster.requirements import require_awake, require_complete
from sykube.cluster.state import locked
from sykube.cluster.steps.data import remains_after_boot
from sykube.cluster.steps.network import Network
from sykube.cluster.steps.nodes import Nodes
from sykube.cluster.steps.ready import wait_alive, wait_ready
from sykube.host import preflight
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.kubernetes import kubeadm, kubeconfig, readiness
from sykube.kubernetes.api import Api, wait_until
from sykube.node.node import Node
from sykube.ui import Ui

_API_TIMEOUT_S = 300.0
_CONFIG = "/etc/kubernetes/kubeadm-renew.yaml"
# The API server waits a minute for requests that watch; etcd can be killed at any time.
_GRACE_S = 5


def renew(host: Host, name: str, ui: Ui) -> Cluster:
    """Make every certificate but the authorities' anew, node by node, and wait until all is well.

    A stopped cluster is started for it.

    Raises:
        SykubeError: there is no such cluster, it is paused, or something failed on the way; the
            same command goes on from there.
    """
    preflight.check_identity(host)
    with locked(ClusterPaths(host, name)):
        cluster = lookup.load(host, name, ui)
        require_complete(cluster)
        remains_after_boot(cluster)
        _wake(cluster)
        leader = cluster.control_planes[0]
        for node in cluster.control_planes:
            with ui.step(f"Renewing the certificates of {node.name}"):
                _renew_control_plane(cluster, leader, node)
        if cluster.workers:
            with ui.step("Renewing the certificates of the workers"):
                on_each(cluster.workers, lambda node: _renew_worker(leader, node))
        since = float(int(cluster.host.time()))
        with ui.step("Adding the new credentials to your kubeconfig"):
            hand_out(cluster)
        with ui.step("Waiting for nodes, pods and DNS"):
            # A Node stays Ready for a while when its kubelet is gone.
            wait_alive(cluster, [node.instance for node in cluster.nodes], since)
            wait_ready(cluster)
        return cluster


def _wake(cluster: Cluster) -> None:
    """Start what does not run, without asking for the API server.

    Raises:
        SykubeError: a node is paused, or does not start.
    """
    require_awake(cluster)
    if not Nodes().is_done(cluster) or not Network().is_done(cluster):
        with cluster.ui.step("Starting the nodes"):
            Network().apply(cluster)
            Nodes().apply(cluster)


def _renew_control_plane(cluster: Cluster, leader: Node, node: Node) -> None:
    """One after the other: meanwhile the others serve, where there are others."""
    # What it would find in the cluster, it could not get from an API server that refuses.
    config = kubeadm.renewal_configuration(cluster.minor, cluster.state.versions["kubernetes"])
    node.write(_CONFIG, config, mode="0600")
    since = float(int(cluster.host.time()))
    try:
        with _without_kubelet(node):
            node.run(["kubeadm", "certs", "renew", "all", "--config", _CONFIG], timeout=120)
            _renew_kubelet(leader, node)
            command = resources.script("stop-containers", "control-plane", str(_GRACE_S))
            node.run(command, timeout=120)
    finally:
        node.discard(_CONFIG)
    admin = node.read("/etc/kubernetes/admin.conf", secret=True)
    write_atomically(cluster.paths.kubeconfig, admin, mode=0o600)
    with cluster.api_of(node) as api:
        wait_until(
            cluster.host,
            f"the API server of {node.name}",
            lambda: readiness.health(api),
            _API_TIMEOUT_S,
        )
        wait_until(
            cluster.host,
            f"the control plane of {node.name}",
            lambda: _restarted(api, node, since),
            _API_TIMEOUT_S,
        )


def _renew_worker(leader: Node, node: Node) -> None:
    with _without_kubelet(node):
        _renew_kubelet(leader, node)


@contextmanager
def _without_kubelet(node: Node) -> Iterator[None]:
    """It reads its certificate when it starts; containers go on without it."""
    # Fails where it is stopped.
    node.run(["supervisorctl", "stop", "kubelet"], check=False)
    try:
        yield
    finally:
        node.run(["supervisorctl", "start", "kubelet"])


def _renew_kubelet(leader: Node, node: Node) -> None:
    request = node.run(resources.script("request-certificate", node.instance)).stdout
    signed = leader.run(resources.script("sign-certificate"), stdin=request).stdout
    node.run(resources.script("install-certificate"), stdin=signed)


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


def hand_out(cluster: Cluster) -> None:
    """Renew the users' copies of the credentials; which context is the current one stays."""
    kubeconfig.renew_copies(cluster.host, cluster.paths.kubeconfig)
    path = Path(cluster.state.kubeconfig)
    if not cluster.state.kubeconfig or not path.exists():
        return
    found = path.stat()
    # Whoever runs this command, the file stays its owner's.
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    owner = kubeconfig.Owner(found.st_uid, found.st_gid, home)
    config = cluster.paths.kubeconfig.read_text(encoding="utf-8")
    kubeconfig.merge(cluster.host, path, config, cluster.name, owner, switch=False)
