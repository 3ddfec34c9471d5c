"""What /proc says of a process."""

from __future__ import annotations

from pathlib import Path


def stat(process: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent … as proc_pid_stat(5) has them.

    Raises:
        OSError: the process is gone.
    """
    text = (process / "stat").read_text(encoding="utf-8", errors="replace")
    # The name before them, in brackets, may hold anything.
    return text.rpartition(") ")[2].split()
