"""The container image of Slurm: built where no cache has it, and given to nodes that lack it."""

from __future__ import annotations

from collections.abc import Callable

from sykube.cluster.commands import images
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import preparation
from sykube.cluster.operations.opening import require_running
from sykube.errors import HostError
from sykube.host import apt
from sykube.host.download import Downloader
from sykube.host.host import Host
from sykube.image import containerd, slurm
from sykube.image.build import Builder
from sykube.image.slurm import SlurmImage
from sykube.ui import Ui


def obtain(
    host: Host, mirror: str, agrees: Callable[[str], bool], ui: Ui, *, force: bool = False
) -> SlurmImage:
    """The image of this sykube: the cached one, or a new one.

    Args:
        mirror: of Debian, as --mirror has it; empty for the host's own.
        agrees: puts a question to the user, where packages are to be installed.
        force: build it again, with Debian's newest packages.

    Raises:
        HostError: the host lacks something, as user IDs for what is in the packages.
        SykubeError: it could not be built.
    """
    if not force and (image := slurm.cached(host)):
        return image
    if not host.grants.users:
        raise HostError(
            "building the image of Slurm needs more user IDs than one",
            resolution="Ask the administrator for: sykube slurm image"
            "\n  Or for user IDs of your own: the line is in `sykube doctor`",
        )
    spec = ClusterSpec(mirror=mirror)
    preparation.prepare_host(host, spec, agrees, ui, building=True, starting=False)
    engine = preparation.find_engine(host, spec, ui)
    chosen = apt.find_mirror(host, mirror)
    state = preparation.mirror_state(host, chosen, Downloader())
    builder = Builder(engine.binary, engine.environment)
    return slurm.create(host, chosen, state, builder, ui.step, ui.note, force=force)


def require_loaded(cluster: Cluster, image: SlurmImage) -> None:
    """Give the image to the nodes that lack it.

    Raises:
        SykubeError: a node does not run, or its containerd refuses the image.
    """
    require_running(cluster)
    missing = [node.name for node in cluster.nodes if image.name not in containerd.names(node)]
    if missing:
        images.load(cluster.host, cluster.name, [image.archive], missing, image.name, cluster.ui)
