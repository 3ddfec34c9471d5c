"""The same thing again and again: it neither leaks nor slows down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.hostdiff import HostSnapshot, leaks_since
from tests.soak.bench import Bench, Outcome, Unexpected


def init_and_delete(bench: Bench, count: int) -> Iterator[Outcome]:
    for number in range(1, count + 1):
        started = time.monotonic()
        problem, took = "", 0.0
        try:
            bench.sykube("init", *bench.plain)
            bench.sykube("delete", "--yes")
            took = time.monotonic() - started
            bench.assert_clean()
        except Unexpected as error:
            problem = str(error)
            bench.clear()
        # How long the comparison takes is the machine's affair.
        yield Outcome("cycles", f"init and delete {number}", took, problem)


def stop_and_start(bench: Bench, count: int) -> Iterator[Outcome]:
    """On one cluster; every stop leaves as much as the first one."""
    bench.sykube("init", *bench.plain)
    stopped: HostSnapshot | None = None
    try:
        for number in range(1, count + 1):
            started = time.monotonic()
            problem, took = "", 0.0
            try:
                bench.sykube("stop")
                took = time.monotonic() - started
                # Its own files go on changing: logs and data of etcd.
                found = HostSnapshot.take([Path("/run/sykube")]) if stopped is None else None
                leaks = leaks_since(stopped) if stopped else ()
                stopped = stopped or found
                started = time.monotonic()
                bench.sykube("start")
                took += time.monotonic() - started
                bench.sykube("status")
                if leaks:
                    raise Unexpected(f"stop left {len(leaks)}: {'; '.join(map(str, leaks[:5]))}")
            except Unexpected as error:
                problem = str(error)
            yield Outcome("power", f"stop and start {number}", took, problem)
    finally:
        bench.clear()
    yield bench.case("after", "delete after stop and start", bench.assert_clean)
