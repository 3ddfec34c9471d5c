"""What goes on after the command has ended: a copy of its process."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Callable, Collection
from pathlib import Path


def run(action: Callable[[], None], output: Path) -> None:
    """Let a copy of this process do something, in a session of its own.

    Args:
        output: the file that it writes to.
    """
    if os.fork():
        return
    code = 1
    try:
        detach(output)
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def detach(output: Path, kept: Collection[int] = ()) -> None:
    """Leave what belongs to the command that this was: its terminal, its files, its locks.

    Args:
        output: the file that this process writes to from here on.
        kept: descriptors that it keeps.
    """
    os.setsid()
    os.chdir("/")
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(written, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # What is logged goes to a descriptor that is closed here.
    for name in ("sykube", "sykube.run"):
        logging.getLogger(name).handlers.clear()
    logging.getLogger("sykube").addHandler(logging.NullHandler())
    for number in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
