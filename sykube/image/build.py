"""Builds node images: definitions rendered, built one from the other, cached by content.

The fingerprint of an image covers its rendered definition, the files that go
into it and the fingerprints of the images it is made from, but not the mirror
they were downloaded from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube import resources
from sykube.host import engines, lock
from sykube.host.apt import Mirror
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import inside, pulling, versions
from sykube.image.node_image import NodeImage
from sykube.image.versions import DebianRelease, Upstream

_BUILD_TIMEOUT_S = 3600.0
_SIF_MAGIC = b"SIF_MAGIC"
# After the 32 bytes of its launch script: github.com/apptainer/sif, pkg/sif/sif.go
_SIF_MAGIC_OFFSET = 32
# Kernels have read zstd since 4.14, and unpack it several times faster than the default, gzip.
_MKSQUASHFS = "-comp zstd -Xcompression-level 6"
# Variables that only say where to download from, and by what leave; not Path, or not always.
_OF_THIS_MACHINE: dict[str, Any] = {
    "mirror": "@mirror@",
    "apt_sources": [],
    "auth_file": None,
    "authorities": (),
}


@dataclass(frozen=True)
class Builder:
    """The engine that builds: its program and the variables for its calls."""

    binary: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Layer:
    """One image of the chain, by what it is made from."""

    name: str
    template: str
    variables: dict[str, Any]
    inputs: tuple[tuple[str, Path], ...]
    bases: tuple[tuple[str, str], ...]

    def parts(self) -> dict[str, str]:
        """Digest of each thing that this image depends on."""
        found = {
            f"definitions/{self.template}": _digest(
                resources.render("definitions", self.template, **self._neutral()).encode()
            )
        }
        for label, path in self.inputs:
            found |= {
                f"{label}/{file.relative_to(path)}": _digest(file.read_bytes())
                for file in sorted(path.rglob("*"))
                if file.is_file() and "__pycache__" not in file.parts
            }
        return found | {f"the image {name}": fingerprint for name, fingerprint in self.bases}

    @property
    def fingerprint(self) -> str:
        return _digest(json.dumps(self.parts(), sort_keys=True).encode())[:16]

    def _neutral(self) -> dict[str, Any]:
        """The variables without what differs from machine to machine."""
        paths = {
            name: f"@{name}@" for name, value in self.variables.items() if isinstance(value, Path)
        }
        return self.variables | paths | _OF_THIS_MACHINE


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def layers(host: Host, source: DebianRelease | Upstream, mirror: Mirror) -> tuple[Layer, ...]:
    """The chain of images of a source; the last one is the node image."""
    if isinstance(source, Upstream):
        return _upstream_layers(host, source, mirror)
    return _debian_layers(host, source, mirror)


def _debian_layers(host: Host, source: DebianRelease, mirror: Mirror) -> tuple[Layer, Layer, Layer]:
    """Kubernetes, its container images, the node image."""
    common: dict[str, Any] = {
        "mirror": mirror.main,
        "kubernetes_version": source.kubernetes_version,
        "pause_version": source.pause_version,
        "image_repository": versions.IMAGE_REPOSITORY,
        "source": source.name,
    }
    kubernetes = Layer(
        "kubernetes",
        "kubernetes-debian.def.j2",
        common
        | {
            "suite": source.build_suite,
            "apt_sources": mirror.sources(source.build_suite, source_packages=True),
            "package": source.package,
            "programs": versions.KUBERNETES_PROGRAMS,
        },
        (),
        (),
    )
    common |= _node_suite(mirror) | {"kubernetes_image": _stage(host, kubernetes)}
    container_images = _container_images(
        "container-images-debian.def.j2",
        common | {"packages": versions.CONTAINER_IMAGE_PACKAGES, "coredns": False},
        (kubernetes,),
    )
    node = _node(
        host,
        "node.def.j2",
        common | {"packages": versions.NODE_PACKAGES},
        (kubernetes, container_images),
    )
    return kubernetes, container_images, node


def _upstream_layers(host: Host, source: Upstream, mirror: Mirror) -> tuple[Layer, Layer]:
    """The container images, the node image: the programs are there, verified, so none is built."""
    common: dict[str, Any] = {
        "mirror": mirror.main,
        "kubernetes_version": source.kubernetes_version,
        "image_repository": source.image_repository,
        "source": source.name,
        "checksums": {name: file.checksum for name, file in source.files.items()},
        **{name: file.path for name, file in source.files.items()},
        **_node_suite(mirror),
    }
    minor = versions.minor(source.kubernetes_version)
    dns = () if minor.has_coredns else versions.DNS_PACKAGES
    container_images = _container_images(
        "container-images-upstream.def.j2",
        common
        | {
            "packages": (*versions.UPSTREAM_CONTAINER_IMAGE_PACKAGES, *dns),
            "coredns": minor.has_coredns,
            "auth_file": source.auth_file,
            "authorities": source.authorities,
        },
        (),
    )
    upstream = resources.folder("definitions") / "upstream"
    node = _node(
        host,
        "node-upstream.def.j2",
        common
        | {
            "packages": versions.UPSTREAM_NODE_PACKAGES,
            "containerd_config": _containerd_config(source.containerd_version),
        },
        (container_images,),
        ("definitions/upstream", upstream),
    )
    return container_images, node


def _containerd_config(version: str) -> str:
    """The file below /opt of a build with the configuration that a containerd wants.

    Each takes older ones, too, and says so at every start. Source: containerd's
    docs/man/containerd-config.toml.5.md and RELEASES.md, "Deprecated config properties".
    """
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < (2, 0):
        # It is also Debian's.
        return "sykube/node/containerd.toml"
    return f"upstream/containerd-v{3 if numbers < (2, 3) else 4}.toml"


def _node_suite(mirror: Mirror) -> dict[str, Any]:
    return {"suite": versions.NODE_SUITE, "apt_sources": mirror.sources(versions.NODE_SUITE)}


def _container_images(template: str, variables: dict[str, Any], bases: tuple[Layer, ...]) -> Layer:
    incluster = Path(__file__).resolve().parent.parent / "incluster"
    return Layer(
        "container-images",
        template,
        variables | {"system_image": versions.SYSTEM_IMAGE, "incluster_dir": incluster},
        (("incluster", incluster),),
        tuple((base.name, base.fingerprint) for base in bases),
    )


def _node(
    host: Host,
    template: str,
    variables: dict[str, Any],
    bases: tuple[Layer, ...],
    *inputs: tuple[str, Path],
) -> Layer:
    definitions, supervisor = resources.folder("definitions"), resources.folder("supervisor")
    return Layer(
        "node",
        template,
        variables
        | {
            "container_images_image": _stage(host, bases[-1]),
            "definitions_dir": definitions,
            "supervisor_dir": supervisor,
        },
        (("definitions/node", definitions / "node"), ("supervisor", supervisor), *inputs),
        tuple((base.name, base.fingerprint) for base in bases),
    )


def _stage(host: Host, layer: Layer) -> Path:
    """Where an image that others are made from is cached."""
    return host.cache / "build" / f"{layer.name}-{layer.fingerprint}.sif"


def cached(host: Host, source: DebianRelease | Upstream, mirror: Mirror) -> NodeImage | None:
    """The node image of a source, where it is in the cache and still up to date."""
    fingerprint = layers(host, source, mirror)[-1].fingerprint
    return next((image for image in list_images(host) if image.fingerprint == fingerprint), None)


def list_images(host: Host) -> list[NodeImage]:
    """Every complete node image in the cache, the newest first."""
    folders = (host.cache / "node-images").glob("*/complete")
    found = sorted(folders, key=lambda file: file.stat().st_mtime, reverse=True)
    return [NodeImage(file.parent.name, file.parent) for file in found]


def build(
    host: Host,
    source: DebianRelease | Upstream,
    mirror: Mirror,
    builder: Builder,
    step: Callable[[str], contextlib.AbstractContextManager[None]],
    note: Callable[[str], None],
    *,
    force: bool = False,
) -> NodeImage:
    """Build what the cache lacks of a source's images.

    Args:
        step: opens a step of the user interface.
        note: told each line of the build's output.
        force: rebuild the node image, with Debian's newest packages.

    Raises:
        SykubeError: a build failed; what was in the cache stays.
    """
    with locked_cache(host):
        chain = layers(host, source, mirror)
        final = chain[-1]
        image = cached(host, source, mirror)
        if image and not force:
            return image
        for layer in chain[:-1]:
            if not _stage(host, layer).exists():
                with step(_title(layer)):
                    _stage(host, layer).parent.mkdir(parents=True, exist_ok=True)
                    _build_sif(host, layer, _stage(host, layer), builder, note)
        with step(_title(final)):
            return keep(
                host,
                final.fingerprint,
                final.parts(),
                builder,
                lambda sif: _build_sif(host, final, sif, builder, note),
            )


def what_changed(host: Host, source: DebianRelease | Upstream, mirror: Mirror) -> list[str]:
    """Inputs that differ from the newest cached image of the same Kubernetes, for people."""
    for image in list_images(host):
        with contextlib.suppress(OSError, ValueError):
            before = json.loads((image.folder / "parts.json").read_text(encoding="utf-8"))
            last = layers(host, source, mirror)[-1]
            if before and f"definitions/{last.template}" in before and _is_of(image, source):
                now = last.parts()
                return sorted(name for name in before | now if before.get(name) != now.get(name))
    return []


def _is_of(image: NodeImage, source: DebianRelease | Upstream) -> bool:
    found = image.versions().get("kubernetes", "").removeprefix("v")
    return found == source.kubernetes_version


def is_sif(file: Path) -> bool:
    """Whether a file looks like a SIF.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        stream.seek(_SIF_MAGIC_OFFSET)
        return stream.read(len(_SIF_MAGIC)) == _SIF_MAGIC


def prune(host: Host, keep: frozenset[str]) -> list[Path]:
    """Remove cached images but for some fingerprints, and the images they were built from.

    Returns:
        What was removed.
    """
    with locked_cache(host):
        removed = [image.folder for image in list_images(host) if image.fingerprint not in keep]
        for folder, pattern in (("build", "*.sif"), ("tmp", "*"), ("node-images", ".new-*")):
            removed += (host.cache / folder).glob(pattern)
        for path in removed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return removed


def _title(layer: Layer) -> str:
    return {
        "kubernetes": f"Building Kubernetes {layer.variables['kubernetes_version']} from source",
        "container-images": "Building the container images",
        "node": "Building the node image",
    }[layer.name]


def keep(
    host: Host,
    fingerprint: str,
    parts: dict[str, str],
    builder: Builder,
    make: Callable[[Path], None],
) -> NodeImage:
    """Make node.sif in the cache, read from it what sykube needs, and mark it complete.

    Args:
        parts: digests of what it was made from; none where it was not built here.
        make: writes the image into a file; what it raises leaves the cache as it was.
    """
    folder = host.cache / "node-images" / fingerprint
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        sif = work / "node.sif"
        make(sif)
        for name, path in (
            ("kubectl", "/usr/bin/kubectl"),
            ("versions", "/usr/share/sykube/versions"),
            ("container-images", "/usr/share/sykube/container-images"),
        ):
            extract(host, sif, path, work / name, builder)
        (work / "kubectl").chmod(0o755)
        write_atomically(work / "parts.json", json.dumps(parts, indent=1, sort_keys=True))
        (work / "complete").touch()
        work.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return NodeImage(fingerprint, folder)


def extract(host: Host, sif: Path, path: str, target: Path, builder: Builder) -> None:
    """Copy one file out of an image, through a bind of the target's folder."""
    command = ["cp", path, f"/mnt/{target.name}"]
    inside.run_in(host, sif, command, target.parent, builder, timeout=120)


def _build_sif(
    host: Host, layer: Layer, target: Path, builder: Builder, note: Callable[[str], None]
) -> None:
    temporary = host.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{layer.name}-", dir=temporary))
    try:
        definition = work / f"{layer.name}.def"
        definition.write_text(
            resources.render("definitions", layer.template, **layer.variables), encoding="utf-8"
        )
        sif = work / f"{layer.name}.sif"
        engine = engines.probe(host, builder.binary)
        try:
            host.run(
                [builder.binary, "build", *engine.mksquashfs_options(_MKSQUASHFS), sif, definition],
                env={**builder.environment, **engine.work_environment(work)},
                timeout=_BUILD_TIMEOUT_S,
                on_line=note,
            )
        except CommandError as error:
            if explained := pulling.explain(error.output):
                raise explained from error
            raise
        sif.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def locked_cache(host: Host) -> contextlib.AbstractContextManager[None]:
    """One build at a time; a second one waits and then finds the first one's image."""
    return lock.in_turn(host.cache)
