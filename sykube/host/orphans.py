"""Zombies: processes that process 1, which inherits orphans, does not reap.

A node's PID namespace ends when each of its processes was waited for, also those that the engine's
`exec` put into it: of one that was interrupted, by the first process out here (pid_namespaces(7)).
In a container that is any program, such as `sleep infinity`, unless it was started with an init.
"""

from __future__ import annotations

import contextlib

from sykube.host import processes
from sykube.host.host import Host

CURE = "Start this container with an init that waits for them, as `docker run --init` does"
# For those that ended just now.
_MOMENT_S = 0.2


def unreaped(host: Host) -> list[int]:
    """Their process numbers."""
    found = _zombies(host)
    if found:
        host.sleep(_MOMENT_S)
        found &= _zombies(host)
    return sorted(found)


def _zombies(host: Host) -> set[int]:
    found = set()
    for folder in host.proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if processes.stat(folder)[:2] == ["Z", "1"]:
                found.add(int(folder.name))
    return found
