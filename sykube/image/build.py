"""Builds node images: definitions rendered, built one from the other, cached by content.

The fingerprint of an image covers its rendered definition, the files that go
into it and the fingerprints of the images it is made from, but not the mirror
they were downloaded from. The roots of Debian's packages are cached by what the
mirror has of them, too, and so are as new as they were if built again.

What a node image is made of is in folders, not in images: each is copied once or
twice, and compressed with the node image. What does not need one another is built
at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sykube import resources
from sykube.host import engines, lock
from sykube.host.apt import Mirror
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.host.threads import run_in_order
from sykube.image import inside, oci, pulling, versions
from sykube.image.node_image import NodeImage
from sykube.image.versions import DebianRelease, Upstream
from sykube.rootless import unpacked

log = logging.getLogger("sykube.build")

_BUILD_TIMEOUT_S = 3600.0
_SIF_MAGIC = b"SIF_MAGIC"
# After the 32 bytes of its launch script: github.com/apptainer/sif, pkg/sif/sif.go
_SIF_MAGIC_OFFSET = 32
# Kernels have read zstd since 4.14, and unpack it several times faster than the default, gzip.
_MKSQUASHFS = "-comp zstd -Xcompression-level 6"
# Of the kernel's names, those that Debian has another for: https://www.debian.org/ports/
_DEBIAN_ARCHITECTURES = {"i686": "i386", "armv7l": "armhf", "ppc64le": "ppc64el"}
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
    """One image of the chain, by what it is made from.

    Attributes:
        keeps: the folder of it that others are made from, where it is not all of it.
        state: the mirror's, where it is a root of nothing but Debian's packages.
        is_sif: whether it is made into a SIF: others are folders.
    """

    name: str
    template: str
    variables: dict[str, Any]
    inputs: tuple[tuple[str, Path], ...] = ()
    bases: tuple[Layer, ...] = ()
    keeps: str = ""
    state: str = ""
    is_sif: bool = False

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
        return found | {f"the image {base.name}": base.fingerprint for base in self.bases}

    @cached_property
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


def layers(
    host: Host, source: DebianRelease | Upstream, mirror: Mirror, state: str = ""
) -> tuple[Layer, ...]:
    """The chain of images of a source, each after those that it is made from.

    The last one is the node image, the one before it has the container images.

    Args:
        state: the mirror's (Mirror.state), on which no fingerprint depends.
    """
    if isinstance(source, Upstream):
        return _upstream_layers(host, source, mirror, state)
    return _debian_layers(host, source, mirror, state)


def _debian_layers(
    host: Host, source: DebianRelease, mirror: Mirror, state: str
) -> tuple[Layer, ...]:
    common: dict[str, Any] = {
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
            **_debian(host, mirror, source.build_suite, source_packages=True),
            "package": source.package,
            "programs": versions.KUBERNETES_PROGRAMS,
        },
        keeps="opt/kubernetes",
    )
    debian, runtime, system, nodes = _roots(
        host, mirror, state, versions.CONTAINER_IMAGE_PACKAGES, (), versions.NODE_PACKAGES
    )
    images = _container_images(host, "container-images-debian.def.j2", common, (system, kubernetes))
    node = _node(host, "node.def.j2", common, (kubernetes, runtime, nodes, images))
    return kubernetes, debian, runtime, system, nodes, images, node


def on_debian(
    host: Host,
    mirror: Mirror,
    state: str,
    name: str,
    template: str,
    variables: dict[str, Any],
    inputs: tuple[tuple[str, Path], ...],
    keeps: str = "",
    is_sif: bool = False,
) -> Layer:
    """A layer of Debian and of its packages, which is for itself and no part of a node image."""
    root = _debian_root(host, mirror, state)
    return _made(host, name, template, variables, (root,), inputs, keeps, is_sif=is_sif)


def build_layer(
    host: Host, layer: Layer, target: Path, builder: Builder, note: Callable[[str], None]
) -> None:
    """Build what a layer keeps into a folder, or a SIF, and what the cache lacks for that.

    The cache is the caller's (`locked_cache`).

    Raises:
        SykubeError: a build failed; there is nothing at the target.
    """
    if missing := _missing(host, layer):
        _build_parts(host, missing, builder, note)
    _build(host, layer, target, builder, note)


def _upstream_layers(host: Host, source: Upstream, mirror: Mirror, state: str) -> tuple[Layer, ...]:
    """The programs are there, verified, so none is built."""
    minor = versions.minor(source.kubernetes_version)
    common: dict[str, Any] = {
        "kubernetes_version": source.kubernetes_version,
        "image_repository": source.image_repository,
        "source": source.name,
        "checksums": {name: file.checksum for name, file in source.files.items()},
        **{name: file.path for name, file in source.files.items()},
    }
    dns = () if minor.has_coredns else versions.DNS_PACKAGES
    debian, runtime, system, nodes = _roots(
        host,
        mirror,
        state,
        (*versions.UPSTREAM_CONTAINER_IMAGE_PACKAGES, *dns),
        ("skopeo",),
        versions.UPSTREAM_NODE_PACKAGES,
    )
    images = _container_images(
        host,
        "container-images-upstream.def.j2",
        common
        | {
            "coredns": minor.has_coredns,
            "auth_file": source.auth_file,
            "authorities": source.authorities,
        },
        (system,),
    )
    node = _node(
        host,
        "node-upstream.def.j2",
        common | {"containerd_config": _containerd_config(source.containerd_version)},
        (runtime, nodes, images),
        ("definitions/upstream", resources.folder("definitions") / "upstream"),
    )
    return debian, runtime, system, nodes, images, node


def _roots(
    host: Host,
    mirror: Mirror,
    state: str,
    of_system: tuple[str, ...],
    tools: tuple[str, ...],
    of_nodes: tuple[str, ...],
) -> tuple[Layer, Layer, Layer, Layer]:
    """Debian, and what is made of it and its packages, for any Kubernetes.

    Args:
        of_system: packages of the container image of sykube's own programs.
        tools: packages that bring the other container images.
        of_nodes: packages of nodes.
    """
    debian = _debian_root(host, mirror, state)
    sources = resources.folder("runtime")
    runtime = _made(
        host,
        "runtime",
        "runtime.def.j2",
        {"packages": versions.RUNTIME_BUILD_PACKAGES, "runtime_dir": sources},
        (debian,),
        (("runtime", sources),),
        keeps="opt/runtime",
    )
    incluster = resources.PACKAGE / "incluster"
    system = _made(
        host,
        "system",
        "system.def.j2",
        {
            "packages": of_system,
            "tools": ("umoci", *tools),
            "coredns": not {*versions.DNS_PACKAGES} <= {*of_system},
            "system_image": versions.SYSTEM_IMAGE,
            "incluster_dir": incluster,
        },
        (debian,),
        (("incluster", incluster),),
        state=state,
    )
    nodes = _made(
        host,
        "packages",
        "packages.def.j2",
        {"packages": of_nodes, "sid_packages": versions.SID_PACKAGES, "mirror": mirror.main},
        (debian,),
        state=state,
    )
    return debian, runtime, system, nodes


def _debian_root(host: Host, mirror: Mirror, state: str) -> Layer:
    variables = _debian(host, mirror, versions.NODE_SUITE)
    return Layer("debian", "debian.def.j2", variables, state=state)


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


def _debian(
    host: Host, mirror: Mirror, suite: str, *, source_packages: bool = False
) -> dict[str, Any]:
    """Variables of a root that is made from nothing."""
    machine = oci.machine(host)
    return {
        "suite": suite,
        "mirror": mirror.main,
        "apt_sources": mirror.sources(suite, source_packages=source_packages),
        "architecture": _DEBIAN_ARCHITECTURES.get(machine, machine),
    }


def _made(
    host: Host,
    name: str,
    template: str,
    variables: dict[str, Any],
    bases: tuple[Layer, ...],
    inputs: tuple[tuple[str, Path], ...] = (),
    keeps: str = "",
    state: str = "",
    *,
    is_sif: bool = False,
) -> Layer:
    """A layer that is made from others, whose folders its definition names."""
    roots = {f"{base.name.replace('-', '_')}_root": _stage(host, base) for base in bases}
    return Layer(name, template, variables | roots, inputs, bases, keeps, state, is_sif)


def _container_images(
    host: Host, template: str, variables: dict[str, Any], bases: tuple[Layer, ...]
) -> Layer:
    name, keeps = "container-images", "opt/container-images"
    return _made(host, name, template, variables, bases, keeps=keeps)


def _node(
    host: Host,
    template: str,
    variables: dict[str, Any],
    bases: tuple[Layer, ...],
    *inputs: tuple[str, Path],
) -> Layer:
    definitions, supervisor = resources.folder("definitions"), resources.folder("supervisor")
    return _made(
        host,
        "node",
        template,
        variables | {"definitions_dir": definitions, "supervisor_dir": supervisor},
        bases,
        (("definitions/node", definitions / "node"), ("supervisor", supervisor), *inputs),
        is_sif=True,
    )


def _stage(host: Host, layer: Layer) -> Path:
    """The folder in the cache of what others are made from."""
    suffix = f"-{layer.state}" if layer.state else ""
    return host.cache / "build" / f"{layer.name}-{layer.fingerprint}{suffix}"


def cached(host: Host, source: DebianRelease | Upstream, mirror: Mirror) -> NodeImage | None:
    """The node image of a source, where it is in the cache and still up to date."""
    fingerprint = layers(host, source, mirror)[-1].fingerprint
    return next((image for image in list_images(host) if image.fingerprint == fingerprint), None)


def list_images(host: Host) -> list[NodeImage]:
    """Every complete node image in the caches, the newest first."""
    folders = [each for cache in host.caches for each in cache.glob("node-images/*/complete")]
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
    state: str = "",
    force: bool = False,
) -> NodeImage:
    """Build what the cache lacks of a source's images.

    Args:
        step: opens a step of the user interface.
        note: told each line of the build's output.
        state: the mirror's (Mirror.state); empty where it is not known, and so whether the
            cached roots are still the newest.
        force: rebuild the node image, with Debian's newest packages.

    Raises:
        SykubeError: a build failed; what was in the cache stays.
    """
    with locked_cache(host):
        image = cached(host, source, mirror)
        if image and not force:
            return image
        final = layers(host, source, mirror, state or secrets.token_hex(8))[-1]
        if missing := _missing(host, final):
            with step("Building the parts of the node image"):
                _build_parts(host, missing, builder, note)
        with step("Building the node image"):
            return keep(
                host,
                final.fingerprint,
                final.parts(),
                builder,
                lambda sif: _build(host, final, sif, builder, note),
            )


def _missing(host: Host, layer: Layer) -> dict[str, Layer]:
    """What the cache lacks to make a layer, each after those that it is made from."""
    found: dict[str, Layer] = {}
    for base in layer.bases:
        if not _stage(host, base).exists():
            found |= _missing(host, base) | {base.name: base}
    return found


def _build_parts(
    host: Host, missing: Mapping[str, Layer], builder: Builder, note: Callable[[str], None]
) -> None:
    """Build them, at the same time where one is not made from the other."""
    folder = host.cache / "build"
    folder.mkdir(parents=True, exist_ok=True)
    # Programs with root's rights are in them, whose versions may be old one day.
    folder.chmod(0o700)
    said = dict.fromkeys(missing, "")

    def make(layer: Layer, stop: threading.Event) -> None:
        def told(line: str) -> None:
            said[layer.name] = line
            note("; ".join(f"{each}: {line[:40]}" for each, line in said.items() if line))

        target = _stage(host, layer)
        _build(host, layer, target, builder, told, stop)
        said[layer.name] = ""
        for before in folder.glob(f"{layer.name}-{layer.fingerprint}-*"):
            if before != target:
                shutil.rmtree(before)

    run_in_order(
        {
            name: ([base.name for base in layer.bases], partial(make, layer))
            for name, layer in missing.items()
        }
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
        unwanted = [image.folder for image in list_images(host) if image.fingerprint not in keep]
        # Not those of another's cache.
        removed = [folder for folder in unwanted if folder.is_relative_to(host.cache)]
        for folder, pattern in (("build", "*"), ("tmp", "*"), ("node-images", ".new-*")):
            removed += (host.cache / folder).glob(pattern)
        for path in removed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return removed


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
        unpacked.keep(host, work, folder / sif.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        unpacked.forget(host, work)
    return NodeImage(fingerprint, folder)


def extract(host: Host, sif: Path, path: str, target: Path, builder: Builder) -> None:
    """Copy one file out of an image, through a bind of the target's folder."""
    command = ["cp", path, f"/mnt/{target.name}"]
    inside.run_in(host, sif, command, target.parent, builder, timeout=120)


def _build(
    host: Host,
    layer: Layer,
    target: Path,
    builder: Builder,
    note: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Make a SIF, or a folder of what others are made from."""
    temporary = host.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{layer.name}-", dir=temporary))
    begun = host.monotonic()
    try:
        definition = work / f"{layer.name}.def"
        definition.write_text(
            resources.render("definitions", layer.template, **layer.variables), encoding="utf-8"
        )
        made = work / "made"
        engine = engines.probe(host, builder.binary)
        # Else the engine takes the host's, where a build that is cut off would leave files.
        scratch = work / "scratch"
        scratch.mkdir()
        scratch.chmod(0o1777)
        binds = {f"{engine.kind.prefix}BINDPATH": f"{scratch}:/tmp,{scratch}:/var/tmp"}
        form = engine.mksquashfs_options(_MKSQUASHFS) if layer.is_sif else ("--sandbox",)
        try:
            host.run(
                [builder.binary, "build", *form, made, definition],
                env={**builder.environment, **engine.work_environment(work), **binds},
                timeout=_BUILD_TIMEOUT_S,
                on_line=note,
                stop=stop,
            )
        except CommandError as error:
            if explained := pulling.explain(error.output):
                raise explained from error
            raise
        (made / layer.keeps).replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    log.info("built %s in %.1f s", layer.name, host.monotonic() - begun)


def locked_cache(host: Host) -> contextlib.AbstractContextManager[None]:
    """One build at a time; a second one waits and then finds the first one's image."""
    return lock.in_turn(host.cache)
