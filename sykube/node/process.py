"""What the processes of a node have of their own, whatever sykube's caller had.

A process hands on to those that it starts its umask, limits, priorities, signals and more: sykube's
caller to sykube, and sykube to the engine, which would to every pod. Callers differ: a login, sudo,
cron, systemd, nohup, a batch job.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from sykube.host import capabilities, processes
from sykube.host.host import Host

UMASK = 0o022
PROC = Path("/proc")
_NONE = resource.RLIM_INFINITY
# What "infinity" in containerd.service means where systemd leaves the kernel's own fs.nr_open. Not
# more: programs in pods that close all descriptors up to the limit would take minutes.
_OPEN_FILES = 1 << 20
_STACK = 8 << 20
# containerd.service has the first two of these without a limit, and systemd all others.
_UNLIMITED = {
    "core file size": resource.RLIMIT_CORE,
    "processes": resource.RLIMIT_NPROC,
    "processor time": resource.RLIMIT_CPU,
    "file size": resource.RLIMIT_FSIZE,
    "data size": resource.RLIMIT_DATA,
    "resident memory": resource.RLIMIT_RSS,
    "address space": resource.RLIMIT_AS,
    "locked memory": resource.RLIMIT_MEMLOCK,
}
# The kernel derives their defaults from the host's memory, so these are as the first process's.
_OF_THE_HOST = {
    "pending signals": resource.RLIMIT_SIGPENDING,
    "message queues": resource.RLIMIT_MSGQUEUE,
    "nice limit": resource.RLIMIT_NICE,
    "real-time priority": resource.RLIMIT_RTPRIO,
    "real-time runtime": resource.RLIMIT_RTTIME,
}
# Numbers of ioprio_set and ioprio_get: asm/unistd_64.h, asm-generic/unistd.h; the C library has
# no function for them.
_IO_PRIORITY = {"x86_64": (251, 252), "aarch64": (30, 31)}
_IOPRIO_WHO_PROCESS = 1
_EVERY_CPU = range(8192)


def reset_attributes() -> None:
    """Give this process what a node's have; where the host permits less, the most it does."""
    os.umask(UMASK)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for kind, limits in _wanted().values():
        _limit(kind, limits)
    with contextlib.suppress(OSError):
        (PROC / "self/oom_score_adj").write_text("0", encoding="utf-8")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        # Those of the cgroup, of all these.
        os.sched_setaffinity(0, _EVERY_CPU)
    _io_priority(0, replace=True)


def inherited(host: Host, pid: int) -> Iterator[str]:
    """What a process has otherwise than `reset_attributes` would give it here, in words.

    Raises:
        OSError: the process is gone.
    """
    status = (host.proc / str(pid) / "status").read_text(encoding="utf-8")
    umask = int(_field(status, "Umask") or "0", 8)
    if umask != UMASK:
        yield f"umask {umask:03o}"
    for name, what in (("SigIgn", "ignored"), ("SigBlk", "blocked")):
        if signals := list(_signals(int(_field(status, name) or "0", 16))):
            yield f"{', '.join(signals)} {what}"
    for what, (kind, (wanted, _)) in _wanted().items():
        soft = resource.prlimit(pid, kind)[0]
        possible = (
            wanted if _has(host, "SYS_RESOURCE") else _lesser(wanted, resource.getrlimit(kind)[1])
        )
        if _lesser(soft, possible) != possible:
            yield f"{what} limited to {soft}"
    yield from _priorities(host, pid)


def first_of(host: Host, members: list[int]) -> int:
    """The process whose end is the end of all of some node's, seen from the host; 0 for none."""
    for member in members:
        with contextlib.suppress(OSError):
            space = (host.proc / str(member) / "ns/pid").readlink()
            for process in host.proc.iterdir():
                if process.name.isdigit() and _is_first(process, space):
                    return int(process.name)
    return 0


def _is_first(process: Path, space: Path) -> bool:
    try:
        if (process / "ns/pid").readlink() != space:
            return False
        status = (process / "status").read_text(encoding="utf-8")
    except OSError:
        return False
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    # Its numbers in each namespace, from ours inwards: proc_pid_status(5).
    return numbers.split()[-1] == "1"


def started_by(host: Host, parent: int, members: list[int]) -> int:
    """The process that an instance was started for, which all others of a node come from.

    The oldest: orphans become its siblings, such as the shims of pods.
    """
    origins = {pid: _origin(host, pid) for pid in members}
    children = [pid for pid, (of, _) in origins.items() if of == parent]
    return min(children, key=lambda pid: origins[pid], default=0)


def _origin(host: Host, pid: int) -> tuple[int, int]:
    """The parent of a process and the clock tick of its start; zeros for one that is gone."""
    try:
        fields = processes.stat(host.proc / str(pid))
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[19])


def _priorities(host: Host, pid: int) -> Iterator[str]:
    score = int((host.proc / str(pid) / "oom_score_adj").read_text(encoding="utf-8"))
    own = int((host.proc / "self/oom_score_adj").read_text(encoding="utf-8"))
    # Without the capability it can be lowered to what an ancestor had, which sykube is one of.
    if score < 0 or (score > 0 and (_has(host, "SYS_RESOURCE") or own < score)):
        yield f"oom_score_adj {score}"
    may_rise = _has(host, "SYS_NICE")
    nice = os.getpriority(os.PRIO_PROCESS, pid)
    if nice < 0 or (nice > 0 and may_rise):
        yield f"nice {nice}"
    policy = os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK
    if policy != os.SCHED_OTHER and may_rise:
        yield f"scheduling policy {policy}"
    cpus = os.sched_getaffinity(pid)
    if cpus < os.sched_getaffinity(1):
        yield f"bound to the processors {', '.join(map(str, sorted(cpus)))}"
    if _io_priority(pid):
        yield "an I/O priority"


def _wanted() -> dict[str, tuple[int, tuple[int, int]]]:
    """Each limit by what it is about: which one, soft and hard."""
    try:
        files = min(_OPEN_FILES, int((PROC / "sys/fs/nr_open").read_text(encoding="utf-8")))
    except OSError:
        files = _OPEN_FILES
    wanted = {
        "open files": (resource.RLIMIT_NOFILE, (files, files)),
        # An unlimited one makes the kernel lay out memory otherwise.
        "stack size": (resource.RLIMIT_STACK, (_STACK, _NONE)),
        **{what: (kind, (_NONE, _NONE)) for what, kind in _UNLIMITED.items()},
    }
    for what, kind in _OF_THE_HOST.items():
        # One of another user namespace shows them to nobody.
        with contextlib.suppress(OSError):
            wanted[what] = (kind, resource.prlimit(1, kind))
    return wanted


def _limit(kind: int, limits: tuple[int, int]) -> None:
    try:
        resource.setrlimit(kind, limits)
    except (ValueError, OSError):
        # A hard limit is raised with CAP_SYS_RESOURCE alone.
        soft, hard = (_lesser(limit, resource.getrlimit(kind)[1]) for limit in limits)
        resource.setrlimit(kind, (soft, hard))


def _lesser(one: int, other: int) -> int:
    if _NONE in (one, other):
        return other if one == _NONE else one
    return min(one, other)


def _io_priority(pid: int, *, replace: bool = False) -> int:
    """The I/O priority of a process, 0 for none; or take it away."""
    numbers = _IO_PRIORITY.get(os.uname().machine)
    if not numbers:
        return 0
    import ctypes  # Not above: it takes a while.

    library = ctypes.CDLL(None)
    if replace:
        library.syscall(numbers[0], _IOPRIO_WHO_PROCESS, pid, 0)
        return 0
    found = library.syscall(numbers[1], _IOPRIO_WHO_PROCESS, pid)
    # Class and level; a process without a class of its own is shown as best effort of level 4,
    # by Linux 5.17 and earlier as 0 (block/ioprio.c, IOPRIO_DEFAULT).
    return 0 if found < 0 or found in (0, 2 << 13 | 4) else int(found)


def _field(status: str, name: str) -> str:
    match = re.search(rf"^{name}:\s*(\S+)", status, re.MULTILINE)
    return match[1] if match else ""


def _signals(mask: int) -> Iterator[str]:
    for number in sorted(signal.valid_signals()):
        if mask >> (number - 1) & 1:
            try:
                yield signal.Signals(number).name
            except ValueError:
                yield f"signal {int(number)}"


def _has(host: Host, capability: str) -> bool:
    """Whether it counts: not a user's, where limits and priorities are the whole host's."""
    if host.grants.rootless:
        return False
    return f"CAP_{capability}" in capabilities.names(capabilities.effective(host))
