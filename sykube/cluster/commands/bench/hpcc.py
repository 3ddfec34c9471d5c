"""HPC Challenge on this host, by `apptainer exec`, and in pods of each runtime, of one SIF."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sykube import resources
from sykube.bench import hpcc_input, hpcc_output
from sykube.bench.hpcc_input import Asked, Shape
from sykube.bench.machine import usable_cores
from sykube.bench.results import Measure, Result
from sykube.cluster.commands import images
from sykube.cluster.commands.bench import laboratory
from sykube.cluster.commands.bench.laboratory import PODS
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import debian_image, runtimes
from sykube.errors import SykubeError, UsageError
from sykube.host import preflight
from sykube.host.host import Host
from sykube.image import containerd, sif
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage
from sykube.image.hpcc import PROGRAM, RECIPE
from sykube.kubernetes.api import Api
from sykube.node.limits import parse_memory
from sykube.node.node import Node
from sykube.ui import Ui

KIND = "hpcc"
HOST, EXEC = "host", "exec"
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
    temporary = cluster.host.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="hpcc-", dir=temporary))
    lab = _Lab(cluster, node, image, places, asked, cores, work)
    try:
        lab.unpack()
        classes = _classes(places)
        if not classes:
            yield lab
            return
        with (
            _loaded(cluster, node, image),
            cluster.api() as api,
            laboratory.namespace(cluster, api),
        ):
            with cluster.ui.step("Starting the pods"):
                for place in classes:
                    api.request("POST", PODS, lab.pod(place))
                laboratory.ready(cluster, api)
            yield lab
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _loaded(cluster: Cluster, node: Node, image: DebianImage) -> Iterator[None]:
    """The image in a node, and gone from it at the end, unless it was there before."""
    if image.name in containerd.names(node):
        yield
        return
    images.load_into(cluster, [image.archive], [node.name], image.name)
    try:
        yield
    except BaseException:
        # What went wrong first is what is to be said.
        with contextlib.suppress(SykubeError):
            images.delete_from(cluster, image.name, [node.name])
        raise
    images.delete_from(cluster, image.name, [node.name])


@dataclass
class _Lab:
    """What runs HPC Challenge in each place.

    Attributes:
        work: a folder of the host for what the places on it write.
    """

    cluster: Cluster
    node: Node
    image: DebianImage
    places: Sequence[str]
    asked: Mapping[Shape, Asked]
    cores: Sequence[int]
    work: Path
    _builder: Builder = field(init=False)

    def __post_init__(self) -> None:
        state = self.cluster.state
        self._builder = Builder(Path(state.engine), state.engine_environment)

    @property
    def _root(self) -> Path:
        return self.work / "root"

    @property
    def _is_exec_of_folder(self) -> bool:
        # A user can mount no SIF.
        return self.cluster.host.grants.rootless

    def unpack(self) -> None:
        """Have the files of the SIF for the host, where it is among the places.

        Raises:
            SykubeError: they cannot be unpacked.
        """
        if HOST not in self.places and not (EXEC in self.places and self._is_exec_of_folder):
            return
        with self.cluster.ui.step("Unpacking the image of HPC Challenge"):
            archive = self.image.archive
            sif.unpack(
                self.cluster.host, archive, self._root, self.work, self._builder, shown=archive
            )

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
                        "image": self.image.name,
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
                env=self._builder.environment if place == EXEC else None,
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
        if place == HOST:
            script = resources.folder("definitions") / "hpcc/hpcc-host"
            return ["unshare", "--mount", "sh", script, self._root, *program]
        if place == EXEC:
            return [
                self._builder.binary, "--silent", "exec", "--cleanenv", "--no-home", "--no-mount",
                "cwd,bind-paths", "--bind", f"{self.work}:/tmp", "--pwd", "/tmp",
                self._root if self._is_exec_of_folder else self.image.archive, *program,
            ]  # fmt: skip
        return [*laboratory.inside(self.cluster, place, *program)]
