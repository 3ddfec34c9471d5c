"""Export the container images in a node image, to load them into nodes running an older image."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sykube import resources
from sykube.host.host import Host
from sykube.image import inside, layout
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.image.oci import ContainerImage

_TIMEOUT_S = 600.0
_ARCHIVE = "images.tar"


def container_images(
    host: Host, image: NodeImage, names: Sequence[str], folder: Path, builder: Builder
) -> list[ContainerImage]:
    """Some of the container images of a node image, with their parts in a folder.

    Raises:
        SykubeError: it does not have them.
    """
    if not names:
        return []
    store = folder / "store"
    try:
        store.mkdir()
        shutil.copy(resources.folder("definitions") / "node/seed-containerd", store)
        command = resources.script("export-images", *names)
        inside.run_in(host, image.sif, command, folder, builder, timeout=_TIMEOUT_S)
    finally:
        shutil.rmtree(store, ignore_errors=True)
    try:
        return layout.read(host, folder / _ARCHIVE, folder)
    finally:
        (folder / _ARCHIVE).unlink()


def tools(host: Host, image: NodeImage, folder: Path, builder: Builder) -> None:
    """Put a node image's kubeadm and its folder kubeadm-patches into a folder.

    Raises:
        CommandError: the image cannot be read.
    """
    command = ["cp", "-r", "/usr/bin/kubeadm", "/usr/share/sykube/kubeadm-patches", "/mnt/"]
    inside.run_in(host, image.sif, command, folder, builder, timeout=_TIMEOUT_S)
