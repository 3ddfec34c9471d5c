"""What takes longer than CI has, on a real engine: python3 -m tests.soak [--seed N] [--parts …]

cycles   init and delete, again and again
power    stop and start, again and again
steps    every step of init fails for real: before it, while it works, after it
signals  init is interrupted or killed at random moments
interrupts  Ctrl-C at random moments of start, stop, node add and node delete
kills    kill -9 of what an ordinary user's cluster hangs on, at random moments
pods     200 pods under Apptainer are started and stopped, 20 at a time

After each case the host must be as it was before the first one. As the last line it prints one
JSON object. It ends what it started when it is interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import FrameType

from tests.e2e.cluster import TestCluster
from tests.soak import failures, interrupts, kills, pods, repetition
from tests.soak.bench import Bench, Outcome

PARTS = ("cycles", "power", "steps", "signals", "interrupts", "kills", "pods")
# The last ones are not much slower than the first ones.
SLOWDOWN_MAX = 1.2


@dataclass(frozen=True)
class Options:
    parts: list[str]
    seed: int
    cycles: int
    signals: int
    interrupts: int
    kills: int
    pods: int
    only: str


def main() -> int:
    options = parse()
    if os.geteuid() != 0:
        print("soak needs root, as sykube does", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, terminated)
    print(f"seed {options.seed}: repeat with --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sykube-soak-") as folder:
        bench = Bench(TestCluster("soak", Path(folder)))
        outcomes: list[Outcome] = []
        try:
            for outcome in cases(bench, options):
                outcomes.append(outcome)
                print(outcome, flush=True)
        except KeyboardInterrupt:
            print("interrupted: removing what is there", flush=True)
            return 130
        finally:
            bench.clear()
    return summary(outcomes, options)


def cases(bench: Bench, options: Options) -> Iterator[Outcome]:
    random_moments = random.Random(options.seed)
    for part in options.parts:
        if part == "cycles":
            yield from repetition.init_and_delete(bench, options.cycles)
        elif part == "power":
            yield from repetition.stop_and_start(bench, options.cycles)
        elif part == "steps":
            yield from failures.steps_that_fail(bench, options.only)
        elif part == "interrupts":
            yield from interrupts.interrupts(bench, options.interrupts, random_moments)
        elif part == "pods":
            yield from pods.start_and_stop(bench, options.pods)
        elif part == "kills":
            yield from kills.kills(options.kills, random_moments)
        else:
            yield from failures.signals(bench, options.signals, random_moments)


def summary(outcomes: list[Outcome], options: Options) -> int:
    """A table for people, JSON for machines; the exit code."""
    slowed = {part: ratio for part in options.parts if (ratio := slowdown(outcomes, part))}
    print(
        f"\n{'part':10} {'cases':>5} {'failed':>6} {'median':>8} {'longest':>8}  last 3 / first 3"
    )
    for part in options.parts:
        own = [outcome for outcome in outcomes if outcome.part == part]
        failed = sum(bool(outcome.problem) for outcome in own)
        seconds = [outcome.seconds for outcome in own] or [0.0]
        shown = f"{slowed[part]:.2f}" if part in slowed else ""
        print(
            f"{part:10} {len(own):5} {failed:6} {median(seconds):6.1f} s {max(seconds):6.1f} s"
            f"  {shown}"
        )
    problems = [f"{o.part} {o.case}: {o.problem}" for o in outcomes if o.problem]
    problems += [
        f"{part}: {ratio:.2f} times as slow at its end as at its beginning"
        for part, ratio in slowed.items()
        if ratio > SLOWDOWN_MAX
    ]
    for problem in problems:
        print(f"FAILED {problem}")
    found = {
        "seed": options.seed,
        "cases": {part: sum(o.part == part for o in outcomes) for part in options.parts},
        "problems": problems,
        "slowdown": {part: round(ratio, 3) for part, ratio in slowed.items()},
        "seconds": {
            part: [round(o.seconds, 1) for o in outcomes if o.part == part]
            for part in options.parts
        },
    }
    print(json.dumps(found))
    return 1 if problems else 0


def slowdown(outcomes: list[Outcome], part: str) -> float:
    """Median of the last three by that of the first three, where the same thing is repeated."""
    seconds = [outcome.seconds for outcome in outcomes if outcome.part == part]
    if part not in ("cycles", "power") or len(seconds) < 6:
        return 0.0
    return median(seconds[-3:]) / median(seconds[:3])


def parse() -> Options:
    parser = argparse.ArgumentParser(prog="python3 -m tests.soak", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--interrupts", type=int, default=6, help="of each command")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pods", type=int, default=200, help=f"{pods.AT_ONCE} at a time")
    parser.add_argument("--only", default="", metavar="PATTERN", help="of the steps: before:data …")
    given = parser.parse_args()
    return Options(**vars(given))


def terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
