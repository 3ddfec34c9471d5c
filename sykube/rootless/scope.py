"""On cgroup v2: what runs in the namespaces is in a scope of the user's own systemd.

It has a cgroup that is the user's to share out, and is no part of the login that began it. Only
systemd takes a process out of a login: each command asks for itself, so that what it starts can go
into the nodes' cgroups.

Sources: https://systemd.io/CGROUP_DELEGATION/; org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import PurePosixPath

from sykube.errors import HostError
from sykube.host import delegation
from sykube.host.run import Completed
from sykube.rootless.host import RootlessHost

UNIT = "sykube.scope"
_SERVICE = (
    "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
)  # fmt: skip
# The one before ends with its last process, of which systemd hears a little later.
_BEGUN_S = 10.0
# Between the request to end, which lets etcd close its files, and the kill: the first process of a
# PID namespace takes no request. The usual 90 s would be those of each logout and shutdown.
_STOP_US = 10_000_000
_LOOK_S = 0.02


def usual(host: RootlessHost) -> str:
    """Where the user's systemd has a scope, by its usual place."""
    uid = host.grants.uid
    return f"/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/{UNIT}"


def begin(host: RootlessHost) -> None:
    """Move this process into a new scope; it stays where it is, and says why, where it cannot."""
    deadline = host.monotonic() + _BEGUN_S * host.patience
    done: Completed | None = None
    while not _is_in_one(delegation.path_of(host, "self")):
        if host.monotonic() > deadline:
            print(done.stderr if done else f"{UNIT} does not begin", file=sys.stderr)
            return
        if done is None or not done.ok:
            done = _start(host)
        host.sleep(_LOOK_S)


def _start(host: RootlessHost) -> Completed:
    properties = {
        "Description": ("s", "Kubernetes clusters of sykube"),
        "PIDs": ("au", "1", str(os.getpid())),
        "Delegate": ("b", "true"),
        "CollectMode": ("s", "inactive-or-failed"),
        "TimeoutStopUSec": ("t", str(_STOP_US)),
    }
    words = [word for name, value in properties.items() for word in (name, *value)]
    arguments = (UNIT, "fail", str(len(properties)), *words, "0")
    return _call(host, "StartTransientUnit", "ssa(sv)a(sa(sv))", *arguments)


def join(host: RootlessHost, pid: int) -> None:
    """Move this process to the first one of namespaces, where that is in a scope.

    Raises:
        HostError: systemd does not let it.
    """
    theirs = delegation.path_of(host, pid)
    if not _is_in_one(theirs) or delegation.path_of(host, "self") == theirs:
        return
    own = str(os.getpid())
    # From a unit of the user's systemd it may go by itself.
    with contextlib.suppress(OSError):
        (host.cgroups / theirs.lstrip("/") / "cgroup.procs").write_text(own, encoding="utf-8")
        return
    below = theirs.partition(UNIT)[2] or "/"
    done = _call(host, "AttachProcessesToUnit", "ssau", UNIT, below, "1", own)
    if not done.ok:
        raise HostError(
            "your systemd does not let this command run beside your clusters",
            details=done.stderr.strip(),
            resolution="Look at `systemctl --user status`; in a session of `su` or `sudo`, log in "
            "by ssh or at a console instead.",
        )


def _is_in_one(cgroup: str) -> bool:
    return UNIT in PurePosixPath(cgroup).parts


def _call(host: RootlessHost, method: str, signature: str, *arguments: str) -> Completed:
    # Not systemd-run(1), which only moves what it starts.
    address = f"--address=unix:path={delegation.bus_of(host)}"
    words = ["busctl", address, "call", *_SERVICE, method, signature, *arguments]
    return host.run(words, check=False)
