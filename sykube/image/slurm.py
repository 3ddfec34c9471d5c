"""The container images of `sykube slurm`: that of all its pods, and the same with compilers."""

from __future__ import annotations

from sykube import resources
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Layer
from sykube.image.debian_image import Recipe


def layer(host: Host, mirror: Mirror, state: str) -> Layer:
    return _layer(host, mirror, state, versions.SLURM_IMAGE)


def compilers_layer(host: Host, mirror: Mirror, state: str) -> Layer:
    compilers = versions.SLURM_COMPILERS_PACKAGES
    return _layer(host, mirror, state, versions.SLURM_COMPILERS_IMAGE, compilers)


def _layer(
    host: Host, mirror: Mirror, state: str, repository: str, compilers: tuple[str, ...] = ()
) -> Layer:
    folder = resources.folder("definitions") / "slurm"
    name = repository.rpartition("/")[2]
    return build.on_debian(
        host,
        mirror,
        state,
        name,
        "slurm.def.j2",
        {
            "packages": (*versions.SLURM_PACKAGES, *compilers),
            "compilers": bool(compilers),
            "repository": repository,
            "slurm_dir": folder,
        },
        (("definitions/slurm", folder),),
        keeps="opt/container-images",
    )


RECIPE = Recipe(
    "Slurm", "sykube slurm image", versions.SLURM_IMAGE, layer, "slurm-images", "slurm.tar"
)
COMPILERS = Recipe(
    "Slurm with compilers",
    "sykube slurm image --compilers",
    versions.SLURM_COMPILERS_IMAGE,
    compilers_layer,
    "slurm-compilers-images",
    "slurm-compilers.tar",
)
