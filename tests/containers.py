"""Container images in files, written by hand: no program that makes them is needed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube.host.host import Host
from sykube.image import oci

INDEX = "application/vnd.oci.image.index.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: Mapping[str, bytes], mode: int = 0o755, group: int = 0) -> bytes:
    """A tar of some files, root's and of a group."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.gid = len(content), mode, group
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


@dataclass(frozen=True)
class Image:
    """An image in memory: its layers (tars) and what is in its configuration."""

    layers: Sequence[bytes]
    config: Mapping[str, Any]
    architecture: str = ""

    @property
    def configuration(self) -> bytes:
        return json.dumps(
            {
                "architecture": self.architecture or oci.machine(Host()),
                "os": "linux",
                "config": dict(self.config),
                "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in self.layers]},
            }
        ).encode()

    @property
    def id(self) -> str:
        return digest(self.configuration)

    @property
    def manifest(self) -> bytes:
        layers = [descriptor(each, oci.LAYER) for each in self.layers]
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "config": descriptor(self.configuration, oci.CONFIG),
                "layers": layers,
            }
        ).encode()

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Its parts by the names that they have in a layout."""
        parts = (*self.layers, self.configuration, self.manifest)
        return {f"blobs/{digest(each).replace(':', '/')}": each for each in parts}


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)} | more


def oci_files(image: Image, **annotations: str) -> dict[str, bytes]:
    """The files of an OCI layout; dots in names of annotations are written as two underscores."""
    notes = {key.replace("__", "."): value for key, value in annotations.items()}
    entry = descriptor(image.manifest, oci.MANIFEST, annotations=notes)
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **image.blobs,
    }


def oci_layout(folder: Path, image: Image, name: str) -> Path:
    for path, content in oci_files(image, io__containerd__image__name=name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def oci_archive(file: Path, image: Image, name: str) -> Path:
    file.write_bytes(tar(oci_files(image, io__containerd__image__name=name)))
    return file


def oci_archive_of(file: Path, images: Mapping[str, Image]) -> Path:
    """An archive of several images by their names."""
    found: dict[str, bytes] = {}
    entries = []
    for name, image in images.items():
        files = oci_files(image, io__containerd__image__name=name)
        entries += json.loads(files["index.json"])["manifests"]
        found |= files
    index = {"schemaVersion": 2, "manifests": entries}
    file.write_bytes(tar(found | {"index.json": json.dumps(index).encode()}))
    return file


def docker_files(image: Image, *tags: str) -> dict[str, bytes]:
    """The files of a docker archive, as docker save wrote it up to version 24."""
    configuration = f"{image.id.removeprefix('sha256:')}.json"
    names = [f"{digest(each).removeprefix('sha256:')}/layer.tar" for each in image.layers]
    entry = {"Config": configuration, "RepoTags": list(tags) or None, "Layers": names}
    return {
        configuration: image.configuration,
        **dict(zip(names, image.layers, strict=True)),
        "manifest.json": json.dumps([entry]).encode(),
    }


def docker_archive(file: Path, image: Image, *tags: str) -> Path:
    file.write_bytes(tar(docker_files(image, *tags)))
    return file
