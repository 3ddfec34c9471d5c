"""The cgroup of a machine that tests make (tests/machine/enter)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_DELETE_S = 120.0


def remove(name: str) -> None:
    """End what runs in it, and remove it from each hierarchy, also where a run was killed.

    Raises:
        TimeoutError: processes of it do not end within 2 minutes.
    """
    roots = [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]
    deadline = time.monotonic() + _DELETE_S
    while any(root.exists() for root in roots):
        for own in [each for root in roots for each in (*root.rglob("*/"), root)][::-1]:
            with contextlib.suppress(OSError):
                for pid in (own / "cgroup.procs").read_text(encoding="utf-8").split():
                    os.kill(int(pid), signal.SIGKILL)
                own.rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes in the cgroup {name} do not end")
        time.sleep(0.1)
