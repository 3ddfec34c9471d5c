"""Init that fails: at every step, and at random moments."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sykube.cluster.commands import steps
from sykube.host.host import Host
from sykube.node import cgroups
from tests.soak.bench import Bench, Outcome, Unexpected

_INIT_TIMEOUT_S = 900
_INTERRUPTED = 130
_NO_SUCH_CLUSTER = 5


def steps_that_fail(bench: Bench, only: str = "") -> Iterator[Outcome]:
    """Each step before it begins, while it works, and after it; or those that match."""
    for step in steps.ALL:
        for place in ("before", "during", "after"):
            point = f"{place}:{step.name}"
            if place == "during":
                action = partial(_fails_during, bench, DURING[step.name])
            else:
                action = partial(_fails_at, bench, point)
            if re.search(only, point):
                yield bench.case("steps", point, action)


def _fails_at(bench: Bench, point: str) -> None:
    with bench.init(bench.plain, {"SYKUBE_FAIL_AT": point}) as init:
        _, errors = init.communicate(timeout=_INIT_TIMEOUT_S)
    _assert_rolled_back(init.returncode, errors, f"made to fail at {point}")
    bench.assert_clean()
    bench.assert_next_init_works()


def _fails_during(bench: Bench, damage: Damage) -> None:
    with contextlib.ExitStack() as stack:
        options = damage.prepare(bench, stack) or bench.plain
        with bench.init(options) as init:
            damage.strike(bench, init)
            _, errors = init.communicate(timeout=_INIT_TIMEOUT_S)
        _assert_rolled_back(init.returncode, errors, damage.error)
    bench.assert_clean()
    bench.assert_next_init_works()


def _assert_rolled_back(code: int, errors: str, expected: str) -> None:
    if code != 1 or "Rolling back" not in errors or not re.search(expected, errors):
        last = " / ".join(errors.strip().splitlines()[-4:])
        raise Unexpected(f"init ended with exit code {code}, not with {expected!r}: {last}")
    # What somebody else has damaged is left to them.
    left = [line for line in errors.splitlines() if "not undone" in line]
    left = [line for line in left if "it was left alone" not in line]
    if left:
        raise Unexpected(left[0])


# ── What goes wrong while a step works ───────────────────────────────────────────────────────────


def _nothing(_bench: Bench, _stack: contextlib.ExitStack) -> tuple[str, ...]:
    return ()


def _no_strike(_bench: Bench, _init: subprocess.Popen[str]) -> None:
    """What was prepared is enough."""


@dataclass(frozen=True)
class Damage:
    """Something real that makes a step fail.

    Attributes:
        error: a pattern for what init says.
        prepare: before init; returns options for it, or none where it needs none of its own.
        strike: once it runs.
    """

    error: str
    prepare: Callable[[Bench, contextlib.ExitStack], tuple[str, ...]] = _nothing
    strike: Callable[[Bench, subprocess.Popen[str]], None] = _no_strike


def _too_few_inodes(bench: Bench, stack: contextlib.ExitStack) -> tuple[str, ...]:
    """A file system with room for the cluster's folder and its record, and nothing below it."""
    mount = bench.folder / "full"
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=4,size=8g", "soak", mount], check=True)
    stack.callback(lambda: subprocess.run(["umount", mount], check=True))
    return ("--workers", "0", "--dns", "127.0.0.1", "--dest", str(mount))


def _kill_command(pattern: str) -> Callable[[Bench, subprocess.Popen[str]], None]:
    """Kill the first command of init that matches."""

    def strike(_bench: Bench, init: subprocess.Popen[str]) -> None:
        while init.poll() is None:
            for pid in _children(init.pid):
                if re.search(pattern, _command(pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.001)

    return strike


def _kill_in_nodes(step: str, program: str) -> Callable[[Bench, subprocess.Popen[str]], None]:
    """Kill a program of the nodes, or all of them, as soon as a step begins."""

    def strike(bench: Bench, init: subprocess.Popen[str]) -> None:
        victims: list[int] = []
        while init.poll() is None:
            reached = _steps(bench.name)
            if step in reached:
                for pid in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            if "nodes" in reached:
                found = [pid for pid in _in_nodes(bench.name) if program in _command(pid)]
                victims = found or victims
            time.sleep(0.001)

    return strike


def _damage_kubeconfig(bench: Bench, init: subprocess.Popen[str]) -> None:
    """Somebody else writes to the user's kubeconfig while the cluster is made."""
    while init.poll() is None and "network" not in _steps(bench.name):
        time.sleep(0.01)
    bench.cluster.kubeconfig.write_text("]not: yaml")


def _remove_kubeconfig(bench: Bench, stack: contextlib.ExitStack) -> tuple[str, ...]:
    stack.callback(bench.cluster.kubeconfig.unlink, missing_ok=True)
    return ()


DURING = {
    "data": Damage("No space left", prepare=_too_few_inodes),
    "network": Damage("iptables-restore failed", strike=_kill_command(r"^iptables-restore ")),
    "nodes": Damage("failed with exit code", strike=_kill_command(r" instance start ")),
    "control-plane": Damage("exit code", strike=_kill_command(r" kubeadm init ")),
    "objects": Damage("exit code", strike=_kill_command(r" kubeadm init .*,upload-config/kubeadm")),
    "dns": Damage("does not answer", strike=_kill_in_nodes("dns", "kube-apiserver")),
    "addons": Damage("does not answer", strike=_kill_in_nodes("addons", "kube-apiserver")),
    "runtimes": Damage("does not answer", strike=_kill_in_nodes("runtimes", "kube-apiserver")),
    "join": Damage("exit code", strike=_kill_command(r" kubeadm init phase kubelet-start ")),
    "ready": Damage("not there after", strike=_kill_in_nodes("ready", "")),
    "kubeconfig": Damage("kubeconfig", prepare=_remove_kubeconfig, strike=_damage_kubeconfig),
}


def _steps(name: str) -> dict[str, str]:
    """How far an init has come."""
    try:
        state = json.loads(Path(f"/var/lib/sykube/{name}/state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, str] = state["steps"]
    return found


def _in_nodes(name: str) -> list[int]:
    # Of cgroup v2, and one hierarchy of v1: looking must be quicker than the shortest step.
    parents = [Host().cgroups / cgroups.PARENT, Host().cgroups / "pids" / cgroups.PARENT]
    folders = [folder for parent in parents for folder in parent.glob(f"{name}-*")]
    return sorted({pid for folder in folders for pid in cgroups.processes(folder)})


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    program, *arguments = [word.decode(errors="replace") for word in words]
    return " ".join([Path(program).name, *arguments])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in thread.read_text().split()]
    return found


# ── Random moments ───────────────────────────────────────────────────────────────────────────────


def signals(bench: Bench, count: int, moments: random.Random) -> Iterator[Outcome]:
    """SIGINT and SIGKILL in turn, at any time between the start and the usual end of init."""
    started = time.monotonic()
    try:
        bench.sykube("init", *bench.plain)
    finally:
        bench.clear()
    usual = time.monotonic() - started
    for case in range(count):
        number = (signal.SIGINT, signal.SIGKILL)[case % 2]
        moment = moments.uniform(0.0, usual)
        name = f"{number.name} after {moment:.2f} s"
        yield bench.case("signals", name, partial(_interrupted, bench, number, moment))


def _interrupted(bench: Bench, number: signal.Signals, moment: float) -> None:
    with bench.init(bench.plain) as init:
        with contextlib.suppress(subprocess.TimeoutExpired):
            init.communicate(timeout=moment)
        reached = _steps(bench.name)
        if init.poll() is None:
            init.send_signal(number)
        init.communicate(timeout=_INIT_TIMEOUT_S)
    where = f"in {list(reached)[-1]}" if reached else "before the first step"
    ends = {signal.SIGINT: (0, _INTERRUPTED, -number), signal.SIGKILL: (0, -number)}[number]
    if init.returncode not in ends:
        raise Unexpected(f"{where}: init ended with exit code {init.returncode}")
    if number is signal.SIGINT and init.returncode != 0:
        _clean(bench, f"{where}, rolled back")
    deleted = bench.sykube("delete", "--yes", check=False)
    if deleted.returncode not in (0, _NO_SUCH_CLUSTER):
        last = " / ".join(deleted.stderr.strip().splitlines()[-4:])
        raise Unexpected(f"{where}: delete ended with exit code {deleted.returncode}: {last}")
    _clean(bench, f"{where}, deleted")
    bench.assert_next_init_works()


def _clean(bench: Bench, where: str) -> None:
    try:
        bench.assert_clean()
    except Unexpected as error:
        raise Unexpected(f"{where}: {error}") from error
