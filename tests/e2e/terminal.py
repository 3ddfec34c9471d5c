"""Commands that run in a terminal of the test's own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping, Sequence


def run(
    command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int]
) -> tuple[int, str]:
    """Run a command to its end in a terminal of some rows and columns; its exit code and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        os.execvpe(command[0], [*command], environment)
    output = b""
    # A terminal that nobody has open any more is an error on Linux.
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65536):
            output += piece
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output.decode(errors="replace")
