"""Signals that ask sykube to end."""

from __future__ import annotations

import contextlib
import os
import signal
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


def attend(child: int) -> int:
    """Wait for a child and hand it the signals that this process gets, which it holds back.

    Returns:
        Its exit code, as a shell has it: 128 and the signal's number after a signal.
    """
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        asked = signal.sigwaitinfo(_ENDING | {signal.SIGCHLD})
        # What a terminal sends goes to the child as well: only a process has sent this to us alone.
        if asked.si_signo != signal.SIGCHLD and asked.si_code <= 0:
            os.kill(child, asked.si_signo)
