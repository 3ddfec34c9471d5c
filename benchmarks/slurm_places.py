"""Where benchmarks.slurm runs MPI programs: on this host without a container, in Slurm clusters."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import sykube, timed
from sykube import resources
from sykube.bench.hpcc_input import Shape
from sykube.cluster.commands.bench import laboratory
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import debian_image
from sykube.image import hpcc, layout, sif, slurm
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage

# Of what is run, in every place.
_HOME = "/home/user"
FOLDER = f"{_HOME}/in_slurm"
_OURS = Path(__file__).with_name("in_slurm")
_BUILD = Path(__file__).resolve().parents[1] / "tests/e2e/mpi/build"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# MiB of a pod beside its processes, and of each of these: Open MPI's shared memory, and what HPC
# Challenge's tests take at least.
_POD_MIB, _PROCESS_MIB = 256, 160
# HPC Challenge's other tests take as much as HPL's matrix does.
_MATRICES = 2
# A line of ldd(1).
_LIBRARY = re.compile(r"^\s*(\S+) => (/\S+) \(", re.MULTILINE)


@dataclass(frozen=True)
class Work:
    """What runs alike in every place.

    Attributes:
        shape: ranks of MPI, and threads of each.
        cores: of this machine, that it may use.
        order: of HPL's matrix; 0 for no HPC Challenge.
        seconds: of MPI_Allreduce of each size.
    """

    shape: Shape
    cores: int
    order: int
    seconds: float

    @property
    def is_crowded(self) -> bool:
        """Whether threads share cores."""
        return self.shape.processes * self.shape.threads > self.cores

    @property
    def environment(self) -> list[str]:
        """For env(1): the same ways between ranks everywhere, and libraries that images lack."""
        return [
            "OMPI_MCA_pml=ob1",
            "OMPI_MCA_btl=self,sm,tcp",
            # Who waits leaves the core to others.
            f"OMPI_MCA_mpi_yield_when_idle={int(self.is_crowded)}",
            f"OMP_NUM_THREADS={self.shape.threads}",
            f"LD_LIBRARY_PATH={FOLDER}/lib",
        ]

    def cpus(self, pods: int) -> int:
        """Of each of some pods, which have an equal part of the cores, and one at least."""
        return max(1, min(self.shape.processes * self.shape.threads, self.cores) // pods)

    def memory(self, pods: int) -> str:
        """Of each of some pods, as Kubernetes has it."""
        matrices = _MATRICES * self.order**2 * 8 / pods / 2**20
        return f"{_POD_MIB + _PROCESS_MIB * self.shape.processes // pods + round(matrices)}Mi"


@dataclass(frozen=True)
class Bare:
    """This host, with the files of Slurm's image below `root`: mpirun starts the ranks."""

    work: Work
    root: Path
    title = "C=0"

    @property
    def launcher(self) -> list[str]:
        """What a program follows."""
        ranks = str(self.work.shape.processes)
        # There is no other user here.
        words = ("--allow-run-as-root", "--bind-to", "none", "--host", f"localhost:{ranks}")
        return ["mpirun", *words, "-n", ranks]

    def run(self, *command: str, given: str = "") -> str:
        """What a command says, with that for its input."""
        script = resources.folder("definitions") / "hpcc/hpcc-host"
        # Nothing of this process's environment is in a pod.
        clean = ["env", "-i", f"PATH={_PATH}", "HOME=/root", *self.work.environment]
        return timed(
            ["unshare", "--mount", "sh", script, self.root, *clean, *command], given=given
        )[1]


@dataclass(frozen=True)
class Pods:
    """A Slurm cluster of some nodes, each a pod: srun starts the ranks, as many on each of them.

    Attributes:
        cluster: its name.
        runtime: RuntimeClass; empty for the cluster's own.
    """

    work: Work
    cluster: str
    count: int
    runtime: str = ""

    @property
    def title(self) -> str:
        return f"C={self.count}" + (f" {self.runtime}" if self.runtime else "")

    @property
    def namespace(self) -> str:
        return f"bench-slurm-{self.count}" + (f"-{self.runtime}" if self.runtime else "")

    @property
    def launcher(self) -> list[str]:
        """What a program follows."""
        shape = self.work.shape
        # With as many CPUs as a rank has threads, a node has no room for others' ranks.
        room = "--overcommit" if self.work.is_crowded else f"--cpus-per-task={shape.threads}"
        # Of Slurm 24.11, `srun --overcommit` that asks for nodes itself waits for ever.
        return [
            "salloc", "--quiet", f"--nodes={self.count}",
            "srun", "--input=none", f"--ntasks={shape.processes}", room, "--distribution=block",
        ]  # fmt: skip

    def run(self, *command: str, given: str = "") -> str:
        """What a command in the login pod says, with that for its input."""
        return timed(self._entering("env", *self.work.environment, *command), given=given)[1]

    def slurm(self, command: str, *words: str, check: bool = True) -> float:
        """Seconds of `sykube slurm COMMAND`."""
        named = ("--name", self.cluster, "--namespace", self.namespace)
        return sykube("slurm", command, *named, *words, "--quiet", check=check)[0]

    def up(self) -> None:
        """Create it."""
        size = ("--cpus", str(self.work.cpus(self.count)), "--memory", self.work.memory(self.count))
        self.slurm("up", "--yes", "--nodes", str(self.count), *size, "--runtime", self.runtime)

    def down(self) -> None:
        """Remove whatever there is of it."""
        self.slurm("down", "--volumes", "--force", check=False)

    def fill(self, archive: Path) -> None:
        """Give its nodes FOLDER."""
        with archive.open("rb") as file:
            unpack = ("tar", "--extract", "--directory", _HOME)
            subprocess.run(self._entering(*unpack), stdin=file, check=True)

    def _entering(self, *command: str) -> list[str]:
        named = ("--name", self.cluster, "--namespace", self.namespace)
        return [sys.executable, "-m", "sykube", "slurm", "shell", *named, "--", *command]


Place = Bare | Pods


@contextlib.contextmanager
def laid_out(
    cluster: Cluster, work: Work, counts: Sequence[int], runtimes: Sequence[str]
) -> Iterator[tuple[Bare, list[Pods]]]:
    """All places, ready; nothing is left of them.

    All Slurm clusters are there at once, so that each place is measured beside the same.

    Args:
        counts: of pods.
        runtimes: RuntimeClasses, or one empty text.
    """
    host = cluster.host
    recipes = [slurm.RECIPE, *([hpcc.RECIPE] if work.order else [])]
    images = [debian_image.obtain(host, e, "", lambda _: True, cluster.ui) for e in recipes]
    made = [Pods(work, cluster.name, count, each) for each in runtimes for count in counts]
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(laboratory.folder(cluster, "slurm"))
        bare = Bare(work, folder / "root")
        with cluster.ui.step("Unpacking what runs without a container"):
            archive = prepare(cluster, bare.root, folder, *images)
        begun: list[Pods] = []
        ends.callback(remove, begun)
        for each in made:
            begun.append(each)
            with cluster.ui.step(f"Setting up {each.title}"):
                each.up()
                each.fill(archive)
        yield bare, made


def remove(places: Sequence[Pods]) -> None:
    """Remove Slurm clusters, all at once: each waits for the end of its pods."""
    with ThreadPoolExecutor() as pool:
        # What one raises is raised here.
        list(pool.map(Pods.down, places))


def prepare(cluster: Cluster, root: Path, folder: Path, *images: DebianImage) -> Path:
    """Unpack Slurm's image for this host, and add what is run.

    Args:
        images: Slurm's, and that of HPC Challenge where it is wanted.

    Returns:
        An archive of what is run, for the other places.
    """
    (parts := folder / "parts").mkdir()
    (found,) = layout.read(cluster.host, images[0].archive, parts)
    root.mkdir()
    for layer in found.layers:
        subprocess.run(["tar", "--extract", "--file", layer.file, "--directory", root], check=True)
    programs = root / FOLDER.lstrip("/")
    shutil.copytree(_OURS, programs)
    subprocess.run([_BUILD, parts, _OURS / "allreduce.c"], check=True)
    shutil.copy(parts / "allreduce", programs)
    for image in images[1:]:
        _add_hpcc(cluster, folder, root, programs, image)
    archive = folder / "programs.tar"
    pack = ("tar", "--create", "--file", archive, "--directory", programs.parent, programs.name)
    subprocess.run(pack, check=True)
    return archive


def _add_hpcc(
    cluster: Cluster, folder: Path, root: Path, programs: Path, image: DebianImage
) -> None:
    """HPC Challenge of the image of `sykube bench hpcc`, and its libraries that `root` lacks.

    Both images are of the same Debian, so the others are the same.
    """
    host, state = cluster.host, cluster.state
    builder = Builder(Path(state.engine), state.engine_environment)
    other = folder / "hpcc"
    sif.unpack(host, image.archive, other, folder, builder, shown=image.archive)
    program = "/usr/bin/hpcc"
    needed = libraries(subprocess.check_output(["chroot", other, "ldd", program], text=True))
    lacking = [each for each in needed.items() if not os.path.lexists(f"{root}{each[1]}")]
    (programs / "lib").mkdir()
    for name, path in [("hpcc", program), *((f"lib/{name}", path) for name, path in lacking)]:
        target = programs / name
        # In there, as links lead to others of that root.
        with target.open("wb") as file:
            subprocess.run(["chroot", other, "cat", path], stdout=file, check=True)
        target.chmod(0o755)


def libraries(said: str) -> dict[str, str]:
    """The paths of a program's libraries by their names, of what ldd says."""
    return dict(_LIBRARY.findall(said))
