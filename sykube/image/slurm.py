"""The container image of `sykube slurm`: built of Debian's packages once, cached by its content.

It is no part of a node image: who runs no Slurm need not have it.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sykube import resources
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Builder, Layer

_FOLDER = "slurm-images"
# Of what the definition leaves in its folder.
_ARCHIVE = "slurm.tar"


@dataclass(frozen=True)
class SlurmImage:
    """The image in a cache.

    Attributes:
        fingerprint: identifies what it was made from.
        archive: an OCI archive.
    """

    fingerprint: str
    archive: Path

    @property
    def name(self) -> str:
        """What nodes know it as."""
        return f"{versions.SLURM_IMAGE}:{self.fingerprint}"


def name(host: Host) -> str:
    """What nodes know the image of this sykube as, whether it is built or not."""
    return f"{versions.SLURM_IMAGE}:{layer(host, Mirror(''), '').fingerprint}"


def cached(host: Host) -> SlurmImage | None:
    """The image of this sykube, where a cache has it."""
    fingerprint = layer(host, Mirror(""), "").fingerprint
    for cache in host.caches:
        archive = cache / _FOLDER / fingerprint / _ARCHIVE
        if archive.exists():
            return SlurmImage(fingerprint, archive)
    return None


def create(
    host: Host,
    mirror: Mirror,
    state: str,
    builder: Builder,
    step: Callable[[str], AbstractContextManager[None]],
    note: Callable[[str], None],
    *,
    force: bool = False,
) -> SlurmImage:
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
        if not force and (image := cached(host)):
            return image
        wanted = layer(host, mirror, state or secrets.token_hex(8))
        folder = host.cache / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            with step("Building the image of Slurm"):
                build.build_layer(host, wanted, work / "made", builder, note)
            (work / "made").chmod(0o755)
            for other in folder.iterdir():
                if other != work:
                    shutil.rmtree(other)
            target = folder / wanted.fingerprint
            (work / "made").rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return SlurmImage(wanted.fingerprint, target / _ARCHIVE)


def layer(host: Host, mirror: Mirror, state: str) -> Layer:
    folder = resources.folder("definitions") / "slurm"
    return build.on_debian(
        host,
        mirror,
        state,
        "slurm",
        "slurm.def.j2",
        {
            "packages": versions.SLURM_PACKAGES,
            "repository": versions.SLURM_IMAGE,
            "slurm_dir": folder,
        },
        (("definitions/slurm", folder),),
        keeps="opt/container-images",
    )
