"""Container images that stand for a SIF: nodes mount it in the place of layers (runtime/sif.go)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from sykube.host.host import Host
from sykube.image import oci, sif
from sykube.image.oci import LAYER, MANIFEST, Blob, ContainerImage, Staging, made_manifest

_MARKER = ".sykube-sif"
# containerd looks a pod's user up in the image's layers, before a SIF is below them.
_USERS = ("passwd", "group")


def make(
    host: Host, name: str, folder: Path, kept: Blob, told: Mapping[str, str]
) -> ContainerImage:
    """The image of a SIF that lies in the store, with its parts in a folder.

    Args:
        name: of the image, in full.
        told: what a node tells of the SIF: texts of its labels, and of its users.
    """
    staging = Staging(folder)
    layer = staging.add(io.BytesIO(_layer(kept.digest.removeprefix("sha256:"), told)))
    config = staging.add_json(
        {
            "architecture": oci.machine(host),
            "os": "linux",
            "config": {
                "Entrypoint": [f"/{sif.RUN}"],
                "Labels": sif.labels(told.get("labels", "")),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }
    )
    manifest = staging.add_json(made_manifest(config, [(layer, LAYER)]))
    return ContainerImage(name, MANIFEST, manifest, config, (layer,), kept)


def _layer(digest: str, told: Mapping[str, str]) -> bytes:
    """A tar that is always the same of one SIF."""
    files = {_MARKER: f"{digest}\n"}
    files |= {f"etc/{name}": told[name] for name in _USERS if name in told}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        if len(files) > 1:
            above = tarfile.TarInfo("etc")
            above.type, above.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(above)
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            content = text.encode()
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()
