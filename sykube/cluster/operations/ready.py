"""Waits until the cluster truly works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from sykube.addons import network_policy
from sykube.addons.network_policy import NETWORK_POLICY
from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.addons import reconcile
from sykube.errors import SykubeError
from sykube.kubernetes import election, readiness, stalled, webhooks
from sykube.kubernetes.api import wait_until
from sykube.node.node import Node

_TIMEOUT_S = 300.0


def wait_ready(cluster: Cluster) -> None:
    """Wait until nodes and pods of kube-system are Ready and DNS answers on each kind of node.

    Where the user has yet to install a CNI plugin, only for what comes without one; where a kernel
    has no nftables, not for what enforces policies by it. Either is said. Add-ons learn of the
    nodes here, since whatever adds or renews nodes waits here.

    Raises:
        SykubeError: for 5 minutes, or for 15 of nodes with their own CNI plugin, there was nothing
            new, or it took three times as long; says what is missing.
    """
    names = [node.instance for node in cluster.nodes]
    masters = len(cluster.control_planes)
    network = cluster.pod_network
    awaited = False
    unable: dict[str, str] = {}

    def nodes_ready() -> str:
        nonlocal awaited
        found = readiness.registered(api)
        awaited = network.is_awaited(found, cluster.nodes)
        return "" if awaited else readiness.nodes_problem(found, names)

    def pods_ready() -> str:
        nonlocal unable
        unable = {}
        look = partial(readiness.system_pods, api, len(names), masters, networked=not awaited)
        problem = look()
        if NETWORK_POLICY.name in problem and (unable := network_policy.unable(api)):
            problem = look(ignored=unable)
        if problem:
            stalled.hasten(api)
        return problem

    with _naming_webhooks(cluster), cluster.api() as api:
        wait_until(cluster.host, "nodes Ready", nodes_ready, _TIMEOUT_S + network.fetch_s)
        wait_until(cluster.host, "pods Ready", pods_ready, _TIMEOUT_S)
        pod_network.check_pod_subnets(readiness.registered(api), cluster.nodes)
        reconcile(cluster, api, networked=not awaited)
    if unable:
        cluster.ui.warn(
            f"NetworkPolicies are not enforced on {', '.join(sorted(unable.values()))}: "
            f"`sykube doctor{cluster.name_option}` says why"
        )
    if awaited:
        cluster.ui.warn(f"{pod_network.NO_PLUGIN}. {pod_network.INSTALL}")
        return
    for node in (cluster.nodes[0], cluster.nodes[-1]):
        wait_until(cluster.host, "DNS", partial(cluster.dns_problem, node), _TIMEOUT_S)


def wait_answer(cluster: Cluster, node: Node | None = None, timeout: float = _TIMEOUT_S) -> None:
    """As wait_api, until it serves objects, which it does seconds before it is all ready."""
    with cluster.api_of(node) if node else cluster.api() as api:
        what = "the API server's first answer"
        wait_until(cluster.host, what, lambda: readiness.answers(api), timeout, interval=0.1)


def wait_api(cluster: Cluster, node: Node | None = None, timeout: float = _TIMEOUT_S) -> None:
    """Wait until the API server answers.

    Args:
        node: the control plane that it is about; whichever answers if None.
        timeout: in seconds.

    Raises:
        SykubeError: it does not in that time.
    """
    what = f"the API server of {node.name}" if node else "the API server"
    with cluster.api_of(node) if node else cluster.api() as api:
        wait_until(cluster.host, what, lambda: readiness.health(api), timeout)


def wait_alive(cluster: Cluster, names: list[str], since: float) -> None:
    """Wait until the kubelets of nodes have been heard of again.

    Args:
        names: of the nodes.
        since: when, in seconds since the epoch.

    Raises:
        SykubeError: not in the time of wait_until; says what is missing.
    """
    reelect(cluster)
    with _naming_webhooks(cluster), cluster.api() as api:
        wait_until(cluster.host, "nodes", lambda: readiness.alive(api, names, since), _TIMEOUT_S)


def reelect(cluster: Cluster) -> None:
    """Let the programs of the only control plane not wait until their own leases are over.

    Raises:
        SykubeError: the API server does not answer in the time of wait_until.
    """
    if len(cluster.control_planes) > 1:
        return

    def without_leases() -> str:
        election.delete_leases(api)
        return ""

    with _naming_webhooks(cluster), cluster.api() as api:
        wait_until(cluster.host, "the API server", without_leases, _TIMEOUT_S)


def wait_restarted(cluster: Cluster, names: list[str], since: float) -> None:
    """As wait_alive, and until no pod shows the containers of before."""
    wait_alive(cluster, names, since)
    with _naming_webhooks(cluster), cluster.api() as api:
        wait_until(
            cluster.host,
            "pods",
            lambda: readiness.containers_started(api, names, since),
            _TIMEOUT_S,
        )


@contextmanager
def _naming_webhooks(cluster: Cluster) -> Iterator[None]:
    """Let an error of a wait say which webhooks keep the cluster from coming up, if any do."""
    try:
        yield
    except SykubeError as error:
        found = []
        with suppress(SykubeError), cluster.api() as api:
            found = webhooks.refusing(api)
        if found:
            lines = [error.details, *(f"{each}: {each.reason}" for each in found)]
            error.details = "\n".join(filter(None, lines))
            error.resolution = webhooks.fix(found, cluster.name_option)
        raise
