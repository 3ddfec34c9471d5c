"""Wall time of `sykube init` with many workers against one with a single worker, in turn.

Both are the whole command on a warm cache, until all nodes are Ready, every pod of kube-system
runs and DNS answers.

Run it as root: python3 -m benchmarks.workers [--many 8] [--pairs 5] [--name bench]
--pairs 0 only looks whether the command line takes that many.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.measure import middle, sykube


def seconds(name: str, workers: int) -> float:
    """Seconds of an init; the cluster is deleted."""
    try:
        return sykube("init", "--name", name, "--workers", str(workers), "--quiet")[0]
    finally:
        sykube("delete", "--name", name, "--yes", "--quiet", check=False)


def main() -> None:
    """Run the pairs, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    if not options.pairs:
        sykube("init", "--name", options.name, "--workers", str(options.many), "--dry-run")
    found: dict[int, list[float]] = {1: [], options.many: []}
    for number in range(options.pairs):
        # Which one goes first changes, so that neither has the warmer host.
        for workers in sorted(found, reverse=bool(number % 2)):
            found[workers].append(seconds(options.name, workers))
            print(f"pair {number + 1}: {workers} workers {found[workers][-1]:.1f} s", flush=True)
    one, many = (middle(found[each]) for each in (1, options.many))
    ratio = round(many / one, 3) if one and many else None
    print(json.dumps({"ratio": ratio, "one_s": one, "many_s": many, **vars(options)}))


if __name__ == "__main__":
    main()
