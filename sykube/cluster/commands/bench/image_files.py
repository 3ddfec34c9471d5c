"""A SIF that is run on this host, by `apptainer exec`, and in pods of some nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sykube import resources
from sykube.cluster.commands import images
from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.image import containerd, sif
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage
from sykube.node.node import Node

# Places outside of pods.
HOST, EXEC = "host", "exec"


@dataclass
class ImageFiles:
    """The files of a SIF, and how programs of it run outside of pods.

    Attributes:
        work: a folder of the host for what is unpacked; it is /tmp for what `exec` runs.
    """

    cluster: Cluster
    image: DebianImage
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

    def unpack(self, title: str, places: Collection[str]) -> None:
        """Have the files of the SIF for the host, where it is among the places.

        Args:
            title: of the image, for people.

        Raises:
            SykubeError: they cannot be unpacked.
        """
        if HOST not in places and not (EXEC in places and self._is_exec_of_folder):
            return
        with self.cluster.ui.step(f"Unpacking the image of {title}"):
            archive = self.image.archive
            sif.unpack(
                self.cluster.host, archive, self._root, self.work, self._builder, shown=archive
            )

    def command(self, place: str, program: Sequence[str]) -> list[str | Path]:
        """The command line of a program of the SIF in `host` or `exec`."""
        if place == HOST:
            script = resources.folder("definitions") / "hpcc/hpcc-host"
            return ["unshare", "--mount", "sh", script, self._root, *program]
        return [
            self._builder.binary, "--silent", "exec", "--cleanenv", "--no-home", "--no-mount",
            "cwd,bind-paths", "--bind", f"{self.work}:/tmp", "--pwd", "/tmp",
            self._root if self._is_exec_of_folder else self.image.archive, *program,
        ]  # fmt: skip

    def environment(self, place: str) -> Mapping[str, str] | None:
        """Variables of `command` there."""
        return self._builder.environment if place == EXEC else None


@contextlib.contextmanager
def loaded(cluster: Cluster, nodes: Sequence[Node], image: DebianImage) -> Iterator[None]:
    """The image in some nodes, and gone at the end from those that did not have it before."""
    lacking = [node.name for node in nodes if image.name not in containerd.names(node)]
    if not lacking:
        yield
        return
    images.load_into(cluster, [image.archive], lacking, image.name)
    try:
        yield
    except BaseException:
        # What went wrong first is what is to be said.
        with contextlib.suppress(SykubeError):
            images.delete_from(cluster, image.name, lacking)
        raise
    images.delete_from(cluster, image.name, lacking)
