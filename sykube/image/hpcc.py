"""The image of `sykube bench hpcc`: a SIF, which this host, Apptainer and pods run alike."""

from __future__ import annotations

from sykube import resources
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Layer
from sykube.image.debian_image import Recipe

# In the image.
PROGRAM = "/usr/local/bin/hpcc-run"


def layer(host: Host, mirror: Mirror, state: str) -> Layer:
    folder = resources.folder("definitions") / "hpcc"
    return build.on_debian(
        host,
        mirror,
        state,
        "hpcc",
        "hpcc.def.j2",
        {"packages": versions.HPCC_PACKAGES, "hpcc_dir": folder, "program": PROGRAM},
        (("definitions/hpcc", folder),),
        is_sif=True,
    )


RECIPE = Recipe("HPC Challenge", "sykube bench image", versions.HPCC_IMAGE, layer, "hpcc-images")
