"""The container images of Slurm: built where no cache has them, and given to nodes."""

from __future__ import annotations

from collections.abc import Callable

from sykube.cluster.commands import images
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import debian_image
from sykube.cluster.operations.opening import require_running
from sykube.image import containerd, slurm
from sykube.image.debian_image import DebianImage
from sykube.slurm.spec import SlurmSpec


def give(cluster: Cluster, spec: SlurmSpec, agrees: Callable[[str], bool]) -> None:
    """Give the nodes what they lack of a Slurm cluster's images, where these are of this sykube.

    Args:
        agrees: puts a question to the user, where one is to be built.

    Raises:
        SykubeError: an image cannot be built, or as of `require_loaded`.
    """
    for recipe in (slurm.RECIPE, slurm.COMPILERS):
        if recipe.name(cluster.host) in (spec.image, spec.login_image):
            found = debian_image.obtain(cluster.host, recipe, "", agrees, cluster.ui)
            require_loaded(cluster, found)


def require_loaded(cluster: Cluster, image: DebianImage) -> None:
    """Give the image to the nodes that lack it.

    Raises:
        SykubeError: a node does not run, or its containerd refuses the image.
    """
    require_running(cluster)
    missing = [node.name for node in cluster.nodes if image.name not in containerd.names(node)]
    if missing:
        images.load(cluster.host, cluster.name, [image.archive], missing, image.name, cluster.ui)
