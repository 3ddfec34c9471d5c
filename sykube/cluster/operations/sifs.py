"""SIFs as images of a cluster: kept once and mounted by its nodes, or unpacked where one cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sykube.cluster.model.cluster import Cluster, on_each
from sykube.errors import SykubeError
from sykube.host import engines, space
from sykube.image import (
    containerd,
    reference,
    sif,
    sif_header,
    sif_store,
    sif_stub,
    signature,
)
from sykube.image.build import Builder
from sykube.image.oci import Blob, ContainerImage
from sykube.image.trust import Trust
from sykube.node.node import Node

_RUNTIME = "/usr/lib/sykube/apptainer/runtime"


def image(
    cluster: Cluster, nodes: Sequence[Node], source: Path, name: str, work: Path
) -> ContainerImage:
    """The container image of a SIF for some nodes, with its parts in a folder of the cluster's.

    Raises:
        UsageError: it is damaged, encrypted or for other machines.
        SykubeError: the disk is too small, or it is not signed as the cluster requires (UNTRUSTED).
    """
    sif_header.check(cluster.host, source)
    if cluster.host.grants.rootless:
        # Nobody but the host's root mounts by loop devices.
        _signers(cluster, source, source)
        return _unpacked(cluster, nodes, source, source, name, work)
    space.require(cluster.host, cluster.paths.root, source.stat().st_size)
    cluster.paths.sifs.mkdir(mode=0o700, exist_ok=True)
    kept = sif_store.adopt(cluster.paths.sifs, source, work)
    try:
        signers = _signers(cluster, kept.file, source)
        told = _ask(nodes, kept)
        if told is None:
            return _unpacked(cluster, nodes, kept.file, source, name, work)
        made = sif_stub.make(cluster.host, name, work, kept, told)
        sif_store.note(kept, made.layers[0].digest, signers)
    finally:
        # What was noted of it stays, also of an earlier load.
        sif_store.remove_unnoted(cluster.paths.sifs)
    return made


def _signers(cluster: Cluster, sif: Path, shown: Path) -> list[str]:
    """Which of the keys that the cluster requires has signed a SIF; none where it requires none.

    Raises:
        UsageError: none of these keys can be had.
        SykubeError: none of them has (UNTRUSTED).
    """
    refused: SykubeError | None = None
    for fingerprint in cluster.state.spec.signers:
        try:
            signature.verify(cluster.host, sif, Trust(fingerprint), _builder(cluster), shown=shown)
        except SykubeError as error:
            refused = refused or error
        else:
            return [fingerprint]
    if refused:
        raise refused
    return []


def _ask(nodes: Sequence[Node], kept: Blob) -> dict[str, str] | None:
    """What nodes tell of a SIF in the store; None unless all of them can run it from there.

    This is the one place that decides. One that cannot is of a node image from before, lacks loop
    devices or what the SIF is packed with, or the SIF has no start of Apptainer's in it.
    """
    digest = kept.digest.removeprefix("sha256:")
    answers = on_each(nodes, lambda node: node.run([_RUNTIME, "sif", digest], check=False))
    if not all(each.ok for each in answers):
        return None
    told: dict[str, str] = json.loads(answers[-1].stdout)
    return told


def _unpacked(
    cluster: Cluster, nodes: Sequence[Node], file: Path, source: Path, name: str, work: Path
) -> ContainerImage:
    """The image of a SIF, or of a copy of it, as nodes can run any."""
    # Once in the cluster's folder, and in each node.
    space.require(cluster.host, cluster.paths.root, file.stat().st_size * (1 + len(nodes)))
    cluster.ui.note("unpacking it: nodes cannot run it as it is")
    return sif.convert(cluster.host, file, name, work, _builder(cluster), shown=source)


def _builder(cluster: Cluster) -> Builder:
    engine = engines.find(cluster.host)
    if engine is None:
        raise SykubeError("there is no Apptainer to read it with", resolution="sykube doctor")
    return Builder(engine.binary, engine.environment)


def sizes(cluster: Cluster) -> dict[str, int]:
    """Bytes of the SIFs in the store, by the layers that stand for them."""
    return {each.layer: each.size for each in sif_store.stored(cluster.paths.sifs)}


def prune(cluster: Cluster, loaded: Sequence[ContainerImage] = ()) -> None:
    """Remove the SIFs that no image stands for any more, unless a node's images cannot be seen.

    Args:
        loaded: images that nodes are known to have.
    """
    known = {layer.digest for each in loaded for layer in each.layers}
    kept = [each for each in sif_store.stored(cluster.paths.sifs) if each.layer not in known]
    running = cluster.running() if kept else []
    # A node that is being updated has not been given back its images yet.
    if len(running) < len(cluster.nodes) or cluster.state.update:
        return
    used: set[str] = set()
    for node in running:
        digests = sorted({*containerd.names(node).values()})
        found = containerd.targets(cluster.host, node, digests).values()
        used |= {layer for target in found for layer in target.layers}
    for each in kept:
        if each.layer not in used:
            sif_store.remove(each)


def give(cluster: Cluster, sources: Sequence[Node], nodes: Sequence[Node]) -> None:
    """Give nodes the images of SIFs that others have: they see the SIFs already."""
    images: dict[str, ContainerImage] = {}
    for source in sources if sizes(cluster) else ():
        images |= {each.name: each for each in _standing(cluster, source)}
    for node in nodes:
        for each in images.values():
            containerd.load(node, each)


def _standing(cluster: Cluster, node: Node) -> list[ContainerImage]:
    """The images of a node that stand for a SIF."""
    known, names = sizes(cluster), containerd.names(node)
    found = containerd.targets(cluster.host, node, sorted({*names.values()}))
    wanted = {
        name: digest
        for name, digest in names.items()
        if not reference.is_id(name)
        and "@" not in name
        and digest in found
        and known.keys() & {*found[digest].layers}
    }
    folder = node.pull("/var/lib/containerd")
    return containerd.stored(cluster.host, folder, wanted)[0]
