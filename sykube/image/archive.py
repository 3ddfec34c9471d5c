"""Container images as archives, which containerd, Docker and Podman import.

An OCI layout (image-spec, image-layout.md), and beside it the file by which programs that know only
Docker's archives find the same parts (github.com/moby/moby, image/spec/v1.2.md).
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import IO, Any

from sykube.image import oci
from sykube.image.oci import Blob, ContainerImage


def write(image: ContainerImage, file: IO[bytes], *, layers: bool = True) -> None:
    """Write an image under its name.

    Args:
        layers: whether they are part of it: containerd may have them already.

    Raises:
        OSError: the disk is full.
    """
    entry = image.manifest.descriptor(image.media_type)
    described: dict[str, Any] = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {
            "schemaVersion": 2,
            "manifests": [entry | {"annotations": {oci.NAME: image.name}}],
        },
    }
    parts = [image.manifest, image.config]
    if layers:
        # Images hold the same empty layer several times.
        parts += dict.fromkeys(image.layers)
        described["manifest.json"] = [
            {
                "Config": _place(image.config),
                "RepoTags": [image.name],
                "Layers": [_place(layer) for layer in image.layers],
            }
        ]
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, value in described.items():
            content = json.dumps(value).encode()
            _add(tar, name, len(content), io.BytesIO(content))
        for part in parts:
            with part.file.open("rb") as content_of_part:
                _add(tar, _place(part), part.size, content_of_part)


def _place(blob: Blob) -> str:
    return f"blobs/{blob.digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, content)
