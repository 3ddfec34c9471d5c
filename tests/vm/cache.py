"""Folders of sykube's cache that are made once for all guests, and what makes them of Debian 13."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sykube.host import apt
from sykube.host.host import Host
from tests.vm.tools import run, say

SUITE = "trixie"


def base() -> Path:
    """Where these folders and logs are: vm below sykube's cache folder."""
    folder = Host().cache / "vm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder(name: str, key: object, text: str, make: Callable[[Path], None]) -> Path:
    """One from the cache, or made now.

    Args:
        key: what its content depends on.
        text: what making it is, for people.
        make: fills it.

    Raises:
        VmError: it could not be made.
    """
    found = base() / f"{name}-{_fingerprint(key)}"
    with _locked():
        if not found.exists():
            say(f"{text} ({found})")
            _make(found, make)
    return found


def debian(root: Path, variant: str, packages: Sequence[str], *options: str) -> None:
    """Make a root of Debian 13.

    Args:
        variant: mmdebstrap's: how much of the packages is installed, and which others are.

    Raises:
        VmError: a package could not be had.
    """
    wanted = (f"--variant={variant}", f"--include={','.join(packages)}", *options)
    sources = apt.find_mirror(Host()).sources(SUITE)
    command: list[str | Path] = ["mmdebstrap", "--quiet", *wanted, SUITE, root, *sources]
    run(command, timeout=1800, env={"LC_ALL": "C.UTF-8", "TMPDIR": str(root.parent)})


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder of the cache: it has its name only once it is complete."""
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        work.chmod(0o755)
        fill(work)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fingerprint(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One at a time: a second run waits and finds what the first one made."""
    with (base() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
