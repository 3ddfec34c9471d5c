"""OCI images: a manifest, a configuration and layers, each a file on this host.

Source: https://github.com/opencontainers/image-spec (manifest.md, image-index.md)
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sykube.host.host import Host

_BLOCK = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
# The annotation by which containerd names an image in an archive.
NAME = "io.containerd.image.name"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The variants that every such machine runs, and the only ones that containerd takes by itself: of
# amd64 it never looks for more than v1. Source: github.com/containerd/platforms, compare.go
# (platformVector), database.go (normalizeArch), defaults_unix.go.
_VARIANTS = {"amd64": ("", "v1"), "arm64": ("", "8", "v8", "v8.0")}


@dataclass(frozen=True)
class Blob:
    """A part of an image: its digest (sha256:…), bytes, and the file that holds it."""

    digest: str
    size: int
    file: Path

    def descriptor(self, media_type: str) -> dict[str, Any]:
        """How a manifest names it."""
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class ContainerImage:
    """An image whose parts are all there.

    Attributes:
        name: in full, as nodes know it; empty where the file does not say.
        media_type: of its manifest.
        config: its digest is what Kubernetes calls the image's ID.
        kept: the SIF that it stands for.
    """

    name: str
    media_type: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    kept: Blob | None = None

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def id(self) -> str:
        return self.config.digest

    @property
    def parts(self) -> tuple[Blob, ...]:
        """What nodes are given of it."""
        return self.manifest, self.config, *self.layers

    @property
    def size(self) -> int:
        """Bytes of its configuration and layers, compressed where they are, or of its SIF."""
        kept = [self.kept] if self.kept else []
        return sum(blob.size for blob in (self.config, *self.layers, *kept))


class Readable(Protocol):
    """What can be read in blocks, up to an empty one."""

    def read(self, size: int, /) -> bytes: ...


class Staging:
    """Parts of images in a folder, each under its digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs: dict[str, Blob] = {}

    def add(self, stream: Readable) -> Blob:
        """Copy a part; its digest is what it holds."""
        temporary = self._folder / ".part"
        digester, size = hashlib.sha256(), 0
        with temporary.open("wb") as file:
            while block := stream.read(_BLOCK):
                digester.update(block)
                size += file.write(block)
        return self._keep(temporary, digester.hexdigest(), size)

    def adopt(self, file: Path) -> Blob:
        """Take a file of the same file system over as a part."""
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._keep(file, digest, file.stat().st_size)

    def add_json(self, value: Any) -> Blob:
        return self.add(io.BytesIO(json.dumps(value, sort_keys=True).encode()))

    def get(self, digest: str) -> Blob | None:
        return self._blobs.get(digest)

    def _keep(self, file: Path, digest: str, size: int) -> Blob:
        blob = Blob(f"sha256:{digest}", size, self._folder / digest)
        file.chmod(0o444)
        file.replace(blob.file)
        self._blobs[blob.digest] = blob
        return blob


def machine(host: Host) -> str:
    return _ARCHITECTURES.get(host.machine(), host.machine())


def of_this_machine(host: Host, entries: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry of an index whose image is for Linux on this machine, or nothing."""
    for entry in entries:
        if is_platform_of_host(host, entry.get("platform") or {}):
            return entry
    return None


def is_platform_of_host(host: Host, platform: Mapping[str, Any]) -> bool:
    """Whether this machine runs images of a platform, as an index names it."""
    return (
        platform.get("os") == "linux"
        and platform.get("architecture") == machine(host)
        and (platform.get("variant") or "") in _VARIANTS.get(machine(host), ("",))
    )


def platform_name(platform: Mapping[str, Any]) -> str:
    """A platform as users write it, such as linux/amd64/v3."""
    parts = (platform.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(str(part) for part in parts if part)


def made_manifest(config: Blob, layers: Iterable[tuple[Blob, str]]) -> dict[str, Any]:
    """The manifest of an image that had none.

    Args:
        layers: each with its media type.
    """
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(CONFIG),
        "layers": [layer.descriptor(kind) for layer, kind in layers],
    }
