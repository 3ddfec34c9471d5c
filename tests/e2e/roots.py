"""A root file system for containers, of the host's own programs, and SIFs of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from sykube.host import engines
from sykube.host.host import Host
from sykube.host.run import clean_environment

_PROGRAMS = ("dash", "cat", "sleep", "env")
_HEAD = """Bootstrap: scratch

%setup
    tar -C "$APPTAINER_ROOTFS" -xf {root}
"""


def files() -> dict[str, bytes]:
    """Files of a root with a shell."""
    found: dict[str, bytes] = {}
    for name in _PROGRAMS:
        program = Path(next(p for p in (f"/bin/{name}", f"/usr/bin/{name}") if os.path.exists(p)))
        found[f"bin/{name}"] = program.read_bytes()
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for library in re.findall(r"(/\S+)", linked.stdout):
            found[library.lstrip("/")] = Path(library).read_bytes()
    found["bin/sh"] = found["bin/dash"]
    return found


def build(sif: Path, root: bytes, sections: str) -> None:
    """Build a SIF of a root (a tar) and further sections of a definition."""
    archive, definition = sif.with_suffix(".tar"), sif.with_suffix(".def")
    archive.write_bytes(root)
    definition.write_text(_HEAD.format(root=archive) + sections, encoding="utf-8")
    engine = engines.find(Host())
    assert engine is not None
    subprocess.run(
        [engine.binary, "build", sif, definition],
        env=clean_environment(engine.environment),
        check=True,
        timeout=300,
    )
