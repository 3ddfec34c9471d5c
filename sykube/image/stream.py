"""The image of `sykube bench stream`: a SIF, which this host, Apptainer and pods run alike."""

from __future__ import annotations

from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Layer
from sykube.image.debian_image import Recipe


def layer(host: Host, mirror: Mirror, state: str) -> Layer:
    return build.on_debian(
        host,
        mirror,
        state,
        "stream",
        "stream.def.j2",
        {"packages": versions.STREAM_PACKAGES},
        (),
        is_sif=True,
    )


RECIPE = Recipe(
    "message brokers",
    "sykube bench image stream",
    versions.STREAM_IMAGE,
    layer,
    "stream-images",
)
