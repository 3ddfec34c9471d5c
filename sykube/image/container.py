"""Container images in files: docker archives, OCI archives and OCI layouts.

What is read is copied to a folder, each part of an image (a blob) as a file named by its digest,
which is checked on the way; so nothing is given to a node that is not whole.
Sources: https://github.com/opencontainers/image-spec (image-layout.md, manifest.md) and, for docker
archives, https://github.com/moby/docker-image-spec.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from sykube.errors import UsageError
from sykube.image import reference

_BLOCK = 1 << 20
# No manifest is larger: registries refuse them from 4 MiB on.
_JSON_MAX = 4 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_GZIP = b"\x1f\x8b"
_KINDS = "Take a docker archive, an OCI archive, the folder of an OCI layout, or a SIF."


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
    """

    name: str
    media_type: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def id(self) -> str:
        return self.config.digest

    @property
    def parts(self) -> tuple[Blob, ...]:
        return self.manifest, self.config, *self.layers

    @property
    def size(self) -> int:
        """Bytes of its configuration and layers, compressed where they are."""
        return sum(blob.size for blob in (self.config, *self.layers))


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


class _Damaged(Exception):
    """What is wrong with a source; turned into one error for all kinds."""


def read(source: Path, folder: Path) -> list[ContainerImage]:
    """The images of an archive or layout, with their parts in a folder.

    Raises:
        UsageError: it is none, is damaged or cut off, or has no image for this machine.
    """
    staging = Staging(folder)
    try:
        if source.is_dir():
            return _of_layout(source, staging)
        return _of_archive(source, staging)
    except OSError as error:
        raise UsageError(
            f"cannot read {source}: {error.strerror or error}",
            resolution="Let root read it, or copy it to where root can.",
        ) from error
    except (_Damaged, EOFError, tarfile.TarError, zlib.error) as error:
        raise UsageError(
            f"{source} is damaged or cut off", details=str(error), resolution="Make it anew."
        ) from error


def machine() -> str:
    """This machine's architecture, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def no_image(source: Path) -> UsageError:
    """The error for a file that holds no image."""
    return UsageError(f"{source} is no container image", resolution=_KINDS)


def _of_layout(source: Path, staging: Staging) -> list[ContainerImage]:
    if not (source / "oci-layout").is_file() or not (source / "index.json").is_file():
        raise no_image(source)

    def blob(digest: str) -> Blob | None:
        known = staging.get(digest)
        file = source / "blobs" / digest.replace(":", "/", 1)
        if known or not file.is_file():
            return known
        with file.open("rb") as stream:
            return staging.add(stream)

    return _of_index(source, _json((source / "index.json").read_bytes()), blob)


def _of_archive(source: Path, staging: Staging) -> list[ContainerImage]:
    members: dict[str, Blob] = {}
    links: dict[str, str] = {}
    with source.open("rb") as file, _open_tar(source, file) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile():
                members[name] = staging.add(_content(archive, member, file))
            elif member.issym():
                # An old docker save: a layer that two images share.
                links[name] = _joined(name, member.linkname)
            elif member.islnk():
                links[name] = member.linkname.removeprefix("./")
    members |= {name: members[target] for name, target in links.items() if target in members}
    if "index.json" in members and "oci-layout" in members:
        return _of_index(source, _parsed(members["index.json"]), staging.get)
    if "manifest.json" in members:
        return _of_docker(_json(members["manifest.json"].file.read_bytes()), members, staging)
    if "oci-layout" in members or any(name.endswith("layer.tar") for name in members):
        raise _Damaged("the list of its images is missing")
    raise no_image(source)


def _open_tar(source: Path, file: IO[bytes]) -> tarfile.TarFile:
    """A tar, which may be compressed or come through a pipe: then it is read from start to end."""
    for mode in ("r:", "r|*") if file.seekable() else ("r|*",):
        with contextlib.suppress(tarfile.TarError, EOFError, zlib.error):
            if file.seekable():
                file.seek(0)
            return tarfile.open(fileobj=file, mode=mode, bufsize=_BLOCK)
    raise no_image(source)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, file: IO[bytes]) -> Readable:
    if archive.mode == "r" and isinstance(archive.fileobj, io.BufferedReader):
        return _Section(file.fileno(), member.offset_data, member.size)
    stream = archive.extractfile(member)
    assert stream is not None
    return stream


class _Section:
    """A part of a file, read without a detour through tarfile's buffers."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._position, self._left = descriptor, start, size

    def read(self, size: int) -> bytes:
        block = os.pread(self._descriptor, min(size, self._left), self._position)
        if not block and self._left:
            raise _Damaged("it ends too early")
        self._position += len(block)
        self._left -= len(block)
        return block


def _joined(name: str, link: str) -> str:
    parts = name.split("/")[:-1]
    for part in link.split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _of_index(source: Path, index: Any, blob: Callable[[str], Blob | None]) -> list[ContainerImage]:
    """The images of an OCI layout."""
    images = []
    for entry in _list(index, "manifests"):
        annotations = entry.get("annotations") or {}
        if "vnd.docker.reference.type" in annotations:
            continue
        manifest, parsed = _manifest(entry, blob)
        config = _need(parsed.get("config"), blob)
        _require_machine(source, _parsed(config))
        layers = tuple(_need(each, blob) for each in _list(parsed, "layers"))
        media_type = parsed.get("mediaType") or MANIFEST
        name = _name_of(source, annotations)
        images.append(ContainerImage(name, media_type, manifest, config, layers))
    if not images:
        raise no_image(source)
    return images


def _manifest(entry: Any, blob: Callable[[str], Blob | None]) -> tuple[Blob, dict[str, Any]]:
    """The manifest that an entry of an index leads to, for this machine where it has several."""
    found = _need(entry, blob)
    parsed = _parsed(found)
    if "manifests" not in parsed:
        return found, parsed
    wanted = {"os": "linux", "architecture": machine()}
    for each in _list(parsed, "manifests"):
        platform_ = each.get("platform") or {}
        if all(platform_.get(key) == value for key, value in wanted.items()):
            return _manifest(each, blob)
    raise _Damaged(f"it has no image for linux/{machine()}")


def _of_docker(listed: Any, members: dict[str, Blob], staging: Staging) -> list[ContainerImage]:
    """The images of a docker archive, each with a manifest made from what docker save wrote."""
    images = []
    for entry in _list({"images": listed}, "images"):
        config = _member(entry.get("Config"), members)
        layers = tuple(_member(name, members) for name in entry.get("Layers") or [])
        parsed = _parsed(config)
        diffs = (parsed.get("rootfs") or {}).get("diff_ids") or []
        kinds = [_is_gzip(layer) for layer in layers]
        if len(diffs) != len(layers) or any(
            layer.digest != diff
            for layer, diff, packed in zip(layers, diffs, kinds, strict=True)
            if not packed
        ):
            raise _Damaged("its layers are not those that its configuration names")
        manifest = staging.add_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(CONFIG),
                "layers": [
                    layer.descriptor(f"{LAYER}+gzip" if packed else LAYER)
                    for layer, packed in zip(layers, kinds, strict=True)
                ],
            }
        )
        for tag in entry.get("RepoTags") or [""]:
            name = reference.full(tag) if tag else ""
            images.append(ContainerImage(name, MANIFEST, manifest, config, layers))
    if not images:
        raise _Damaged("manifest.json names no image")
    return images


def _name_of(source: Path, annotations: dict[str, str]) -> str:
    if name := annotations.get(_NAME):
        return reference.full(name)
    name = annotations.get(_REF_NAME, "")
    # By the specification it is a tag alone; some programs put the whole name there.
    if "/" in name or ":" in name:
        return reference.full(name)
    return reference.of_file(source, name) if name else ""


def _require_machine(source: Path, config: dict[str, Any]) -> None:
    is_for = config.get("architecture", machine())
    if is_for != machine():
        raise UsageError(
            f"the image in {source} is for {is_for}",
            resolution=f"This machine needs one for {machine()}.",
        )


def _is_gzip(blob: Blob) -> bool:
    with blob.file.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _need(descriptor: Any, blob: Callable[[str], Blob | None]) -> Blob:
    if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
        raise _Damaged("a part of it has no digest")
    digest = descriptor["digest"]
    found = blob(digest)
    if found is None:
        raise _Damaged(f"its part {digest} is missing")
    if found.digest != digest:
        raise _Damaged(f"its part {digest} holds something else")
    return found


def _member(name: Any, members: dict[str, Blob]) -> Blob:
    if name not in members:
        raise _Damaged(f"its part {name} is missing")
    return members[name]


def _list(value: Any, key: str) -> list[dict[str, Any]]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _Damaged(f"its list of {key} is missing")
    return found


def _parsed(blob: Blob) -> dict[str, Any]:
    if blob.size > _JSON_MAX:
        raise _Damaged(f"its part {blob.digest} is too large")
    found = _json(blob.file.read_bytes())
    if not isinstance(found, dict):
        raise _Damaged(f"its part {blob.digest} is no JSON object")
    return found


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _Damaged(f"a part of it is no JSON: {error}") from error
