"""Starts an engine otherwise than sykube itself runs: as a program of its own, before the engine.

Between fork and exec, where Python would run it, threads that hold a lock are no more.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from sykube.errors import SykubeError
from sykube.host.run import replace_process

_CLONE_NEWUTS = 0x04000000
_SETTLE, _HOSTNAME = "--settle", "--hostname="


def wrapper(*, settled: bool = False, hostname: str = "") -> tuple[str, ...]:
    """Words to put before a command line.

    Args:
        settled: it has nothing of sykube's caller (see `process.reset_attributes`).
        hostname: what it takes for the name of this host; empty for the real one.
    """
    options = [_SETTLE] if settled else []
    if hostname and hostname != os.uname().nodename:
        options.append(f"{_HOSTNAME}{hostname}")
    if not options:
        return ()
    # Where sykube and its libraries are: not installed but found by PYTHONPATH, as an environment
    # module sets it, or by the present folder. -P: the folder of the new process is not looked at.
    folders = [str(Path(folder).absolute()) for folder in sys.path]
    program = (
        f"import sys; sys.path[:] = {folders}; from {__name__} import main; main(sys.argv[1:])"
    )
    return (sys.executable, "-P", "-c", program, *options, "--")


def main(arguments: Sequence[str]) -> None:
    """Become the command after the options of `wrapper`.

    Raises:
        SystemExit: it could not be started; standard error says why.
    """
    end = arguments.index("--")
    try:
        for option in arguments[:end]:
            if option == _SETTLE:
                from sykube.node import process

                process.reset_attributes()
            else:
                _rename_host(option.removeprefix(_HOSTNAME))
        replace_process(arguments[end + 1 :], os.environ)
    except (SykubeError, OSError) as error:
        raise SystemExit(str(error)) from None


def _rename_host(name: str) -> None:
    """Give this process a host name that no other one sees."""
    # os.unshare came with Python 3.12. Not imported above: it takes a while.
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWUTS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    socket.sethostname(name)
