"""The container images that containerd of a node has."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube import resources
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import archive, oci
from sykube.image.oci import Blob, ContainerImage
from sykube.node.node import Node

_TIMEOUT_S = 1800.0
_ATTEMPTS = 2
_WORK = "/var/lib/containerd/.load"


@dataclass(frozen=True)
class Target:
    """What a name stands for in a node: its digest, and that of its configuration, the ID.

    Attributes:
        size: bytes of its configuration and layers, compressed where they are.
        layers: their digests.
    """

    digest: str
    id: str
    size: int
    layers: tuple[str, ...]


def names(node: Node) -> dict[str, str]:
    """The names of the images that a node has, and the digest that each stands for.

    IDs (sha256:…) are names, too.
    """
    listed = node.run(["ctr", "images", "list"]).stdout.splitlines()[1:]
    return {words[0]: words[2] for line in listed if len(words := line.split()) > 2}


def targets(host: Host, node: Node, digests: Sequence[str]) -> dict[str, Target]:
    """What some digests stand for; those that the node lacks a part of are left out."""
    return {
        digest: Target(
            digest,
            manifest["config"]["digest"],
            sum(int(part["size"]) for part in _parts(manifest)),
            tuple(part["digest"] for part in manifest.get("layers", [])),
        )
        for digest, (_, manifest) in _manifests(host, node, digests).items()
    }


def detach(host: Host, node: Node, digests: Sequence[str]) -> None:
    """Make copies of what images share with the node image, so that they last without it.

    Raises:
        CommandError: the disk is full.
    """
    wanted: dict[str, None] = {}
    for digest, (chosen, manifest) in _manifests(host, node, digests).items():
        wanted |= dict.fromkeys((digest, chosen, *(part["digest"] for part in _parts(manifest))))
    if wanted:
        parts = [digest.removeprefix("sha256:") for digest in wanted]
        node.run(resources.script("detach-content", *parts), timeout=_TIMEOUT_S)


def load(node: Node, image: ContainerImage) -> None:
    """Give a node an image, unpacked, as the kubelet uses it.

    Its layers become links to the same files: they take their place on the disk once for all nodes.

    Raises:
        CommandError: containerd does not take it; what it took is removed by its garbage collector.
    """
    remove_work(node)
    try:
        # Images hold the same empty layer several times.
        for file in {layer.file for layer in image.layers}:
            node.push(file, f"{_WORK}/{file.name}", shared=True)
        index = io.BytesIO()
        archive.write(image, index, layers=False)
        node.push(index.getvalue(), f"{_WORK}/index.tar")
        command = resources.script("load-image", _WORK, image.id, image.name)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                node.run(command, timeout=_TIMEOUT_S)
                return
            except CommandError as error:
                if attempt == _ATTEMPTS or "not found" not in error.output:
                    raise
    finally:
        remove_work(node)


def stored(
    host: Host, root: Path, wanted: Mapping[str, str]
) -> tuple[list[ContainerImage], list[str]]:
    """Images that lie in a containerd's folder on this host; none needs to run there.

    Args:
        wanted: names, and the digest that each stands for.

    Returns:
        The images, and the names of those that lack a part.
    """
    blobs = root / "io.containerd.content.v1.content/blobs/sha256"
    found, missing = [], []
    for name, digest in wanted.items():
        try:
            found.append(_stored(host, blobs, name, digest))
        except (OSError, ValueError, KeyError, TypeError):
            missing.append(name)
    return found, missing


def _stored(host: Host, blobs: Path, name: str, digest: str) -> ContainerImage:
    def blob(digest: str) -> Blob:
        # Those of the node image are links into it, which lead nowhere here.
        file = blobs / digest.removeprefix("sha256:")
        return Blob(digest, file.stat().st_size, file)

    manifest = blob(digest)
    parsed = json.loads(manifest.file.read_text(encoding="utf-8"))
    if entry := oci.of_this_machine(host, parsed.get("manifests") or []):
        manifest = blob(entry["digest"])
        parsed = json.loads(manifest.file.read_text(encoding="utf-8"))
    return ContainerImage(
        name,
        parsed.get("mediaType") or oci.MANIFEST,
        manifest,
        blob(parsed["config"]["digest"]),
        tuple(blob(layer["digest"]) for layer in parsed["layers"]),
    )


def remove_work(node: Node) -> None:
    """Remove what a load that was killed has left in the node's folder."""
    node.discard(_WORK)


def remove(node: Node, references: Sequence[str]) -> None:
    """Remove names of images, and what no other name stands for."""
    node.run(["ctr", "images", "rm", "--sync", *references])


def _manifests(
    host: Host, node: Node, digests: Sequence[str]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """The manifest for this machine of what some digests stand for, and its own digest."""
    read = _read(node, digests)
    chosen: dict[str, str] = {}
    for digest, value in read.items():
        # An image of several architectures, as registries have them.
        if entry := oci.of_this_machine(host, value.get("manifests") or []):
            chosen[digest] = str(entry["digest"])
    read |= _read(node, chosen.values())
    pairs = {digest: chosen.get(digest, digest) for digest in digests}
    return {digest: (of, read[of]) for digest, of in pairs.items() if "config" in read.get(of, {})}


def _parts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The configuration of an image, and its layers."""
    return [manifest["config"], *manifest.get("layers", [])]


def _read(node: Node, digests: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The manifests of some digests, as far as the node has them."""
    wanted = [digest.removeprefix("sha256:") for digest in digests]
    if not wanted:
        return {}
    lines = iter(node.run(resources.script("read-content", *wanted)).stdout.splitlines())
    return {
        f"sha256:{digest}": json.loads(manifest)
        for digest, manifest in zip(lines, lines, strict=True)
    }
