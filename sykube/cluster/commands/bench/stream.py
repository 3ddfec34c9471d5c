"""How long messages take through a broker: on this host, by Apptainer, in pods of each runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from sykube.bench import delays
from sykube.bench.machine import usable_cores
from sykube.bench.messages import ROLES, VALKEY
from sykube.bench.results import Curves, Measure, Result
from sykube.cluster.commands.bench import contexts, laboratory, stream_lab
from sykube.cluster.commands.bench.contexts import Other
from sykube.cluster.commands.bench.image_files import EXEC, HOST
from sykube.cluster.commands.bench.stream_lab import KIND
from sykube.cluster.commands.bench.stream_wanted import Wanted, chosen, is_pods, runtime_of
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import debian_image, runtimes
from sykube.errors import HostError
from sykube.host import preflight, space
from sykube.host.host import Host
from sykube.image.debian_image import DebianImage
from sykube.image.stream import RECIPE
from sykube.ui import Ui

# Of a broker with its cache, and two programs of Python.
_PLACE_BYTES = 150 * 1024**2
# Of the delay of a message: where it is kept, and where it is handed on as text and numbers.
_DELAY_BYTES, _HANDED_BYTES = 8, 200


def measure(
    host: Host,
    name: str,
    ui: Ui,
    agrees: Callable[[str], bool],
    *,
    wanted: Wanted,
    runs: int,
    margin: float,
    anyway: bool,
) -> Result:
    """Send messages through a broker in each place, in blocks.

    Args:
        agrees: puts a question to the user, where packages are to be installed to build the SIF.
        runs: blocks.
        margin: what counts as equal, as a part of 1.
        anyway: measure on a busy machine, too.

    Raises:
        UsageError: there is no such place or context.
        HostError: the machine is busy, or has too little memory.
        SykubeError: the disk is too small, the SIF cannot be built, pods do not start, messages do
            not arrive, or another cluster does not answer, or allow it.
    """
    cores = usable_cores()
    with laboratory.quiet(host, name, ui, anyway=anyway) as (cluster, machine):
        known = (HOST, EXEC, *runtimes.offered(cluster))
        others = contexts.found(
            cluster, wanted.contexts, wanted.image or RECIPE.name(host), taken=known
        )
        count = {context: len(other.nodes) for context, other in others.items()}
        places = chosen(cluster, wanted.places, count)
        _require_room(cluster, places, wanted, runs)
        if len(cores) < len(ROLES):
            ui.warn(f"the broker, the producer and the consumer share {len(cores)} cores")
        image = debian_image.obtain(host, RECIPE, wanted.mirror, agrees, ui)
        measures, curves = in_blocks(
            cluster, image, places, wanted, cores, others, runs=runs, margin=margin
        )
        groups = dict.fromkeys(runtime_of(place) for place in places if is_pods(place))
        classes = [each for each in groups if each not in others]
        images = {"stream": image.name, **contexts.versions(others)}
        return laboratory.result(
            cluster, KIND, machine, measures,
            base=places[0], margin=margin, asked={"runs": runs, **wanted.asked},
            programs=["containerd", *classes], images=images,
            pinned=_pinned(cores), curves=curves,
        )  # fmt: skip


def in_blocks(
    cluster: Cluster,
    image: DebianImage,
    places: Sequence[str],
    wanted: Wanted,
    cores: Sequence[int],
    others: Mapping[str, Other] | None = None,
    *,
    runs: int,
    margin: float,
) -> tuple[dict[str, Measure], dict[str, Curves]]:
    """The figures alone; `measure` says of what.

    Args:
        cores: those that processes are pinned to.
        others: other clusters, by their contexts.
    """
    with stream_lab.prepared(cluster, image, places, wanted, _cores(cores), others) as lab:
        measures = laboratory.in_blocks(
            cluster, places, wanted.titles, lab.once, runs=runs, margin=margin
        )
        # As there, the first run does not count.
        counted = {place: each[1:] for place, each in lab.runs.items()}
        return measures, delays.curves(counted, wanted.warm_up)


def _require_room(cluster: Cluster, places: Sequence[str], wanted: Wanted, runs: int) -> None:
    """Refuse what does not fit: all brokers wait beside each other, and one at a time has messages.

    Raises:
        HostError: there is too little memory.
        SykubeError: there is too little room on the disk.
    """
    # Valkey keeps in memory, too, what it keeps in a file.
    stored = wanted.stored if wanted.broker == VALKEY else 0
    kept = wanted.count * (_DELAY_BYTES * len(places) * (runs + 1) + _HANDED_BYTES)
    needed = len(places) * _PLACE_BYTES + stored + kept
    free = preflight.available_memory(cluster.host)
    if needed > free:
        raise HostError(
            f"brokers and messages need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
            "are free",
            resolution="Ask for fewer by --messages or --place, or end other programs.",
        )
    for folder in (cluster.host.cache, cluster.paths.root):
        space.require(cluster.host, folder, wanted.stored)


def _cores(cores: Sequence[int]) -> dict[str, int]:
    """The core of each of the three."""
    return dict(zip(ROLES, itertools.cycle(cores), strict=False))


def _pinned(cores: Sequence[int]) -> str:
    each = " and ".join(f"the {role} to core {core}" for role, core in _cores(cores).items())
    return f"pinned alike in every place: {each}"
