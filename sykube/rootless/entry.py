"""How a command comes into the namespaces: its child goes on there, and it waits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from sykube.rootless import namespaces
from sykube.rootless.host import RootlessHost

# What ends a command, or asks it to.
_FORWARDED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


def enter(host: RootlessHost, is_unused: Callable[[], bool]) -> RootlessHost | int:
    """Go on in the user's namespaces.

    Args:
        is_unused: whether they are to end with this command.

    Returns:
        The machine as it is there, in the child that goes on; in the parent the exit code of the
        child, which has ended.

    Raises:
        HostError: they cannot be made.
    """
    with namespaces.held(host) as found:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
        handles = namespaces.handles(host, found)
        child = namespaces.enter(found)
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return host.entered()
        code = _attend(child)
    if is_unused():
        namespaces.end_unused(host, found, handles)
    return code


def _attend(child: int) -> int:
    """Wait for a child and hand it what this process is asked; its exit code, as a shell has it."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        asked = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        # What a terminal sends goes to the child as well: only a process has sent this to us alone.
        if asked.si_signo != signal.SIGCHLD and asked.si_code <= 0:
            os.kill(child, asked.si_signo)
