"""HPC Challenge on this host, by `apptainer exec`, and in pods of each runtime, of one SIF."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.bench import hpcc_input, hpcc_output
from sykube.bench.hpcc_input import Asked, Shape
from sykube.bench.machine import usable_cores
from sykube.bench.results import Measure, Result
from sykube.cluster.commands.bench import image_files, laboratory
from sykube.cluster.commands.bench.image_files import EXEC, HOST, ImageFiles
from sykube.cluster.commands.bench.laboratory import PODS
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import debian_image, runtimes
from sykube.errors import UsageError
from sykube.host import preflight
from sykube.host.host import Host
from sykube.image.debian_image import DebianImage
from sykube.image.hpcc import PROGRAM, RECIPE
from sykube.kubernetes.api import Api
from sykube.node.limits import parse_memory
from sykube.node.node import Node
from sykube.ui import Ui

KIND = "hpcc"
# Of one run: large problems take hours.
_RUN_S = 6 * 3600.0
# HPL says so of its input, and then some of its processes wait for ever for the others.
_HOPELESS = "HPL ERROR"


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        places: `host`, `exec` and names of RuntimeClasses, the first of which is what others are
            compared to; empty for all that there are.
        shapes: processes and threads; empty for those that suit the cores.
        order: of HPL's matrix; 0 for one that suits the memory.
        file: a hpccinf.txt of the user's, instead of one that is written.
        mirror: of Debian, as --mirror has it.

    Raises:
        UsageError: sizes have two sources.
    """

    places: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    order: int = 0
    file: Path | None = None
    mirror: str = ""

    def __post_init__(self) -> None:
        if self.order and self.file:
            raise UsageError("sizes are by --size or by --input", resolution="Leave out one.")


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
    """Run all of HPC Challenge in each place, in blocks.

    Args:
        agrees: puts a question to the user, where packages are to be installed to build the SIF.
        runs: blocks.
        margin: what counts as equal, as a part of 1.
        anyway: measure on a busy machine, too.

    Raises:
        UsageError: there is no such place, or HPC Challenge does not take the file.
        HostError: the machine is busy, or has too little memory.
        SykubeError: the SIF cannot be built, pods do not start, or a run failed.
    """
    given = hpcc_input.read(wanted.file) if wanted.file else None
    cores = usable_cores()
    shapes = list(dict.fromkeys(wanted.shapes or hpcc_input.shapes(len(cores))))
    if given:
        _require_grid(given, shapes, wanted.file)
    with laboratory.quiet(host, name, ui, anyway=anyway) as (cluster, machine):
        places = _chosen(cluster, wanted.places)
        classes = _classes(places)
        node = cluster.nodes[-1]
        free = preflight.available_memory(host)
        if classes:
            with cluster.api() as api:
                free = min(free, _of_node(api, node))
        order = wanted.order or hpcc_input.order_for(free)
        asked = {shape: given or hpcc_input.written(shape, order) for shape in shapes}
        for shape, each in asked.items():
            hpcc_input.require_memory(each, shape, free)
            if (threads := shape.processes * shape.threads) > len(cores):
                ui.warn(f"{shape}: {threads} threads share {len(cores)} cores")
        image = debian_image.obtain(host, RECIPE, wanted.mirror, agrees, ui)
        measures = in_blocks(cluster, node, image, places, asked, cores, runs=runs, margin=margin)
        largest = max(each.order for each in asked.values())
        return laboratory.result(
            cluster, KIND, machine, measures,
            base=places[0], margin=margin, asked={"runs": runs, "rows of HPL's matrix": largest},
            programs=["containerd", *classes], images={"hpcc": image.name},
            pinned=_pinned(shapes, cores),
        )  # fmt: skip


def in_blocks(
    cluster: Cluster,
    node: Node,
    image: DebianImage,
    places: Sequence[str],
    asked: Mapping[Shape, Asked],
    cores: Sequence[int],
    *,
    runs: int,
    margin: float,
) -> dict[str, Measure]:
    """The figures alone; `measure` says of what.

    Args:
        node: where pods run.
        asked: the input of each shape.
        cores: those that processes are pinned to.
    """
    with _lab(cluster, node, image, places, asked, cores) as lab:
        return lab.in_blocks(runs=runs, margin=margin)


def _require_grid(given: Asked, shapes: Sequence[Shape], file: Path | None) -> None:
    for shape in shapes:
        if shape.processes < given.processes:
            raise UsageError(
                f"{file} asks for a grid of {given.processes} processes, and {shape} has "
                f"{shape.processes}",
                resolution=f"Ask for as many: --shape {given.processes}x1",
            )


def _chosen(cluster: Cluster, places: Sequence[str]) -> list[str]:
    there = (HOST, EXEC, *runtimes.offered(cluster))
    for place in places:
        if place not in there:
            raise UsageError(
                f"HPC Challenge cannot run in {place!r}",
                resolution=f"There are {', '.join(there)}; "
                f"`sykube runtimes{cluster.name_option}` says more of pods.",
            )
    return list(dict.fromkeys(places or there))


def _classes(places: Sequence[str]) -> list[str]:
    """Those that are pods of a RuntimeClass."""
    return [place for place in places if place not in (HOST, EXEC)]


def _of_node(api: Api, node: Node) -> int:
    """Bytes that pods of a node can have."""
    status = api.get(f"/api/v1/nodes/{node.instance}")["status"]
    return parse_memory(status["allocatable"]["memory"])


def _pinned(shapes: Sequence[Shape], cores: Sequence[int]) -> str:
    each = (f"{shape} on cores {' | '.join(shape.cores(cores))}" for shape in shapes)
    return f"processes are pinned alike in every place: {'; '.join(each)}"


@contextlib.contextmanager
def _lab(
    cluster: Cluster,
    node: Node,
    image: DebianImage,
    places: Sequence[str],
    asked: Mapping[Shape, Asked],
    cores: Sequence[int],
) -> Iterator[_Lab]:
    """All places, ready; nothing is left of them."""
    with laboratory.folder(cluster, KIND) as work:
        files = ImageFiles(cluster, image, work)
        lab = _Lab(cluster, node, files, places, asked, cores)
        files.unpack(RECIPE.title, places)
        classes = _classes(places)
        if not classes:
            yield lab
            return
        with (
            image_files.loaded(cluster, [node], image),
            cluster.api() as api,
            laboratory.namespace(cluster.host, api, laboratory.kubectl(cluster)),
        ):
            with cluster.ui.step("Starting the pods"):
                for place in classes:
                    api.request("POST", PODS, lab.pod(place))
                laboratory.ready(cluster.host, api)
            yield lab


@dataclass
class _Lab:
    """What runs HPC Challenge in each place."""

    cluster: Cluster
    node: Node
    files: ImageFiles
    places: Sequence[str]
    asked: Mapping[Shape, Asked]
    cores: Sequence[int]

    def pod(self, place: str) -> dict[str, object]:
        """The pod of a RuntimeClass: it waits, and programs are run in it."""
        # Where containerd's own /dev/shm has 64 MB, which Open MPI's segments may fill, and the
        # host's has half of the memory.
        volumes = {"shm": ("/dev/shm", {"medium": "Memory"}), "tmp": ("/tmp", {})}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": place},
            "spec": {
                "nodeName": self.node.instance,
                "runtimeClassName": place,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "main",
                        "image": self.files.image.name,
                        "command": ["sleep", "1000000"],
                        "volumeMounts": [
                            {"name": name, "mountPath": path} for name, (path, _) in volumes.items()
                        ],
                    }
                ],
                "volumes": [
                    {"name": name, "emptyDir": kind} for name, (_, kind) in volumes.items()
                ],
            },
        }

    def in_blocks(self, *, runs: int, margin: float) -> dict[str, Measure]:
        """The figures of each place and shape."""
        titles = {
            f"{key}-{shape}": (f"{figure.title} ({shape})", figure.unit)
            for shape in self.asked
            for key, figure in hpcc_output.figures(shape.processes).items()
        }
        return laboratory.in_blocks(
            self.cluster, self.places, titles, self.once, runs=runs, margin=margin
        )

    def once(self, place: str) -> dict[str, float]:
        """The figures of one run of each shape.

        Raises:
            SykubeError: one failed.
        """
        found = {}
        for shape, asked in self.asked.items():
            self.cluster.ui.note(f"{place}, {shape}")
            said = self._run(place, shape, asked.text)
            for key, value in hpcc_output.parse(said, shape.processes).items():
                found[f"{key}-{shape}"] = value
        return found

    def _run(self, place: str, shape: Shape, text: str) -> str:
        """What it says, whether it succeeds or not."""
        lines: list[str] = []
        hopeless = threading.Event()

        def take(line: str) -> None:
            # The line behind it says why.
            if lines and lines[-1].startswith(_HOPELESS):
                hopeless.set()
            lines.append(line)

        crowded = shape.processes * shape.threads > len(self.cores)
        program = [PROGRAM, str(shape.threads), str(int(crowded)), *shape.cores(self.cores)]
        try:
            self.cluster.host.run(
                self._command(place, program),
                stdin=text,
                env=self.files.environment(place),
                timeout=_RUN_S,
                check=False,
                on_line=take,
                stop=hopeless,
            )
        except InterruptedError:
            # What it has said is no result, and is shown as none.
            lines.append("HPL does not take it.")
        return "\n".join(lines)

    def _command(self, place: str, program: Sequence[str]) -> list[str | Path]:
        if place in (HOST, EXEC):
            return self.files.command(place, program)
        return [*laboratory.inside(self.cluster, place, *program)]
