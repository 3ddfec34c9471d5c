"""Signals that ask sykube to end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

# What ends a program, or asks it to.
_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not leave half of a cluster behind."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def hold_back() -> set[int]:
    """Let signals that ask for an end wait for `attend`; the mask of before, to be set again."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING | {signal.SIGCHLD})


def attend(child: int, until: float | None = None) -> int:
    """Wait for a child and hand it the signals that this process gets, which it holds back.

    Args:
        until: when it is asked to end (SIGTERM), in seconds since the epoch.

    Returns:
        Its exit code, as a shell has it: 128 and the signal's number after a signal.
    """
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        asked = _next(until)
        if asked is None:
            os.kill(child, signal.SIGTERM)
            until = None
            continue
        # What a terminal sends goes to the child as well: only a process has sent this to us alone.
        if asked.si_signo != signal.SIGCHLD and asked.si_code <= 0:
            os.kill(child, asked.si_signo)


def _next(until: float | None) -> signal.struct_siginfo | None:
    """The next signal, or None at that time."""
    if until is None:
        return signal.sigwaitinfo(_ENDING | {signal.SIGCHLD})
    return signal.sigtimedwait(_ENDING | {signal.SIGCHLD}, max(0.0, until - time.time()))
