"""An image of Debian's packages: the cached one, or one that is built now."""

from __future__ import annotations

from collections.abc import Callable

from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import HostError
from sykube.host import apt
from sykube.host.host import Host
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage, Recipe
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
