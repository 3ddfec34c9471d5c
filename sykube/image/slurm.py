"""The container image of `sykube slurm`."""

from __future__ import annotations

from sykube import resources
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Layer
from sykube.image.debian_image import Recipe


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


RECIPE = Recipe(
    "Slurm", "sykube slurm image", versions.SLURM_IMAGE, layer, "slurm-images", "slurm.tar"
)
