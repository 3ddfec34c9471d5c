"""What every check has at hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sykube.cluster.model.cluster import Cluster
from sykube.host.finding import Finding, Level
from sykube.node.node import Node


@dataclass(frozen=True)
class CheckContext:
    """A cluster, and what was found of it once for all checks.

    Attributes:
        running: nodes that run, paused ones among them.
    """

    cluster: Cluster
    now: datetime
    running: list[Node]

    @property
    def awake(self) -> list[Node]:
        """Nodes that run and are not paused: others answer nothing."""
        return [node for node in self.running if not node.is_frozen()]

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
