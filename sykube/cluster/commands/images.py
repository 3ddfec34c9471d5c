"""Container images of a running cluster: given to its nodes, listed and removed."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import sifs
from sykube.cluster.operations.opening import opened, require_awake, require_running
from sykube.errors import SykubeError, UsageError
from sykube.host import space, tar
from sykube.host.files import unreadable
from sykube.host.host import Host
from sykube.image import containerd, layout, reference, sif
from sykube.image.oci import ContainerImage
from sykube.kubernetes import readiness
from sykube.kubernetes.api import Api
from sykube.node.node import Node
from sykube.ui import Ui, duration

# In the cluster's folder, so that parts of images can be linked from there to its nodes.
_WORK = ".images-"
_SOURCES = "Give a docker archive, an OCI archive or layout, or a SIF."


@dataclass(frozen=True)
class Loaded:
    """What became of an image: the nodes that were given it, and those that had it already."""

    name: str
    digest: str
    id: str
    size: int
    loaded: tuple[str, ...]
    present: tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """An image and the nodes that have it; `name` is empty where it has none."""

    name: str
    digest: str
    id: str
    size: int
    nodes: tuple[str, ...]


def load(
    host: Host, name: str, sources: Sequence[Path], nodes: Sequence[str], wanted: str, ui: Ui
) -> list[Loaded]:
    """Give images to nodes of a cluster, once for each digest; see `load_into`.

    Raises:
        UsageError: a source is no whole image, or there is no such node; nothing was changed.
        SykubeError: a node does not run, the disk is too small, or containerd refused an image.
    """
    chosen = reference.full(wanted) if wanted else ""
    with opened(host, name, ui, updating=True) as cluster:
        return load_into(cluster, sources, nodes, chosen)


def load_into(
    cluster: Cluster, sources: Sequence[Path], nodes: Sequence[str], wanted: str
) -> list[Loaded]:
    """Give images to nodes of a cluster that is held.

    Args:
        sources: docker archives, OCI archives, OCI layouts, SIFs.
        nodes: names of nodes, or none for all.
        wanted: the name that the image gets, in full; there must be one image then.

    Raises:
        UsageError: a source is no whole image, or there is no such node; nothing was changed.
        SykubeError: a node does not run, the disk is too small, or containerd refused an image.
    """
    found = _running(cluster, nodes)
    for source in sources:
        _check_there(source)
    _remove_work(cluster)
    # Once in the cluster's folder, and unpacked in each node; SIFs say it themselves.
    archives = [source for source in sources if not sif.is_sif(source)]
    needed = sum(tar.size_of(source, ["."]) for source in archives) * (1 + len(found))
    space.require(cluster.host, cluster.paths.root, needed)
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=cluster.paths.root))
    try:
        images: dict[tuple[str, str], ContainerImage] = {}
        with ThreadPoolExecutor() as pool:
            # It is over long before a large file was read.
            had = pool.map(containerd.names, found)
            for source in sources:
                with cluster.ui.step(f"Reading {source.name}"):
                    for image in _read(cluster, found, source, wanted, work):
                        images[image.name, image.digest] = image
            _check_names(list(images.values()))
            having = [*zip(found, had, strict=True)]
        loaded = [_load(cluster, image, having) for image in images.values()]
        # A name may have stood for another one until now.
        sifs.prune(cluster, [*images.values()])
        return loaded
    finally:
        shutil.rmtree(work, ignore_errors=True)


def listing(host: Host, name: str, ui: Ui) -> list[Listed]:
    """The images of the nodes that run, by name.

    Raises:
        SykubeError: none runs (STOPPED).
    """
    cluster = lookup.load(host, name, ui)
    nodes = cluster.running()
    if not nodes:
        cluster.running_control_plane()
    require_awake(cluster, nodes)
    if missing := [node.name for node in cluster.nodes if node not in nodes]:
        ui.warn(f"{', '.join(missing)} does not run, so its images are not listed")
    places: dict[tuple[str, str], list[str]] = {}
    known: dict[str, containerd.Target] = {}
    for node in nodes:
        names = containerd.names(node)
        unknown = {*names.values()} - {*known}
        known |= containerd.targets(host, node, sorted(unknown))
        named = {digest for each, digest in names.items() if not reference.is_id(each)}
        for each, digest in names.items():
            if not reference.is_id(each):
                places.setdefault((each, digest), []).append(node.name)
            elif digest not in named:
                places.setdefault(("", digest), []).append(node.name)
    beside = sifs.sizes(cluster)

    def size(target: containerd.Target) -> int:
        return target.size + sum(beside.get(layer, 0) for layer in target.layers)

    return [
        Listed(image, digest, known[digest].id, size(known[digest]), tuple(where))
        for (image, digest), where in sorted(places.items())
        if digest in known
    ]


def delete(host: Host, name: str, image: str, nodes: Sequence[str], ui: Ui) -> list[str]:
    """Remove an image from nodes of a cluster; see `delete_from`.

    Raises:
        UsageError: no node has it, it came with the node image, or there is no such node.
        SykubeError: a pod uses it, or a node does not run; nothing was changed.
    """
    wanted = image if reference.is_id(image) else reference.full(image)
    with opened(host, name, ui, updating=True) as cluster:
        return delete_from(cluster, wanted, nodes)


def delete_from(cluster: Cluster, wanted: str, nodes: Sequence[str]) -> list[str]:
    """Remove an image from nodes of a cluster that is held.

    Args:
        wanted: its name in full, or its ID (sha256:…): then all its names.
        nodes: names of nodes, or none for all.

    Returns:
        The nodes that had it.

    Raises:
        UsageError: no node has it, it came with the node image, or there is no such node.
        SykubeError: a pod uses it, or a node does not run; nothing was changed.
    """
    found = _running(cluster, nodes)
    going: dict[str, list[str]] = {}
    for node in found:
        if references := _going(containerd.names(node), wanted):
            going[node.name] = references
    if not going:
        where = f"on {', '.join(nodes)}" if nodes else f"in the cluster {cluster.name}"
        raise UsageError(
            f"there is no image {wanted} {where}",
            resolution=f"See: sykube image list{cluster.name_option}",
        )
    own = {*cluster.image.container_images()}
    if own & {each for references in going.values() for each in references}:
        raise UsageError(
            f"{wanted} is part of the node image, and the cluster needs it",
            resolution="Images that were loaded can be removed.",
        )
    having = [node for node in found if node.name in going]
    with cluster.api() as api:
        _require_unused(api, having, {each for refs in going.values() for each in refs})
    with cluster.ui.step(f"Removing {wanted}"):
        on_each(having, lambda node: containerd.remove(node, going[node.name]))
        sifs.prune(cluster)
    return [*going]


def _running(cluster: Cluster, names: Sequence[str]) -> list[Node]:
    """The nodes of some names, or all; each of them runs."""
    known = {node.name: node for node in cluster.nodes}
    known |= {node.instance: node for node in cluster.nodes}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"there is no node {unknown[0]!r} in the cluster {cluster.name}",
            resolution=f"Nodes: {', '.join(node.name for node in cluster.nodes)}",
        )
    nodes = [node for node in cluster.nodes if not names or {node.name, node.instance} & {*names}]
    require_running(cluster, nodes, otherwise=", or name others with --node.")
    return nodes


def _check_there(source: Path) -> None:
    if not source.exists():
        raise UsageError(f"there is no file {source}", resolution=_SOURCES)
    if not os.access(source, os.R_OK):
        raise unreadable(source, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _remove_work(cluster: Cluster) -> None:
    """Remove what a load that was killed has left; the cluster is locked."""
    for left in cluster.paths.root.glob(f"{_WORK}*"):
        shutil.rmtree(left)
    for node in cluster.nodes:
        containerd.remove_work(node)


def _read(
    cluster: Cluster, nodes: Sequence[Node], source: Path, wanted: str, work: Path
) -> list[ContainerImage]:
    """The images of a source, each with a name."""
    name = wanted or reference.of_file(source)
    if sif.is_sif(source):
        return [sifs.image(cluster, nodes, source, name, work)]
    images = layout.read(cluster.host, source, work)
    return [
        image if image.name and not wanted else dataclasses.replace(image, name=name)
        for image in images
    ]


def _check_names(images: Sequence[ContainerImage]) -> None:
    """Refuse to give one name to several images."""
    names = [image.name for image in images]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"several images would be called {twice[0]}",
            resolution="Load them one by one, each with --as NAME:TAG.",
        )


def _load(
    cluster: Cluster, image: ContainerImage, having: Sequence[tuple[Node, Mapping[str, str]]]
) -> Loaded:
    """Give an image to those nodes that do not have it.

    Args:
        having: nodes, each with its images' names and the digests that these stand for.
    """
    missing = [node for node, names in having if names.get(image.name) != image.digest]
    present = [node.name for node, names in having if names.get(image.name) == image.digest]
    if present:
        cluster.ui.say(f"{', '.join(present)} has {image.name} already")
    started = cluster.host.monotonic()

    def give(node: Node) -> None:
        containerd.load(node, image)
        cluster.ui.note(f"{node.name} has it after {duration(cluster.host.monotonic() - started)}")

    if missing:
        to = ", ".join(node.name for node in missing)
        with cluster.ui.step(f"Loading {image.name} into {to}"):
            on_each([*missing, None], lambda node: give(node) if node else _flush(image))
    return Loaded(
        image.name,
        image.digest,
        image.id,
        image.size,
        tuple(node.name for node in missing),
        tuple(present),
    )


def _flush(image: ContainerImage) -> None:
    """Have the parts on the disk before anybody is told that they are there."""
    for part in (*image.parts, *([image.kept] if image.kept else [])):
        with part.file.open("rb") as stream:
            os.fsync(stream.fileno())


def _going(names: dict[str, str], wanted: str) -> list[str]:
    """What is to be removed of a node's names of images, so that an image goes."""
    digest = names.get(wanted)
    if digest is None:
        return []
    same = [name for name, each in names.items() if each == digest]
    others = [name for name in same if not reference.is_id(name) and name != wanted]
    return [wanted] if others and not reference.is_id(wanted) else same


def _require_unused(api: Api, nodes: Sequence[Node], references: set[str]) -> None:
    """Refuse to remove what a pod uses.

    Raises:
        SykubeError: one does; names it.
    """
    instances = {node.instance for node in nodes}
    users = [
        f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"
        for pod in api.get("/api/v1/pods")["items"]
        if pod["spec"].get("nodeName") in instances
        and not readiness.has_ended(pod)
        and references & _images_of(pod)
    ]
    if users:
        raise SykubeError(
            f"the image is in use by {len(users)} pod{'s' if len(users) > 1 else ''}",
            details="\n".join(sorted(users)),
            resolution="Delete them first.",
        )


def _images_of(pod: dict[str, Any]) -> set[str]:
    """Names and IDs of the images that a pod's containers run."""
    found = set()
    for key in ("containers", "initContainers", "ephemeralContainers"):
        found |= {_full(each.get("image", "")) for each in pod["spec"].get(key) or []}
        status = pod.get("status", {}).get(f"{key.removesuffix('s')}Statuses") or []
        found |= {each.get("imageID", "") for each in status}
    return found


def _full(name: str) -> str:
    try:
        return reference.full(name)
    except UsageError:
        return ""
