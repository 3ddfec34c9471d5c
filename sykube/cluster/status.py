"""How a cluster is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sykube.cluster.cluster import Cluster
from sykube.cluster.steps.control_plane import DOMAIN
from sykube.errors import ExitCode, SykubeError
from sykube.kubernetes import readiness


@dataclass(frozen=True)
class NodeStatus:
    """A node; `problem` is empty when it runs and is Ready."""

    name: str
    address: str
    running: bool
    problem: str

    @property
    def summary(self) -> str:
        if not self.running:
            return "stopped"
        return self.problem or "Ready"


@dataclass(frozen=True)
class Status:
    """A cluster; `api`, `pods` and `dns` say what is wrong, or nothing."""

    name: str
    nodes: tuple[NodeStatus, ...]
    api: str
    pods: str
    dns: str

    @property
    def exit_code(self) -> ExitCode:
        if not any(node.running for node in self.nodes):
            return ExitCode.STOPPED
        problems = [node.problem for node in self.nodes] + [self.api, self.pods, self.dns]
        return ExitCode.DEGRADED if any(problems) else ExitCode.OK

    @property
    def summary(self) -> str:
        words = {ExitCode.OK: "well", ExitCode.STOPPED: "stopped"}
        return words.get(self.exit_code, "degraded")

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.summary,
            "nodes": [
                {
                    "name": node.name,
                    "address": node.address,
                    "running": node.running,
                    "problem": node.problem,
                }
                for node in self.nodes
            ],
            "api": self.api,
            "pods": self.pods,
            "dns": self.dns,
        }


def look(cluster: Cluster) -> Status:
    """Look at a cluster now; nothing is taken from its record but its nodes' names."""
    running = set(cluster.engine.instances())
    problems = {
        node.instance: "" if node.instance in running else "its instance does not run"
        for node in cluster.nodes
    }
    api_problem = pods = ""
    try:
        with cluster.api() as api:
            for node in cluster.nodes:
                problems[node.instance] = problems[node.instance] or readiness.nodes(
                    api, [node.instance]
                )
            pods = readiness.system_pods(api, len(cluster.nodes))
    except SykubeError as error:
        api_problem = error.brief
    dns = "the master does not run"
    if cluster.master.instance in running:
        name = f"kubernetes.default.svc.{DOMAIN}"
        try:
            dns = readiness.dns_answers(cluster.master, cluster.state.subnets.dns, name)
        except SykubeError as error:
            dns = error.brief
    nodes = tuple(
        NodeStatus(node.name, node.address, node.instance in running, problems[node.instance])
        for node in cluster.nodes
    )
    return Status(cluster.name, nodes, api_problem, pods, dns)
