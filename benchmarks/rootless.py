"""Wall time and memory of `sykube init` by an ordinary user against root's, in turn.

Both are the whole command on a warm cache, until all nodes are Ready, every pod of kube-system
runs and DNS answers; memory is that of every process of the cluster then (proportional set sizes),
of the user's with those of its namespaces.

The user is made for it and removed, and has subordinate IDs; the node image is unpacked before.

Run it as root: python3 -m benchmarks.rootless [--workers 1] [--pairs 5] [--name bench]
--pairs 0 only looks whether the user could make such a cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import memory_mb, middle, set_size_mb, timed
from sykube.cluster.model import lookup
from sykube.host.host import Host
from sykube.ui import Ui
from tests.machine import users
from tests.machine.users import User

_USER = "sykube-bench"
_FIRST_ID = 500_000


@dataclass(frozen=True)
class Side:
    """Whose cluster it is: root's where there is no user."""

    name: str
    user: User | None = None

    def sykube(self, *arguments: str) -> float:
        """Run a command on the cluster; its seconds."""
        words = ["-m", "sykube", arguments[0], "--name", self.name, *arguments[1:]]
        if not self.user:
            return timed([sys.executable, *words])[0]
        given = [f"{key}={value}" for key, value in self.user.environment.items()]
        return timed([*self.user.prefix, "-i", *given, users.PYTHON, *words])[0]

    def memory_mb(self) -> float:
        """Of every process of the cluster."""
        if not self.user:
            nodes = lookup.load(Host(), self.name, Ui(quiet=True)).nodes
            return sum(memory_mb(node.instance) for node in nodes)
        return sum(_sizes(line.split()[0] for line in self.user.processes()))

    def init(self, workers: int) -> tuple[float, float]:
        """Seconds of an init, and MB of the cluster, which is deleted."""
        try:
            seconds = self.sykube("init", "--workers", str(workers), "--quiet")
            return seconds, self.memory_mb()
        finally:
            self.sykube("delete", "--yes", "--quiet")


def _sizes(pids: Iterator[str]) -> Iterator[float]:
    for pid in pids:
        # One that has ended since.
        with contextlib.suppress(OSError):
            yield set_size_mb(Path("/proc") / pid)


def main() -> None:
    """Run the pairs, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"root": [], "user": []}
    memory: dict[str, list[float]] = {"root": [], "user": []}
    with users.made(_USER, ids=_FIRST_ID) as user:
        sides = {"root": Side(options.name), "user": Side(options.name, user)}
        if options.pairs:
            sides["user"].init(0)
        else:
            sides["user"].sykube("init", "--workers", str(options.workers), "--dry-run")
        for number in range(options.pairs):
            # Which one goes first changes, so that neither has the warmer host.
            for side in sorted(sides, reverse=bool(number % 2)):
                took, held = sides[side].init(options.workers)
                seconds[side].append(took)
                memory[side].append(held)
                print(f"pair {number + 1}: {side} {took:.1f} s, {held:.0f} MB", flush=True)
    root_s, user_s = middle(seconds["root"]), middle(seconds["user"])
    print(
        json.dumps(
            {
                "ratio": round(user_s / root_s, 3) if user_s and root_s else None,
                "user_s": user_s,
                "root_s": root_s,
                "user_mb": middle(memory["user"], 0),
                "root_mb": middle(memory["root"], 0),
                **vars(options),
            }
        )
    )


if __name__ == "__main__":
    main()
