"""How a cluster is, looked at now; nothing is taken from its record but its nodes' names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from sykube.cluster.model import lookup, pod_network
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import clusters
from sykube.cluster.operations import certs
from sykube.cluster.operations.policies import Enforcement, enforcement
from sykube.errors import ExitCode, SykubeError
from sykube.host import belonging, space
from sykube.host.host import Host
from sykube.host.job import clock
from sykube.kubernetes import readiness
from sykube.node import supervised
from sykube.node.node import Node
from sykube.ui import Ui

RUNNING, PAUSED, STOPPED = "running", "paused", "stopped"


@dataclass(frozen=True)
class NodeStatus:
    """A node; `problem` is empty when it runs and is Ready.

    Attributes:
        state: running, paused or stopped.
        services: state of each supervised program, as supervisord names it.
        version: of Kubernetes that its kubelet is of, as the API server knows it; empty where none
            answers.
        disk_mb: what its files take, beside the node image that all nodes share; in MB (10^6).
    """

    name: str
    address: str
    state: str
    problem: str
    services: dict[str, str]
    disk_mb: int = 0
    version: str = ""

    @property
    def summary(self) -> str:
        if self.state != RUNNING:
            return self.state
        return self.problem or "Ready"


@dataclass(frozen=True)
class Status:
    """A cluster; `api`, `pods`, `dns`, `network` and `disk` say what is wrong, or nothing.

    Attributes:
        certificates: a warning when some end within a month; what has ended shows in the rest.
        update: an update that is under way, or nothing.
        policies: what NetworkPolicies are worth.
        enforcement: what keeps the add-on network-policy from enforcing them.
        job: the batch job that this is asked in, and when that ends.
        stops: when the cluster stops by itself.
    """

    name: str
    kubernetes: str
    endpoint: str
    nodes: tuple[NodeStatus, ...]
    network: str
    api: str
    pods: str
    dns: str
    disk: str
    certificates: str = ""
    update: str = ""
    policies: str = ""
    enforcement: str = ""
    job: str = ""
    stops: str = ""

    @property
    def exit_code(self) -> ExitCode:
        states = {node.state for node in self.nodes}
        if RUNNING not in states:
            return ExitCode.STOPPED
        problems = [node.problem for node in self.nodes]
        problems += [self.network, self.api, self.pods, self.dns, self.disk, self.enforcement]
        return ExitCode.DEGRADED if any(problems) else ExitCode.OK

    @property
    def summary(self) -> str:
        if self.exit_code is ExitCode.STOPPED:
            return PAUSED if any(node.state == PAUSED for node in self.nodes) else STOPPED
        return "degraded" if self.exit_code is ExitCode.DEGRADED else "healthy"

    @property
    def parts(self) -> dict[str, str]:
        """What belongs to no single node: its name, and what is wrong with it or nothing."""
        return {
            "network": self.network,
            "API server": self.api,
            "system pods": self.pods,
            "DNS": self.dns,
            "disk": self.disk,
        }

    def to_dict(self) -> dict[str, Any]:
        return {"status": self.summary, **asdict(self)}


@dataclass(frozen=True)
class Glance:
    """What `list` says of a cluster.

    Attributes:
        state: running, paused, stopped, partly running, unfinished, damaged where its record
            cannot be read, or that it is elsewhere, on another host.
    """

    name: str
    state: str
    nodes: int = 0
    kubernetes: str = ""


def glances(host: Host, ui: Ui) -> list[Glance]:
    """All clusters of this host, then those of others that share the user's folders."""
    others = belonging.others(host)
    return [
        *(glance(host, name, ui) for name in clusters(host)),
        *(Glance(name, f"elsewhere on {other}") for name, other in others.items()),
    ]


def glance(host: Host, name: str, ui: Ui) -> Glance:
    """Look at a cluster from afar: at its instances alone."""
    try:
        cluster = lookup.load(host, name, ui)
        running = cluster.running()
    except SykubeError:
        return Glance(name, "damaged")
    nodes = cluster.nodes
    state = {0: STOPPED, len(nodes): RUNNING}.get(len(running), "partly running")
    if not cluster.state.complete:
        state = "unfinished"
    elif running and all(node.is_frozen() for node in nodes):
        state = PAUSED
    return Glance(name, state, len(nodes), cluster.state.versions.get("kubernetes", ""))


def collect(cluster: Cluster) -> Status:
    """Look at a cluster; at what takes time, at once."""
    with ThreadPoolExecutor(max_workers=len(cluster.nodes) + 2) as pool:
        disk = {node.name: pool.submit(node.disk) for node in cluster.nodes}
        nodes = {node.name: _node(node) for node in cluster.nodes}
        awake = [node for node in cluster.nodes if nodes[node.name].state == RUNNING]
        problems: dict[str, str] = {}
        kubelets: dict[str, str] = {}
        api_problem = pods = dns = network = missing = ""
        policies = Enforcement()
        if awake:
            rules = pool.submit(cluster.bridge.problem, cluster.wiring)
            answer = pool.submit(cluster.dns_problem, awake[0])
            problems, api_problem, pods, kubelets, missing, policies = _kubernetes(cluster, awake)
            network, dns = rules.result() or missing, answer.result()
        sizes = {name: sum(size.result().values()) for name, size in disk.items()}
    room = space.free(cluster.host, cluster.paths.root)
    return Status(
        cluster.name,
        cluster.state.versions.get("kubernetes", ""),
        cluster.endpoint,
        tuple(
            replace(
                nodes[node.name],
                problem="; ".join(
                    filter(None, (nodes[node.name].problem, problems.get(node.instance)))
                ),
                disk_mb=-(-sizes[node.name] // 1_000_000),
                version=kubelets.get(node.instance, ""),
            )
            for node in cluster.nodes
        ),
        network,
        api_problem,
        pods,
        dns,
        str(room) if room.is_short else "",
        certs.warning(cluster),
        _update(cluster),
        policies.said,
        policies.problem,
        f"{job}, {job.until}" if (job := cluster.host.grants.job) else "",
        clock(cluster.state.stop_at) if cluster.state.stop_at > cluster.host.time() else "",
    )


def _update(cluster: Cluster) -> str:
    update = cluster.state.update
    if update is None:
        return ""
    return (
        f"to Kubernetes {update.after.kubernetes}: {len(update.finished)} of "
        f"{len(cluster.nodes)} nodes are through; `sykube update{cluster.name_option}` goes on"
    )


def _node(node: Node) -> NodeStatus:
    state, problem, found = RUNNING, "", {}
    if not node.is_running():
        state, problem = STOPPED, "its instance does not run"
    elif node.is_frozen():
        state, problem = PAUSED, "it is paused"
    else:
        try:
            found = node.services()
        except SykubeError as error:
            problem = error.brief
        bad = [f"{name} is {what}" for name, what in found.items() if what != supervised.RUNNING]
        problem = problem or ", ".join(bad)
    return NodeStatus(node.name, node.address, state, problem, found)


def _kubernetes(
    cluster: Cluster, awake: list[Node]
) -> tuple[dict[str, str], str, str, dict[str, str], str, Enforcement]:
    """Problems of instances, the API and pods; kubelets' versions; of the pod network; policies."""
    if not any(node.is_control_plane for node in awake):
        return {}, "no control plane runs", "", {}, "", Enforcement()
    try:
        with cluster.api() as api:
            health = readiness.health(api)
            nodes = readiness.registered(api)
            problems = readiness.node_problems(nodes, [node.instance for node in awake])
            network, masters = cluster.pod_network, len(cluster.control_planes)
            awaited = network.is_awaited(nodes, cluster.nodes)
            pods = readiness.system_pods(api, len(cluster.nodes), masters, networked=not awaited)
            missing = f"{pod_network.NO_PLUGIN}. {pod_network.INSTALL}" if awaited else ""
            found = enforcement(cluster, api)
            return problems, health, pods, readiness.kubelets(nodes), missing, found
    except SykubeError as error:
        return {}, error.brief, "", {}, "", Enforcement()
