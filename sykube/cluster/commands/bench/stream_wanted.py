"""What `sykube bench stream` is asked for: messages, and the places that they are sent in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sykube.bench import delays
from sykube.bench.messages import BROKER, NATS
from sykube.cluster.commands.bench.image_files import EXEC, HOST
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import runtimes
from sykube.errors import UsageError

# How the three are in pods: all in one, each in one of its own on the same node, and the broker on
# another node than the others.
ONE_POD, _ONE_NODE, _TWO_NODES = "pod", "node", "nodes"
# Of a message in the file of a stream, beside the message.
_RECORD_BYTES = 128
# Of --sweep: how long a run takes, and the most bytes that its messages have together.
_SWEEP_S, _SWEEP_BYTES = 2.0, 256 * 1024**2
SATURATED = "saturated"
# Characters of a context in the names of pods, which have 63 at most.
_LONGEST = 40
_SATURATION = "saturation", "messages a second"


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        places: `host`, `exec`, RUNTIME:LAYOUT for pods, or RUNTIME for all layouts of it; the first
            is what others are compared to; empty for all that there are.
        messages: of a run.
        warm_up: messages before them, which are shown apart.
        rate: messages a second.
        size: bytes of each.
        broker: of `messages.BROKERS`.
        fsync: whether the broker has each on the disk before it hands it on.
        sweep: whether to look for the rate at which the consumer falls behind, too.
        mirror: of Debian, as --mirror has it.
        contexts: of the user's kubeconfig: further clusters, whose pods are in CONTEXT:LAYOUT.
        image: what pods of these run; empty for the name that the SIF has in nodes.

    Raises:
        UsageError: an image is given, and no context.
    """

    places: tuple[str, ...] = ()
    messages: int = 1000
    warm_up: int = 200
    rate: int = 100
    size: int = 1024
    broker: str = NATS
    fsync: bool = False
    sweep: bool = False
    mirror: str = ""
    contexts: tuple[str, ...] = ()
    image: str = ""

    def __post_init__(self) -> None:
        if self.image and not self.contexts:
            raise UsageError("--image is of pods of --context", resolution="Give both, or none.")

    @property
    def count(self) -> int:
        return self.warm_up + self.messages

    @property
    def stored(self) -> int:
        """Bytes that a broker keeps at once at most."""
        kept = self.count * (self.size + _RECORD_BYTES)
        return max(kept, _SWEEP_BYTES) if self.sweep else kept

    @property
    def titles(self) -> dict[str, tuple[str, str]]:
        """Of all measures, with their units."""
        return {**delays.MEASURES, **({SATURATED: _SATURATION} if self.sweep else {})}

    def of_sweep(self, rate: int) -> int:
        """How many messages a run of this rate has, to look whether the consumer keeps up."""
        fitting = _SWEEP_BYTES // (self.size + _RECORD_BYTES)
        return min(fitting, max(2, int(rate * _SWEEP_S)))

    @property
    def asked(self) -> dict[str, float]:
        """What figures depend on, for people."""
        return {
            f"broker ({self.broker})": 1,
            "messages": self.messages,
            "messages before them": self.warm_up,
            "bytes each": self.size,
            "messages a second": self.rate,
            "fsyncs of each": int(self.fsync),
        }


def chosen(
    cluster: Cluster, wanted: Sequence[str], others: Mapping[str, int] | None = None
) -> list[str]:
    """Places, each once, in the order in which they are asked for.

    Args:
        others: how many nodes other clusters have, by their contexts: each is measured.

    Raises:
        UsageError: there is no such place.
    """
    nodes = dict.fromkeys(runtimes.offered(cluster), len(cluster.nodes)) | dict(others or {})
    groups = {each: _layouts(each, count) for each, count in nodes.items()}
    there = [HOST, EXEC, *(place for each in groups.values() for place in each)]
    found: list[str] = []
    for place in wanted:
        if place not in (*groups, *there):
            raise UsageError(
                f"messages cannot be sent in {place!r}",
                resolution=f"There are {', '.join((*there, *groups))}.",
            )
        found += groups.get(place, [place])
    named = {runtime_of(place) for place in found}
    for context in (others or {}) if wanted else ():
        found += [] if context in named else groups[context]
    return list(dict.fromkeys(found or there))


def _layouts(group: str, nodes: int) -> list[str]:
    """The places of a RuntimeClass, or of another cluster, that has so many nodes."""
    two = [_TWO_NODES] if nodes > 1 else []
    return [f"{group}:{layout}" for layout in (ONE_POD, _ONE_NODE, *two)]


def is_pods(place: str) -> bool:
    return place not in (HOST, EXEC)


def runtime_of(place: str) -> str:
    """The RuntimeClass of pods, or the context of another cluster, whose name may have colons."""
    return place.rpartition(":")[0]


def layout_of(place: str) -> str:
    return place.rpartition(":")[2]


def is_far(place: str, role: str) -> bool:
    """Whether one of the three is on the first node, and not on the last."""
    return layout_of(place) == _TWO_NODES and role != BROKER


def pod_of(place: str, role: str) -> str:
    """The name of the pod that one of the three is in: of a cluster, each place has others."""
    group = re.sub(r"[^a-z0-9]+", "-", runtime_of(place).lower()).strip("-")[:_LONGEST].strip("-")
    name = "-".join(filter(None, (group, layout_of(place))))
    return name if layout_of(place) == ONE_POD else f"{name}-{role}"
