"""Images of Debian's packages that are no part of a node image: built once, cached by content.

Who needs none of them has none: `sykube slurm` has one, `sykube bench` has two.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build
from sykube.image.build import Builder, Layer


@dataclass(frozen=True)
class DebianImage:
    """An image in a cache.

    Attributes:
        repository: what nodes know it as, without its tag.
        fingerprint: identifies what it was made from.
        archive: an OCI archive, or a SIF.
    """

    repository: str
    fingerprint: str
    archive: Path

    @property
    def name(self) -> str:
        """What nodes know it as."""
        return f"{self.repository}:{self.fingerprint}"


@dataclass(frozen=True)
class Recipe:
    """How one is made, and kept.

    Attributes:
        title: what it is of, for people.
        command: builds it, for people.
        repository: what nodes know it as, without its tag.
        layer: what it is built of, of a mirror in a state; empty where that is not known.
        folder: below the cache.
        file: in the folder that the layer keeps; empty where it makes a SIF.
    """

    title: str
    command: str
    repository: str
    layer: Callable[[Host, Mirror, str], Layer]
    folder: str
    file: str = ""

    def name(self, host: Host) -> str:
        """What nodes know the image of this sykube as, whether it is built or not."""
        return f"{self.repository}:{self._fingerprint(host)}"

    def cached(self, host: Host) -> DebianImage | None:
        """The image of this sykube, where a cache has it."""
        fingerprint = self._fingerprint(host)
        for cache in host.caches:
            image = self._image(cache / self.folder, fingerprint)
            if image.archive.exists():
                return image
        return None

    def create(
        self,
        host: Host,
        mirror: Mirror,
        state: str,
        builder: Builder,
        step: Callable[[str], AbstractContextManager[None]],
        note: Callable[[str], None],
        *,
        force: bool = False,
    ) -> DebianImage:
        """Build the image where the cache lacks it; those of other versions of sykube go.

        Args:
            state: the mirror's (Mirror.state); empty where it is not known.
            step: opens a step of the user interface.
            note: told each line of the build's output.
            force: build it again, with Debian's newest packages.

        Raises:
            SykubeError: the build failed; what was in the cache stays.
        """
        with build.locked_cache(host):
            if not force and (image := self.cached(host)):
                return image
            wanted = self.layer(host, mirror, state or secrets.token_hex(8))
            folder = host.cache / self.folder
            folder.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
            made = self._image(work, "made")
            try:
                # A SIF is built to its place, a folder in the place of one.
                if not self.file:
                    made.archive.parent.mkdir()
                target = made.archive.parent if self.file else made.archive
                with step(f"Building the image of {self.title}"):
                    build.build_layer(host, wanted, target, builder, note)
                made.archive.parent.chmod(0o755)
                for other in folder.iterdir():
                    if other != work:
                        shutil.rmtree(other)
                made.archive.parent.rename(folder / wanted.fingerprint)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return self._image(folder, wanted.fingerprint)

    def _image(self, folder: Path, fingerprint: str) -> DebianImage:
        archive = folder / fingerprint / (self.file or "image.sif")
        return DebianImage(self.repository, fingerprint, archive)

    def _fingerprint(self, host: Host) -> str:
        return self.layer(host, Mirror(""), "").fingerprint
