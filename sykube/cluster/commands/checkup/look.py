"""What every check has at hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sykube.cluster.model.cluster import Cluster
from sykube.host.preflight import Finding, Level
from sykube.node import cgroups
from sykube.node.node import Node


@dataclass(frozen=True)
class Look:
    """A look at a cluster.

    Attributes:
        pids: the first process of each instance that runs, seen from the host.
    """

    cluster: Cluster
    now: datetime
    pids: dict[str, int]

    @property
    def running(self) -> list[Node]:
        return [node for node in self.cluster.nodes if node.instance in self.pids]

    @property
    def awake(self) -> list[Node]:
        """Nodes that run and are not paused: others answer nothing."""
        return [
            node for node in self.running if not cgroups.is_frozen(self.cluster.host, node.instance)
        ]

    def pid(self, node: Node) -> int:
        """The first process of a node that runs."""
        return self.pids[node.instance]

    def command(self, command: str, *arguments: str) -> str:
        """A command of sykube's for this cluster, as it is typed."""
        return " ".join((f"sykube {command}{self.cluster.name_option}", *arguments))

    def kubelet_log(self, node: Node) -> str:
        """The command that shows what a node's kubelet complains of."""
        return self.command("logs", node.name, "--service", "kubelet", "--tail", "50")


def ok(what: str, detail: str) -> Finding:
    return Finding(what, Level.OK, detail)


def warning(what: str, detail: str, cure: str) -> Finding:
    return Finding(what, Level.WARNING, detail, cure)


def failure(what: str, detail: str, cure: str) -> Finding:
    return Finding(what, Level.FAILURE, detail, cure)
