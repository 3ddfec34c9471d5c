"""Programs of the host that the test needs, and how they are called."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Program → the Debian package that brings it.
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
}


class VmError(Exception):
    """The test could not be run, or what it tested failed; the text is for people."""


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def run(argv: Sequence[str | Path], *, timeout: float, env: dict[str, str] | None = None) -> str:
    """Run a program of the host to its end; what it printed.

    Raises:
        VmError: it failed or took too long; holds the end of its output.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            text=True,
            errors="replace",
            env=os.environ | (env or {}),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VmError(f"did not end within {timeout:.0f} s: {shlex.join(words)}") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise VmError(f"exit code {done.returncode}: {shlex.join(words)}\n{tail}")
    return done.stdout


def require_root() -> None:
    """File systems with files of root are made here, so root it must be.

    Raises:
        VmError: this process is not root's.
    """
    if os.geteuid() != 0:
        raise VmError("this needs root, to make the guest's disks: run it with sudo")


def install_missing() -> None:
    """Install the Debian packages that are not there, and say so.

    Raises:
        VmError: apt-get failed.
    """
    missing = sorted(package for program, package in PROGRAMS.items() if not shutil.which(program))
    if not missing:
        return
    say(f"Installing {' '.join(missing)}, which the guest needs")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-q", "update"], timeout=600, env=environment)
    command = ["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing]
    run(command, timeout=1800, env=environment)
