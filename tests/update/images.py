"""Node images to update to, made by sykube's own builder of another versions.DebianRelease."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sykube.host import apt, engines
from sykube.host.download import Downloader
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage

OLDER = versions.DEBIAN.kubernetes_version


def _following(number: int) -> str:
    """The version that many patches after Debian's: of the same length, as programs need it."""
    head, _, patch = OLDER.rpartition(".")
    return f"{head}.{int(patch) + number}"


NEWER, BROKEN = _following(1), _following(2)


def newer() -> NodeImage:
    """Debian's version with a later one written into its programs."""
    return _build(_release(NEWER))


def broken() -> NodeImage:
    """A still later one whose kube-apiserver ends at once."""
    return _build(_release(BROKEN, is_broken=True))


def _release(version: str, *, is_broken: bool = False) -> versions.DebianRelease:
    """A release whose programs are in the cache of builds, where compiled ones would be."""
    host, source = Host(), dataclasses.replace(versions.DEBIAN, kubernetes_version=version)
    mirror = apt.find_mirror(host, "")
    good, wanted = (build.layers(host, each, mirror)[0] for each in (versions.DEBIAN, source))
    with build.locked_cache(host):
        if not build._stage(host, good).exists():
            build._build_parts(host, {good.name: good}, _builder(), lambda _line: None)
        if not build._stage(host, wanted).exists():
            _rewrite(build._stage(host, good), build._stage(host, wanted), version, is_broken)
    return source


def _rewrite(good: Path, wanted: Path, version: str, is_broken: bool) -> None:
    with tempfile.TemporaryDirectory(dir=wanted.parent) as name:
        root = Path(name) / "root"
        shutil.copytree(good, root, symlinks=True)
        programs = root / "bin"
        for program in programs.iterdir():
            content = program.read_bytes().replace(f"v{OLDER}".encode(), f"v{version}".encode())
            program.write_bytes(content)
        if is_broken:
            # It does not know kube-apiserver's options, says so, and ends.
            shutil.copyfile(programs / "kube-scheduler", programs / "kube-apiserver")
        root.rename(wanted)


def _builder() -> Builder:
    engine = engines.find_or_create(Host(), lambda: apt.find_mirror(Host(), ""), print)
    return Builder(engine.binary, engine.environment)


def _build(source: versions.DebianRelease) -> NodeImage:
    mirror = apt.find_mirror(Host(), "")
    state = mirror.state(versions.NODE_SUITE, Downloader().text)
    image = build.build(Host(), source, mirror, _builder(), _step, lambda _line: None, state=state)
    # Without it, an image of a version that Debian does not have is taken for one of upstream's.
    facts = image.folder / "versions"
    if f"source={source.name}" not in facts.read_text().split():
        facts.write_text(f"{facts.read_text()}source={source.name}\n")
    return image


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    print(title, flush=True)
    yield
