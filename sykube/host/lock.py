"""Locks that end with their process and leave no file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from sykube.errors import ExitCode, SykubeError
from sykube.host.host import Host

_POLL_S = 0.05
_HOST = "host.lock"
_HOST_TIMEOUT_S = 60.0


class LockedError(SykubeError):
    """Another command holds the lock; says which."""

    def __init__(self, what: str, holder: str) -> None:
        super().__init__(
            f"another sykube command works on {what}",
            details=f"process {holder or 'unknown'}",
            resolution="Wait until it has ended, then run the command again.",
            exit_code=ExitCode.LOCKED,
        )


@contextlib.contextmanager
def exclusive(path: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file.

    Args:
        what: what is locked, for the error.
        wait: seconds to wait for another holder.

    Raises:
        LockedError: another command holds it all that time.
    """
    deadline = time.monotonic() + wait
    while (descriptor := _try(path, what, last=time.monotonic() >= deadline)) is None:
        time.sleep(_POLL_S)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def host_settings(host: Host) -> contextlib.AbstractContextManager[None]:
    """Hold what clusters share: the host's settings, their record, and the choice of subnets.

    Raises:
        LockedError: another command holds it for a minute.
    """
    return exclusive(host.locks / _HOST, "this host's settings", _HOST_TIMEOUT_S)


def remove_abandoned(host: Host, path: Path) -> None:
    """Remove a lock file whose holder was killed, and the host's own; those that are held stay."""
    for file in (path, host.locks / _HOST):
        with contextlib.suppress(LockedError):
            if file.exists():
                with exclusive(file, ""):
                    pass


def _try(path: Path, what: str, *, last: bool) -> int | None:
    """A descriptor that holds the lock; None where another has it and this is not the last try."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        # The holder before removed the folder in between.
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode().strip()
        os.close(descriptor)
        if last:
            raise LockedError(what, holder) from None
        return None
    # The holder before may have unlinked the file that was just opened.
    with contextlib.suppress(FileNotFoundError):
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Hold a folder that is made where it is missing; a second command waits for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
