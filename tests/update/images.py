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
    """The version that many patches after Debian's: of the same length, as `broken` needs it."""
    head, _, patch = OLDER.rpartition(".")
    return f"{head}.{int(patch) + number}"


NEWER, BROKEN = _following(1), _following(2)


def newer() -> NodeImage:
    """Debian's source, built with a later version in it."""
    return _build(dataclasses.replace(versions.DEBIAN, kubernetes_version=NEWER))


def broken() -> NodeImage:
    """A still later one whose kube-apiserver ends at once.

    Its programs are those of Debian's version, with another version written into them.
    """
    source = dataclasses.replace(versions.DEBIAN, kubernetes_version=BROKEN)
    mirror = apt.find_mirror(Host(), "")
    good, wanted = (
        build._stage(Host(), build.layers(Host(), each, mirror)[0])
        for each in (versions.DEBIAN, source)
    )
    if not wanted.exists():
        _break(good, wanted)
    return _build(source)


def _break(good: Path, wanted: Path) -> None:
    with tempfile.TemporaryDirectory(dir=wanted.parent) as name:
        root = Path(name) / "root"
        shutil.copytree(good, root, symlinks=True)
        programs = root / "bin"
        for program in programs.iterdir():
            content = program.read_bytes().replace(f"v{OLDER}".encode(), f"v{BROKEN}".encode())
            program.write_bytes(content)
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
