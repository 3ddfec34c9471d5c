"""How a command comes into the namespaces: its child goes on there, and it waits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from sykube.errors import SykubeError
from sykube.host import signals
from sykube.rootless import keeper, namespaces, outside
from sykube.rootless.host import RootlessHost
from sykube.rootless.host_ports import HostPorts

# As a shell has it.
_KILLED = 128 + signal.SIGKILL


def enter(host: RootlessHost, is_unused: Callable[[], bool]) -> RootlessHost | int:
    """Go on in the user's namespaces.

    Args:
        is_unused: whether they are to end with this command.

    Returns:
        The machine as it is there, in the child that goes on; in the parent the exit code of the
        child, which has ended.

    Raises:
        HostError: they cannot be made.
        SykubeError: they ended while the child was there.
    """
    left = keeper.take_left(host)
    with namespaces.held(host) as found:
        if host.grants.job:
            keeper.start(host, found)
        _flush()
        before = signals.hold_back()
        handles = namespaces.handles(host, found)
        host_ports = HostPorts.open(host.proc)
        log = host.folders.runtime / "log"
        asks = outside.begin(host, log, host.manager_environment) if host.asks else None
        child = namespaces.enter(found)
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            keeper.remove(left)
            return host.entered(host_ports, asks)
        code = signals.attend(child)
        if asks:
            asks.end()
    if code == _KILLED and namespaces.have_ended(handles):
        raise SykubeError(
            "your clusters' namespaces ended meanwhile, and all that ran in them",
            details="their first process was killed: by you, for want of memory, or at a logout",
            resolution="`sykube start` brings a cluster back; `sykube delete` removes one that "
            "init did not finish.",
        )
    if is_unused():
        namespaces.end_unused(host, found, handles)
        if host.grants.job:
            keeper.let_end(host, found)
    return code


def go_ahead() -> int | None:
    """Let a child of this process go on here, and wait for it.

    Returns:
        None in the child; its exit code in the parent.
    """
    _flush()
    before = signals.hold_back()
    child = os.fork()
    code = signals.attend(child) if child else None
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code


def _flush() -> None:
    """What is said already shall be said once."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
