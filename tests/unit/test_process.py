"""What a node's processes have of their own, seen on real processes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sykube.host.host import Host
from sykube.node import launch, process

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may take these back")


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))


def nicer() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 7)


def io_idle() -> None:
    subprocess.run(["ionice", "-c", "3", "-p", str(os.getpid())], check=True)


def oom_victim() -> None:
    Path("/proc/self/oom_score_adj").write_text("300", encoding="utf-8")


# What callers hand on, and the word by which it is named.
CALLERS = [
    pytest.param(lambda: os.umask(0o027), "umask 027", id="umask"),
    pytest.param(lambda: os.umask(0), "umask 000", id="no umask"),
    pytest.param(
        lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN), "SIGHUP ignored", id="nohup"
    ),
    pytest.param(blocked, "SIGUSR1 blocked", id="blocked signal"),
    pytest.param(few_files, "open files limited to 64", id="ulimit -n"),
    pytest.param(small_files, "file size limited to 1048576", id="ulimit -f"),
    pytest.param(nicer, "nice 7", id="nice", marks=root),
    pytest.param(oom_victim, "oom_score_adj 300", id="oom", marks=root),
    pytest.param(
        lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
        "scheduling policy 3",
        id="chrt",
        marks=root,
    ),
    pytest.param(
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        "bound to the processors",
        id="taskset",
        marks=pytest.mark.skipif(len(os.sched_getaffinity(1)) < 2, reason="one processor"),
    ),
    pytest.param(io_idle, "an I/O priority", id="ionice", marks=root),
]


def seen(wrapper: Sequence[str], caller: Callable[[], object]) -> list[str]:
    """What is found of a program that was started with what a caller has."""
    with subprocess.Popen(
        [*wrapper, "sleep", "60"], preexec_fn=lambda: (caller(), None)[1]
    ) as program:
        try:
            comm = Path(f"/proc/{program.pid}/comm")
            while comm.read_text(encoding="utf-8") != "sleep\n":
                assert program.poll() is None
                time.sleep(0.01)
            return list(process.inherited(Host(), program.pid))
        finally:
            program.kill()


@pytest.mark.parametrize(("caller", "named"), CALLERS)
def test_what_a_caller_hands_on_is_named_and_a_node_has_none_of_it(
    caller: Callable[[], object], named: str
) -> None:
    assert any(found.startswith(named) for found in seen((), caller))
    assert seen(launch.wrapper(settled=True), caller) == []


@root
def test_all_of_it_at_once() -> None:
    def caller() -> None:
        for each in CALLERS:
            each.values[0]()  # type: ignore[operator]

    assert seen(launch.wrapper(settled=True), caller) == []


def test_what_the_host_does_not_permit_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard limit is raised with CAP_SYS_RESOURCE alone, which containers lack."""
    real = resource.getrlimit

    def getrlimit(kind: int) -> tuple[int, int]:
        return (64, 64) if kind == resource.RLIMIT_NOFILE else real(kind)

    # The capabilities of the test's own process, and limits that it has or not.
    monkeypatch.setattr(process, "_has", lambda *_: False)
    assert "open files limited to 64" in seen((), few_files)
    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert "open files limited to 64" not in seen((), few_files)


def test_a_limit_that_cannot_be_raised_is_used_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []

    def setrlimit(_kind: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if limits[1] > 20000:
            raise ValueError("not allowed to raise maximum limit")

    # Limits that the test's own process has or not.
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 20000))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    process._limit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
    assert asked == [(1 << 20, 1 << 20), (20000, 20000)]


def test_what_needs_nothing_is_started_by_nothing() -> None:
    assert launch.wrapper() == ()
    assert launch.wrapper(hostname=os.uname().nodename) == ()


@root
def test_a_host_name_of_its_own() -> None:
    before = socket.gethostname()
    words = [*launch.wrapper(hostname="as-it-was"), "uname", "-n"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "as-it-was\n"
    assert socket.gethostname() == before


def test_sykube_need_not_be_installed() -> None:
    """An environment module, or a checkout, is found by PYTHONPATH or the present folder."""
    python, *words = launch.wrapper(settled=True)
    # -S: nothing that is installed beside this Python, such as sykube itself, is found.
    done = subprocess.run(
        [python, "-S", *words, "true"], env={}, cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_is_not_there_is_said() -> None:
    words = [*launch.wrapper(settled=True), "/nonexistent/apptainer"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "could not start /nonexistent/apptainer: No such file" in done.stderr
    assert "Traceback" not in done.stderr
