"""Standard streams of a caller who has closed them, as some schedulers and supervisors do."""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed() -> None:
    """Give closed standard streams the null device.

    The next file that is opened would take a free number, and what a program says would be written
    into it; nor could anything be said that nobody hears.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one: those below are open by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def give_up_unheard() -> None:
    """Let nothing be left that standard error does not take, as on a full disk.

    Python writes it once more as it ends, and has an exit code of its own where it cannot (120).
    """
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
