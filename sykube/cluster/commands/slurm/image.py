"""The container image of Slurm: built where no cache has it, and given to nodes that lack it."""

from __future__ import annotations

from collections.abc import Callable

from sykube.cluster.commands import images
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import debian_image
from sykube.cluster.operations.opening import require_running
from sykube.host.host import Host
from sykube.image import containerd, slurm
from sykube.image.debian_image import DebianImage
from sykube.ui import Ui


def obtain(
    host: Host, mirror: str, agrees: Callable[[str], bool], ui: Ui, *, force: bool = False
) -> DebianImage:
    """The image of this sykube: the cached one, or a new one; see debian_image.obtain."""
    return debian_image.obtain(host, slurm.RECIPE, mirror, agrees, ui, force=force)


def require_loaded(cluster: Cluster, image: DebianImage) -> None:
    """Give the image to the nodes that lack it.

    Raises:
        SykubeError: a node does not run, or its containerd refuses the image.
    """
    require_running(cluster)
    missing = [node.name for node in cluster.nodes if image.name not in containerd.names(node)]
    if missing:
        images.load(cluster.host, cluster.name, [image.archive], missing, image.name, cluster.ui)
