"""What the programs of this folder share: running sykube, and what nodes take."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sykube.node import cgroups


def sykube(*arguments: str | Path, check: bool = True) -> tuple[float, str]:
    """Run the command line; seconds and what it printed."""
    return timed([sys.executable, "-m", "sykube", *arguments], check=check)


def timed(command: Sequence[str | Path], *, check: bool = True) -> tuple[float, str]:
    """Run a command; seconds and what it printed."""
    # An installed sykube has its bytecode; a checkout writes it unless this forbids it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.monotonic()
    done = subprocess.run(
        command, check=check, stdout=subprocess.PIPE, text=True, timeout=900, env=environment
    )
    return time.monotonic() - started, done.stdout


def memory_mb(instance: str) -> float:
    """Proportional set sizes of a node's processes: what is shared counts once in all."""
    pids = {
        pid
        for hierarchy in Path("/sys/fs/cgroup").glob(f"**/{cgroups.path_of(instance)}")
        for pid in cgroups.processes(hierarchy)
    }
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total / 1024


def disk_mb(folder: Path) -> float:
    """What a node's files take beside the node image, which all nodes share."""
    done = subprocess.run(["du", "-sxk", folder], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[0]) / 1024
