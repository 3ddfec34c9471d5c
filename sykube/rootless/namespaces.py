"""The namespaces that all clusters of a user on a host run in: made once, entered by each command.

Made and entered here and not by unshare(1) and nsenter(1): unshare maps ranges of IDs only from
util-linux 2.38 on, and what nsenter starts gets none of the signals that end a command.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from sykube import resources
from sykube.errors import HostError
from sykube.host import delegation, granted, lock, processes
from sykube.host.files import write_atomically
from sykube.host.run import PATH
from sykube.rootless import folders, ids, scope
from sykube.rootless.host import RootlessHost
from sykube.rootless.network import RootlessNetwork
from sykube.rootless.slirp import PROGRAM, RESOLVER

# linux/sched.h. The user's comes first: it gives the right to make, and to enter, the others.
_KINDS = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "net": 0x40000000,
    "pid": 0x20000000,
}
_PR_SET_PDEATHSIG = 1
_READY_S = 30.0
_GONE_S = 20.0
_ENDING_S = 1.0
# The descriptors that their first process has beside those of every program.
_READY_FD, _LIFELINE_FD, _RECORDED_FD = 3, 4, 5


@dataclass(frozen=True)
class Namespaces:
    """Those of a user, by their first process.

    Attributes:
        pid: its number, seen from the host.
        start: the clock tick of its start: another process may get the number one day.
    """

    pid: int
    start: str


def present(host: RootlessHost) -> Namespaces | None:
    """Those that are there; None where there are none, or they have ended."""
    found = _recorded(host)
    with contextlib.suppress(OSError):
        stat = processes.stat(host.proc / str(found.pid)) if found else []
        # One that has ended is there until somebody looks.
        if found and stat[0] != "Z" and stat[19] == found.start:
            return found
    return None


def _recorded(host: RootlessHost) -> Namespaces | None:
    try:
        stored = json.loads(_record(host).read_text(encoding="utf-8"))
        return Namespaces(stored["pid"], stored["start"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def held(host: RootlessHost) -> Iterator[Namespaces]:
    """The namespaces, which stay while this is held; made where there are none.

    Raises:
        HostError: they cannot be made; says what to ask the administrator for.
    """
    while True:
        with locked(host, fcntl.LOCK_SH):
            if found := present(host):
                scope.join(host, found.pid)
                _keep_connected(host, found)
                yield found
                return
        # Only commands hold it that wait for the same, or whose namespaces have ended.
        with locked(host, fcntl.LOCK_EX):
            if not present(host):
                try:
                    if host.grants.job:
                        # Not in a folder of which others see only what its owner shows.
                        folders.make_private(host.data)
                    _make(host)
                except BaseException:
                    shutil.rmtree(host.folders.runtime, ignore_errors=True)
                    raise


def end_unused(host: RootlessHost, found: Namespaces, handles: Sequence[int]) -> None:
    """End the namespaces, and with them all that runs in them, unless a command is using them.

    Args:
        handles: as `handles` gives them; this process may be where their numbers mean nothing.
    """
    with contextlib.suppress(BlockingIOError), locked(host, fcntl.LOCK_EX | fcntl.LOCK_NB):
        if _recorded(host) == found:
            end(handles)
            if host.grants.job:
                shutil.rmtree(host.data, ignore_errors=True)
            shutil.rmtree(host.folders.runtime, ignore_errors=True)


def handles(host: RootlessHost, found: Namespaces) -> list[int]:
    """Descriptors (pidfd_open(2)) of their first process, and of slirp4netns where it runs."""
    pids = [found.pid, *_slirp(host)]
    ends = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            ends.append(os.pidfd_open(pid))
    return ends


def have_ended(handles: Sequence[int]) -> bool:
    """Whether their first process has.

    Args:
        handles: as `handles` gives them.
    """
    # It ends after all others in there, which their parents have to notice before.
    return bool(select.select(handles[:1], [], [], _ENDING_S)[0])


def cgroup(host: RootlessHost) -> str:
    """That of their processes in the hierarchy of cgroup v2, or what it would be."""
    if found := present(host):
        return delegation.path_of(host, found.pid)
    if host.grants.delegation and host.grants.delegation.bus:
        return scope.usual(host)
    return delegation.path_of(host, "self")


def enter(found: Namespaces) -> int:
    """Enter them by a child of this process.

    Returns:
        0 in the child, which is root there; its process number in the parent, which waits for it.

    Raises:
        HostError: they ended just now.
    """
    library = ctypes.CDLL(None, use_errno=True)
    cwd = _working_folder()
    try:
        descriptors = [os.open(f"/proc/{found.pid}/ns/{kind}", os.O_RDONLY) for kind in _KINDS]
        for descriptor in descriptors:
            _check(library.setns(descriptor, 0))
            os.close(descriptor)
    except OSError as error:
        raise HostError(
            f"cannot enter your clusters' namespaces: {error.strerror}",
            resolution="Run the command again.",
        ) from error
    child = os.fork()
    if child == 0:
        # As without namespaces, where an end that cannot be caught is its end.
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            os.chdir(cwd)
        except OSError:
            os.chdir("/")
    return child


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "/"


def _record(host: RootlessHost) -> Path:
    return host.folders.runtime / "namespaces.json"


@contextlib.contextmanager
def locked(host: RootlessHost, operation: int) -> Iterator[None]:
    """Hold the folder of what runs; whoever removes it, or ends the namespaces, holds it alone.

    Raises:
        BlockingIOError: another command holds it, and the operation does not wait.
    """
    folder = host.folders.runtime
    while True:
        folders.make_private(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, operation)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == folder.stat().st_ino:
                    yield
                    return
        finally:
            os.close(descriptor)


def _make(host: RootlessHost) -> None:
    """Make them, with their first process and the way to the world."""
    granted.require(host)
    log = host.folders.runtime / "log"
    log.unlink(missing_ok=True)
    said, says = os.pipe()
    go, starts = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(said)
        os.close(starts)
        _become_first(host, log, says, go)
    os.close(says)
    os.close(go)
    try:
        with os.fdopen(said, "rb", buffering=0) as answers:
            _expect(_line(answers), b"unshared\n", log)
            ids.map_into(host, middle, host.ids)
            os.write(starts, b"go")
            first = _line(answers)
            pid = int(first) if first.strip().isdigit() else 0
            _expect(_line(answers), b"ready\n", log)
        found = Namespaces(pid, processes.stat(host.proc / str(pid))[19])
        try:
            # Of those before, which may have been killed.
            RootlessNetwork(host.slirp).forget()
            # And with it slirp4netns, which is to outlive a login as they do.
            scope.join(host, found.pid)
            _connect(host, found)
            record = {"pid": found.pid, "start": found.start}
            write_atomically(_record(host), json.dumps(record), mode=0o600)
            # One that was killed just now is made again.
            with contextlib.suppress(BrokenPipeError):
                os.write(starts, b"recorded\n")
        except BaseException:
            end(handles(host, found))
            raise
    finally:
        os.close(starts)
        os.waitpid(middle, 0)


def _line(answers: RawIOBase) -> bytes:
    ready, _, _ = select.select([answers], [], [], _READY_S)
    return answers.readline() if ready else b""


def _expect(line: bytes, wanted: bytes, log: Path) -> None:
    if line == wanted:
        return
    number = line.removeprefix(b"errno ").strip()
    if number.isdigit():
        raise _refused(int(number))
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    raise HostError(
        "your clusters' namespaces cannot be set up on this host",
        details="\n".join(text.splitlines()[-5:]),
        resolution="docs/rootless.md says what it must have; send your administrator this.",
    )


def _refused(number: int) -> HostError:
    """The error for what unshare(2) failed with."""
    ask = "Ask the administrator what forbids them: a seccomp profile, as containers have?"
    if number in (errno.ENOSPC, errno.EUSERS):
        ask = "Ask the administrator for: sysctl -w user.max_user_namespaces=10000"
    return HostError(
        "this host lets users have no user namespaces",
        details=os.strerror(number),
        resolution=ask,
    )


def _become_first(host: RootlessHost, log: Path, says: int, go: int) -> None:
    """Be the parent of the namespaces' first process, in a child of sykube; it does not return."""
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _join_cgroups(host)
        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(sum(_KINDS.values())) != 0:
            os.write(says, b"errno %d\n" % ctypes.get_errno())
            os._exit(1)
        os.write(says, b"unshared\n")
        if os.read(go, 2) != b"go":
            os._exit(1)
        child = os.fork()
        if child == 0:
            _exec_first(host, says, go)
        os.write(says, b"%d\n" % child)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _exec_first(host: RootlessHost, says: int, go: int) -> None:
    _, lifeline = os.pipe()
    wanted = {_READY_FD: says, _LIFELINE_FD: lifeline, _RECORDED_FD: go}
    # Out of the way of the numbers that they shall have.
    moved = {number: fcntl.fcntl(each, fcntl.F_DUPFD, 10) for number, each in wanted.items()}
    for number, descriptor in moved.items():
        os.dup2(descriptor, number)
        os.set_inheritable(number, True)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.closerange(_RECORDED_FD + 1, 1 << 16)
    script = resources.folder("definitions") / "host/rootless-init"
    words = ["sh", str(script), str(host.folders.runtime), RESOLVER]
    os.execve("/bin/sh", words, {"PATH": PATH, "LC_ALL": "C.UTF-8"})


def _join_cgroups(host: RootlessHost) -> None:
    """Move this process into the cgroups that the user was given, where there are any.

    Its cgroup namespace begins there, and so nodes find these as the root of each hierarchy.
    """
    for folder in host.granted_cgroups():
        (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
    if host.grants.delegation and host.grants.delegation.bus:
        scope.begin(host)


def _keep_connected(host: RootlessHost, found: Namespaces) -> None:
    """Start slirp4netns again where it has died."""
    if _slirp(host):
        return
    with lock.in_turn(host.folders.runtime):
        if not _slirp(host):
            _connect(host, found)
    RootlessNetwork(host.slirp).restore()


def _slirp(host: RootlessHost) -> list[int]:
    """The process number of slirp4netns, where it runs."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(host.slirp.record.read_text(encoding="utf-8"))
        process = host.proc / str(pid)
        name = (process / "comm").read_text(encoding="utf-8").strip()
        # One that has ended keeps its name until somebody looks.
        if name == PROGRAM and processes.stat(process)[0] != "Z":
            return [pid]
    return []


def _connect(host: RootlessHost, found: Namespaces) -> None:
    # Reading from it ends when the first process does, whose other end it is.
    lifeline = os.open(host.proc / str(found.pid) / "fd" / str(_LIFELINE_FD), os.O_RDONLY)
    try:
        log = host.folders.runtime / "slirp4netns.log"
        host.slirp.start(host, found.pid, lifeline, log)
    finally:
        os.close(lifeline)


def end(handles: Sequence[int]) -> None:
    """Kill the first process, and wait until it and slirp4netns, which follows it, are gone."""
    for number, end in enumerate(handles):
        if number == 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
        select.select([end], [], [], _GONE_S)
        os.close(end)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number or errno.EIO))
