"""The download cache: PROJECT/VERSION/ARCHITECTURE/FILE, each with its checksum beside it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sykube.host import lock
from sykube.host.checksum import Checksum
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.image.versions import Published

_MARK = ".checksum"
_FOLDER = "downloads"


@dataclass(frozen=True)
class Cached:
    """A file of the cache; bytes."""

    project: str
    version: str
    architecture: str
    file: Path
    size: int


def folder(host: Host) -> Path:
    return host.cache / _FOLDER


def place(host: Host, project: str, version: str, architecture: str, name: str) -> Path:
    return folder(host) / project / version / architecture / name


def verified(host: Host, file: Path) -> Published | None:
    """A cached file whose checksum was verified just now; None where no cache has a whole one.

    Args:
        file: its place in the cache of this user, which comes before those of others.
    """
    below = file.relative_to(host.cache)
    found = (_verified(cache / below) for cache in host.caches)
    return next((each for each in found if each), None)


def _verified(file: Path) -> Published | None:
    try:
        checksum = Checksum.parse(_mark(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Published(file, checksum.value) if checksum.matches(file) else None


def forget(file: Path) -> None:
    """Take its checksum from a file that another one is to replace."""
    _mark(file).unlink(missing_ok=True)


def mark(file: Path, checksum: Checksum) -> None:
    """Note what a file has been compared with."""
    write_atomically(_mark(file), f"{checksum.value}\n")


def listed(host: Host) -> list[Cached]:
    """What the caches hold of whole files, each by project and version."""
    found = []
    for cache in host.caches:
        root = cache / _FOLDER
        for noted in sorted(root.glob(f"*/*/*/*{_MARK}")):
            file = noted.with_name(noted.name.removesuffix(_MARK))
            if file.exists():
                project, version, architecture = file.parent.relative_to(root).parts
                found.append(Cached(project, version, architecture, file, file.stat().st_size))
    return found


def prune(host: Host) -> list[Path]:
    """Remove all of it, once nothing is being downloaded; images that were built of it have it.

    Returns:
        What was removed.
    """
    if not folder(host).exists():
        return []
    with lock.in_turn(folder(host)):
        removed = [path for path in folder(host).iterdir() if path.is_dir()]
        for path in removed:
            shutil.rmtree(path)
    return removed


def _mark(file: Path) -> Path:
    return file.with_name(f"{file.name}{_MARK}")
