"""In a batch job: that nothing of the job's clusters is left when the job ends.

A scheduler that keeps no cgroup for each job does not know what left the process tree of the job,
as the namespaces' first process does. So a process of its own waits for the job's end, ends what
runs in the namespaces, and removes the clusters' files. Where the scheduler kills that, too, at
once, the files are there until the user's next command on this host.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sykube.errors import HostError
from sykube.host import background, processes
from sykube.rootless import folders, namespaces
from sykube.rootless.host import RootlessHost
from sykube.rootless.namespaces import Namespaces

# In the clusters' folder, which stays with it as long as the process runs that holds it.
_LOCK = ".keeper"
# Slurm waits 30 s between the request to end and the kill, where its KillWait is not changed.
_GRACE_S = 20.0
_LOOK_S = 0.05
_LET_END_S = 5.0
# Slurm's process for a step of a job, which is the user's own where the user runs Slurm.
_STEP = "slurmstepd"


def start(host: RootlessHost, found: Namespaces) -> None:
    """Start the process that waits for the end of this job, where it does not run."""
    lock = os.open(host.data / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(BlockingIOError, ProcessLookupError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = namespaces.handles(host, found)
            leader = os.pidfd_open(leader_of(host, os.getpid()))
            if os.fork() == 0:
                _keep(host, found, leader, first, lock)
            for descriptor in (leader, *first):
                os.close(descriptor)
    finally:
        os.close(lock)


def let_end(host: RootlessHost, found: Namespaces) -> None:
    """Wait while the process that waits for the job's end is ending the namespaces.

    Where the job is over with this process, it would not come to the end of that.
    """
    deadline = time.monotonic() + _LET_END_S
    with contextlib.suppress(ProcessLookupError):
        first = os.pidfd_open(found.pid)
        while _is_locked(host.folders.runtime, fcntl.LOCK_SH) and time.monotonic() < deadline:
            if select.select([first], [], [], _LOOK_S)[0]:
                break
        os.close(first)


def _is_locked(path: Path, operation: int) -> bool:
    """Whether another process has a lock on it that does not let this one have one."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def leader_of(host: RootlessHost, pid: int) -> int:
    """The process by which the job began on this host: the first of its tree that is the user's."""
    while True:
        parent = int(processes.stat(host.proc / str(pid))[1])
        folder = host.proc / str(parent)
        try:
            name = (folder / "comm").read_text(encoding="utf-8").strip()
            if parent <= 1 or folder.stat().st_uid != host.grants.uid or name == _STEP:
                return pid
        except OSError:
            return pid
        pid = parent


def _keep(
    host: RootlessHost, found: Namespaces, leader: int, first: Sequence[int], lock: int
) -> None:
    """Wait, and end it all; in a child of sykube, it does not return."""
    try:
        asked, ask = os.pipe()
        background.detach(host.folders.runtime / "log", {leader, *first, lock, asked, ask})
        os.set_blocking(ask, False)
        signal.set_wakeup_fd(ask)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        ready, _, _ = select.select([leader, first[0], asked], [], [])
        if first[0] not in ready:
            _end_once_unused(host, found, first)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _end_once_unused(host: RootlessHost, found: Namespaces, first: Sequence[int]) -> None:
    """End them; commands that use them are let to end by themselves: `run` deletes its cluster."""
    deadline = time.monotonic() + _GRACE_S
    while not select.select([first[0]], [], [], _LOOK_S)[0]:
        with contextlib.suppress(BlockingIOError), contextlib.ExitStack() as stack:
            if time.monotonic() < deadline:
                stack.enter_context(namespaces.locked(host, fcntl.LOCK_EX | fcntl.LOCK_NB))
            _end(host, found, first)
            return


def _end(host: RootlessHost, found: Namespaces, first: Sequence[int]) -> None:
    try:
        # It ends when what it waits for does, and with it what removes the files.
        signal.pidfd_send_signal(first[0], signal.SIGSTOP)
        child = namespaces.enter(found)
    except (ProcessLookupError, HostError):
        # A command has ended them just now.
        shutil.rmtree(host.folders.runtime, ignore_errors=True)
        return
    if child == 0:
        try:
            # All but that one: without the others, nothing writes or is mounted.
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            time.sleep(_LOOK_S)
            remove([host.data])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    # Before the end of what a command may wait for, with which its job is over.
    shutil.rmtree(host.folders.runtime, ignore_errors=True)
    namespaces.end(first)


def take_left(host: RootlessHost) -> list[Path]:
    """Data folders of the user's jobs that have ended, under names that nobody looks for.

    They were killed with all that would have removed them.
    """
    uid, root = host.grants.uid, host.root
    for each in folders.of_jobs(host.folders, uid, root):
        other = replace(host, folders=each)
        with (
            # It is in use, or another user's.
            contextlib.suppress(OSError),
            namespaces.locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            # Where jobs have a /tmp of their own, what runs of others is not seen.
            kept = _is_locked(each.data / _LOCK, fcntl.LOCK_EX)
            if not namespaces.present(other) and not kept:
                folders.set_aside(each)
                shutil.rmtree(each.runtime, ignore_errors=True)
    return folders.aside(host.folders, uid, root)


def remove(left: Sequence[Path]) -> None:
    """Remove these folders; by the root of the user's namespaces, whose IDs have files in them."""
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
