"""Container images in files: docker archives, OCI archives and OCI layouts.

What is read is copied to a folder, each part of an image (a blob) as a file named by its digest,
which is checked on the way; so nothing is given to a node that is not whole.
Sources: https://github.com/opencontainers/image-spec (image-layout.md) and, for docker archives,
https://github.com/moby/docker-image-spec.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from sykube.errors import UsageError
from sykube.host.files import unreadable
from sykube.host.host import Host
from sykube.image import oci, reference, zstandard
from sykube.image.oci import (
    LAYER,
    MANIFEST,
    NAME,
    Blob,
    ContainerImage,
    Readable,
    Staging,
    made_manifest,
)

_BUFFER = 1 << 20
# No manifest is larger: registries refuse them from 4 MiB on.
_JSON_MAX = 4 << 20
_REF_NAME = "org.opencontainers.image.ref.name"
# The compressions that a layer may have, by how it begins: media-types.md of the specification.
_PACKED = {b"\x1f\x8b": "gzip", zstandard.MAGIC: "zstd"}
_KINDS = "Take a docker archive, an OCI archive, the folder of an OCI layout, or a SIF."


class _Damaged(Exception):
    """What is wrong with a source; turned into one error for all kinds."""


def read(host: Host, source: Path, folder: Path) -> list[ContainerImage]:
    """The images of an archive or layout, with their parts in a folder.

    Raises:
        UsageError: it is none, is damaged or cut off, or has no image for this machine.
    """
    staging = Staging(folder)
    try:
        if source.is_dir():
            return _of_layout(host, source, staging)
        return _of_archive(host, source, staging)
    except OSError as error:
        raise unreadable(source, error) from error
    except (_Damaged, EOFError, tarfile.TarError, zlib.error, zstandard.Error) as error:
        raise UsageError(
            f"{source} is damaged or cut off",
            details=str(error),
            resolution="Create the file again.",
        ) from error


def _no_image(source: Path) -> UsageError:
    return UsageError(f"{source} is no container image", resolution=_KINDS)


def _of_layout(host: Host, source: Path, staging: Staging) -> list[ContainerImage]:
    if not (source / "oci-layout").is_file() or not (source / "index.json").is_file():
        raise _no_image(source)

    def blob(digest: str) -> Blob | None:
        known = staging.get(digest)
        file = source / "blobs" / digest.replace(":", "/", 1)
        if known or not file.is_file():
            return known
        with file.open("rb") as stream:
            return staging.add(stream)

    return _of_index(host, source, _json((source / "index.json").read_bytes()), blob)


def _of_archive(host: Host, source: Path, staging: Staging) -> list[ContainerImage]:
    members: dict[str, Blob] = {}
    links: dict[str, str] = {}
    with source.open("rb") as file, _open_tar(source, zstandard.unpacked(file)) as archive:
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
        return _of_index(host, source, _parsed(members["index.json"]), staging.get)
    if "manifest.json" in members:
        return _of_docker(_json(members["manifest.json"].file.read_bytes()), members, staging)
    if "oci-layout" in members or any(name.endswith("layer.tar") for name in members):
        raise _Damaged("the list of its images is missing")
    raise _no_image(source)


def _open_tar(source: Path, file: IO[bytes]) -> tarfile.TarFile:
    """A tar, which may be compressed or come through a pipe: then it is read from start to end."""
    for mode in ("r:", "r|*") if file.seekable() else ("r|*",):
        with contextlib.suppress(tarfile.TarError, EOFError, zlib.error):
            if file.seekable():
                file.seek(0)
            return tarfile.open(fileobj=file, mode=mode, bufsize=_BUFFER)
    raise _no_image(source)


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


def _of_index(
    host: Host, source: Path, index: Any, blob: Callable[[str], Blob | None]
) -> list[ContainerImage]:
    images: list[ContainerImage] = []
    others: dict[str, list[str]] = {}
    for entry in _list(index, "manifests"):
        annotations = entry.get("annotations") or {}
        if "vnd.docker.reference.type" in annotations:
            continue
        name = _name_of(source, annotations)
        platform = entry.get("platform") or {}
        if platform and not oci.is_platform_of_host(host, platform):
            others.setdefault(name, []).append(oci.platform_name(platform))
            continue
        if platform and any(image.name == name for image in images):
            continue
        manifest, parsed = _manifest(host, source, entry, blob)
        config = _need(parsed.get("config"), blob)
        architecture = _parsed(config).get("architecture", oci.machine(host))
        if architecture != oci.machine(host):
            others.setdefault(name, []).append(f"linux/{architecture}")
            continue
        layers = tuple(_need(each, blob) for each in _list(parsed, "layers"))
        media_type = parsed.get("mediaType") or MANIFEST
        images.append(ContainerImage(name, media_type, manifest, config, layers))
    found = {image.name for image in images}
    for name, platforms in others.items():
        # Entries without a name are further platforms of what another one names.
        if name not in found and (name or not found):
            raise _for_others(host, source, platforms)
    if not images:
        raise _no_image(source)
    return images


def _manifest(
    host: Host, source: Path, entry: Any, blob: Callable[[str], Blob | None]
) -> tuple[Blob, dict[str, Any]]:
    """The manifest that an entry of an index leads to, for this machine where it has several."""
    found = _need(entry, blob)
    parsed = _parsed(found)
    if "manifests" not in parsed:
        return found, parsed
    entries = _list(parsed, "manifests")
    chosen = oci.of_this_machine(host, entries)
    if chosen is None:
        raise _for_others(
            host, source, (oci.platform_name(e.get("platform") or {}) for e in entries)
        )
    return _manifest(host, source, chosen, blob)


def _for_others(host: Host, source: Path, platforms: Iterable[str]) -> UsageError:
    """The error for an image that this machine cannot run."""
    # Attestations have the platform unknown/unknown.
    named = sorted({each for each in platforms if each and not each.startswith("unknown")})
    return UsageError(
        f"the image in {source} is for {', '.join(named) or 'no platform'}",
        resolution=f"This machine needs one for linux/{oci.machine(host)}.",
    )


def _of_docker(listed: Any, members: dict[str, Blob], staging: Staging) -> list[ContainerImage]:
    """The images of a docker archive, each with a manifest made from what docker save wrote."""
    images = []
    for entry in _list({"images": listed}, "images"):
        config = _member(entry.get("Config"), members)
        layers = tuple(_member(name, members) for name in entry.get("Layers") or [])
        parsed = _parsed(config)
        diffs = (parsed.get("rootfs") or {}).get("diff_ids") or []
        kinds = [_compression(layer) for layer in layers]
        if len(diffs) != len(layers) or any(
            layer.digest != diff
            for layer, diff, packed in zip(layers, diffs, kinds, strict=True)
            if not packed
        ):
            raise _Damaged("its layers are not those that its configuration names")
        types = [f"{LAYER}+{packed}" if packed else LAYER for packed in kinds]
        manifest = staging.add_json(made_manifest(config, zip(layers, types, strict=True)))
        for tag in entry.get("RepoTags") or [""]:
            name = reference.full(tag) if tag else ""
            images.append(ContainerImage(name, MANIFEST, manifest, config, layers))
    if not images:
        raise _Damaged("manifest.json names no image")
    return images


def _name_of(source: Path, annotations: dict[str, str]) -> str:
    if name := annotations.get(NAME):
        return reference.full(name)
    name = annotations.get(_REF_NAME, "")
    # By the specification it is only a tag; some programs put the whole name there.
    if "/" in name or ":" in name:
        return reference.full(name)
    return reference.of_file(source, name) if name else ""


def _compression(blob: Blob) -> str:
    """How a layer is compressed; an empty text where it is not."""
    with blob.file.open("rb") as file:
        begin = file.read(max(map(len, _PACKED)))
    return next((name for magic, name in _PACKED.items() if begin.startswith(magic)), "")


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
