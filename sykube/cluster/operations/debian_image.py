"""An image of Debian's packages: the cached one, or one that is built now; and as an archive."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import HostError, UsageError
from sykube.host import apt, engines, files, space
from sykube.host.host import Host
from sykube.image import archive, sif
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage, Recipe
from sykube.image.oci import ContainerImage
from sykube.ui import Ui


def obtain(
    host: Host,
    recipe: Recipe,
    mirror: str,
    agrees: Callable[[str], bool],
    ui: Ui,
    *,
    force: bool = False,
) -> DebianImage:
    """The image of this sykube: the cached one, or a new one.

    Args:
        mirror: of Debian, as --mirror has it; empty for the host's own.
        agrees: puts a question to the user, where packages are to be installed.
        force: build it again, with Debian's newest packages.

    Raises:
        HostError: the host lacks something, as user IDs for what is in the packages.
        SykubeError: it could not be built.
    """
    if not force and (image := recipe.cached(host)):
        return image
    if not host.grants.users:
        raise HostError(
            f"building the image of {recipe.title} needs more user IDs than one",
            resolution=f"Ask the administrator for: {recipe.command}"
            "\n  Or for user IDs of your own: the line is in `sykube doctor`",
        )
    # Not above: most commands that know the image build none, and what downloads takes longer to
    # import than all the rest of them.
    from sykube.cluster.operations import preparation
    from sykube.host.download import Downloader

    spec = ClusterSpec(mirror=mirror)
    preparation.prepare_host(host, spec, agrees, ui, building=True, starting=False)
    engine = preparation.find_engine(host, spec, ui)
    chosen = apt.find_mirror(host, mirror)
    state = preparation.mirror_state(host, chosen, Downloader())
    builder = Builder(engine.binary, engine.environment)
    return recipe.create(host, chosen, state, builder, ui.step, ui.note, force=force)


@contextlib.contextmanager
def converted(host: Host, image: DebianImage, ui: Ui) -> Iterator[ContainerImage]:
    """The container image of a SIF, in a folder that is gone at the end.

    Raises:
        HostError: there is no engine that reads the SIF.
        SykubeError: it cannot be unpacked.
    """
    engine = engines.find_for_files(host)
    builder = Builder(engine.binary, engine.environment)
    temporary = host.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="archive-", dir=temporary) as work:
        with ui.step(f"Unpacking {image.name}"):
            made = sif.convert(host, image.archive, image.name, Path(work), builder)
        yield made


def save(host: Host, image: ContainerImage, file: Path) -> None:
    """Write a container image as an archive; what was there stays until it is finished.

    Raises:
        UsageError: the file cannot be written.
        SykubeError: the disk is too small.
    """
    space.require(host, file.absolute().parent, image.size)
    # What is no file, such as a pipe, is the user's.
    in_place = file.exists() and not file.is_file()
    try:
        with (
            contextlib.nullcontext(file) if in_place else files.replaced(file.resolve()) as place,
            place.open("wb") as stream,
        ):
            archive.write(image, stream)
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {error.strerror or error}",
            resolution="Give a file that you can write, on a disk with room for it.",
        ) from error
