"""Ctrl-C at random moments of the commands that change a cluster: it is there, and heals."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tests.soak.bench import Bench, Outcome, Unexpected

_INTERRUPTED = 130
_TIMEOUT_S = 900


@dataclass(frozen=True)
class Command:
    """A command to interrupt.

    Attributes:
        prepare: commands that bring the cluster to where it makes sense.
    """

    words: str
    prepare: tuple[str, ...] = ()


COMMANDS = (
    Command("stop"),
    Command("start", ("stop",)),
    Command("node add"),
    Command("node delete node2", ("node add",)),
)


def interrupts(bench: Bench, count: int, moments: random.Random) -> Iterator[Outcome]:
    """SIGINT `count` times for each command, between its start and its usual end."""
    bench.sykube("init", *bench.plain)
    try:
        for command in COMMANDS:
            _workers(bench, 1)
            for words in command.prepare:
                bench.sykube(words)
            started = time.monotonic()
            bench.sykube(command.words)
            usual = time.monotonic() - started
            bench.sykube("start")
            for _ in range(count):
                moment = moments.uniform(0.0, usual)
                name = f"{command.words} after {moment:.2f} s"
                action = partial(_interrupted, bench, command, moment)
                yield bench.case("interrupts", name, action, clear=False)
    finally:
        bench.clear()
    yield bench.case("after", "delete after interrupts", bench.assert_clean)


def _interrupted(bench: Bench, command: Command, moment: float) -> None:
    _workers(bench, 1)
    for words in command.prepare:
        bench.sykube(words)
    with bench.running(command.words) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=moment)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=_TIMEOUT_S)
    if process.returncode not in (0, _INTERRUPTED, -signal.SIGINT) and not _in_python(errors):
        last = " / ".join(errors.strip().splitlines()[-4:])
        raise Unexpected(f"ended with exit code {process.returncode}: {last}")
    bench.sykube("start")
    bench.sykube("status")


def _in_python(errors: str) -> bool:
    """Whether Python itself was interrupted, before it had read any of sykube."""
    return errors.rstrip().endswith("KeyboardInterrupt") and "/sykube/" not in errors


def _workers(bench: Bench, count: int) -> None:
    """Bring the cluster to a number of workers, wherever the case before has left it.

    Raises:
        Unexpected: that fails, or it is not healthy afterwards.
    """
    bench.sykube("start")
    listed = json.loads(bench.sykube("node list", "--output", "json").stdout)
    workers = [node["name"] for node in listed if node["name"].startswith("node")]
    for name in workers[count:]:
        bench.sykube(f"node delete {name}")
    for _ in range(count - len(workers)):
        bench.sykube("node add")
    bench.sykube("status")
