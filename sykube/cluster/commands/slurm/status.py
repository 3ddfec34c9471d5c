"""`sykube slurm status`: the nodes and jobs of a Slurm cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sykube.cluster.commands.slurm import room, setup
from sykube.cluster.commands.slurm.place import Place
from sykube.cluster.commands.slurm.room import Unscheduled
from sykube.errors import ExitCode
from sykube.host.run import CommandError
from sykube.slurm.controller import SlurmNode


@dataclass(frozen=True)
class ShownNode:
    """A node of a Slurm cluster; `on` is the Node of Kubernetes that its pod is on, if any."""

    name: str
    state: str
    cpus: int
    allocated: int
    memory_mib: int
    reason: str
    on: str


@dataclass(frozen=True)
class Automatic:
    """The least and the most nodes, and how long one may be idle."""

    least: int
    most: int
    idle_seconds: int


@dataclass(frozen=True)
class Status:
    """A Slurm cluster; `problem` is empty where all nodes take jobs.

    Attributes:
        unscheduled: the pods that Kubernetes has no place for.
        automatic: how it scales by itself, if it does.
    """

    namespace: str
    users: tuple[str, ...]
    problem: str
    nodes: tuple[ShownNode, ...]
    jobs: dict[str, int]
    accounting: bool
    rest: bool
    unscheduled: tuple[Unscheduled, ...] = ()
    automatic: Automatic | None = None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DEGRADED if self.problem else ExitCode.OK

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"healthy": not self.problem}


def collect(place: Place) -> Status:
    """What a Slurm cluster is like.

    Raises:
        SykubeError: there is none (NO_SUCH_CLUSTER).
    """
    spec = place.require()
    found = setup.whole_problem(place, spec)
    pods = place.pods()
    on = {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in pods}
    try:
        known, jobs = place.controller.nodes(), place.controller.jobs()
    except CommandError:
        known, jobs = {}, {}
    nodes = tuple(_shown(each, on.get(each.name, "")) for each in known.values())
    automatic = Automatic(spec.nodes, spec.most, spec.idle) if spec.is_automatic else None
    return Status(
        place.namespace,
        spec.names,
        found,
        nodes,
        jobs,
        spec.accounting,
        spec.rest,
        tuple(room.unscheduled(pods)),
        automatic,
    )


def _shown(node: SlurmNode, on: str) -> ShownNode:
    # Slurm keeps it when a node has jobs again.
    reason = "" if node.is_ready else node.reason
    return ShownNode(node.name, node.state, node.cpus, node.allocated, node.memory, reason, on)
