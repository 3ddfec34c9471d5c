"""Which container engine to use on this host."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import HostError
from sykube.host import apt, capabilities, provision
from sykube.host.paths import cache_dir
from sykube.host.run import PATH, run

_LEAST = {"apptainer": (1, 2), "singularity": (4, 0)}


@dataclass(frozen=True)
class FoundEngine:
    """An engine's program and what it is called with."""

    binary: Path
    version: str
    environment: Mapping[str, str]


def private() -> provision.PrivateApptainer:
    """Where sykube's own Apptainer is, or would be."""
    return provision.PrivateApptainer(cache_dir() / "apptainer")


def find() -> FoundEngine | None:
    """The host's own engine where it is usable, else sykube's private one, else None.

    An engine of the host is usable when it is new enough and root has every capability:
    otherwise its configuration would have to be changed (see FACTS of the project).
    """
    if capabilities.effective() == capabilities.known():
        found = _of_the_host()
        if found:
            return found
    own = private()
    if own.exists():
        text = ".".join(map(str, _version(own.binary)))
        environment = provision.fresh_environment()
        return FoundEngine(own.binary, f"apptainer {text} (private)", environment)
    return None


def find_for_files() -> FoundEngine:
    """An engine to look into images, which no node is to be started with.

    Raises:
        HostError: there is none.
    """
    found = find() or _of_the_host()
    if found is None:
        raise HostError(
            "there is no Apptainer that sykube can use",
            resolution="Install Apptainer 1.2 or later, or let sykube set one up as root: "
            "sykube node-image build",
        )
    return found


def find_or_create(mirror: Callable[[], apt.Mirror], say: Callable[[str], None]) -> FoundEngine:
    """The engine to use; a private Apptainer is set up where there is none.

    Raises:
        SykubeError: it could not be set up.
    """
    found = find()
    if found is None:
        private().create(mirror(), say)
        found = find()
    assert found is not None, "create() raises unless the program starts"
    return found


def _of_the_host() -> FoundEngine | None:
    for name, least in _LEAST.items():
        binary = shutil.which(name, path=PATH)
        if binary and _version(Path(binary)) >= least:
            text = ".".join(map(str, _version(Path(binary))))
            return FoundEngine(Path(binary), f"{name} {text}", {})
    return None


def _version(binary: Path) -> tuple[int, ...]:
    """`apptainer version 1.4.5` or `singularity-ce version 4.1.0` → its numbers."""
    done = run([binary, "--version"], check=False)
    match = re.search(r"(?:apptainer|singularity-ce) version (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match else (0,)
