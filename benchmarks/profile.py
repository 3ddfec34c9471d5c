"""Where the time of one `sykube init` goes: CPU seconds by program, and the longest chain of waits.

What is counted, and what is missed: benchmarks/processes.py.

Run it as root, with nothing else to do: python3 -m benchmarks.profile [--workers 1] [--name bench]
--inits 0 makes no cluster: it profiles `sykube status` of the one of that name.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from benchmarks.measure import sykube
from benchmarks.processes import OTHERS, Sampled, Sampler
from sykube.cluster.model.state import clusters
from sykube.host.host import Host

_SHOWN_S = 0.1
_LISTED = 10


def profiled_init(name: str, workers: int) -> tuple[Sampled, dict[str, Any]]:
    """Make a cluster and delete it: what its programs took, and what `init --timings` says."""
    command = ["init", "--name", name, "--workers", str(workers), "--quiet"]
    try:
        with Sampler(name) as sampler:
            _, printed = sykube(*command, "--timings", "--output", "json")
    finally:
        sykube("delete", "--name", name, "--yes", "--quiet", check=False)
    timings: dict[str, Any] = json.loads(printed)["timings"]
    return sampler.found, timings


def profiled_status(name: str) -> Sampled:
    """What `sykube status` took."""
    with Sampler(name) as sampler:
        sykube("status", "--name", name, check=False)
    return sampler.found


def figures(found: Sampled, timings: dict[str, Any] | None, cores: int) -> dict[str, Any]:
    """The figures, by name.

    Args:
        timings: as `init --timings --output json` has them; None for no init.
    """
    began = found.first_seen_s.get("kube-apiserver")
    listened = found.api_listens_s
    # What the sampler takes would not be there without it.
    cpu_s = found.machine_s - found.sampler_s
    return {
        "wall_s": round(found.wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "cores": cores,
        "floor_s": round(cpu_s / cores, 2),
        "idle_s": round(found.idle_s, 2),
        "apiserver_start_s": (
            None if began is None or listened is None else round(listened - began, 2)
        ),
        "programs_s": {
            **_rounded(_largest(found.programs_s)),
            OTHERS: round(sum(found.others_s.values()), 2),
        },
        "others_s": _rounded(dict(list(_largest(found.others_s).items())[:_LISTED])),
        "missed_s": round(found.missed_s, 2),
        "sampler_s": round(found.sampler_s, 2),
        "first_seen_s": _rounded(found.first_seen_s),
        "steps_s": {step["step"]: step["seconds"] for step in (timings or {}).get("steps", [])},
        "chain": [part for part in (timings or {}).get("chain", []) if part["seconds"] >= _SHOWN_S],
    }


def _largest(seconds: dict[str, float]) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in seconds.items()}


def show(found: dict[str, Any]) -> None:
    """The tables."""
    rows = {
        "wall": found["wall_s"],
        "CPU of all programs": found["cpu_s"],
        f"floor: CPU / {found['cores']} cores": found["floor_s"],
        "idle, of all cores together": found["idle_s"],
        "API server, from its start until it listens": found["apiserver_start_s"],
    }
    for title, seconds in rows.items():
        print(f"  {title:45} {'-' if seconds is None else format(seconds, '6.1f') + ' s'}")
    print("CPU by program")
    for title, seconds in found["programs_s"].items():
        print(f"  {title:45} {seconds:6.1f} s")
    print(f"  {'not seen: short-lived ones, the kernel':45} {found['missed_s']:6.1f} s")
    print("steps")
    for title, seconds in found["steps_s"].items():
        print(f"  {title:45} {seconds:6.1f} s")
    print("longest chain of waits and programs")
    for part in found["chain"]:
        title = f"{part.get('node') or ''} {part['kind']} {part['name']}".strip()
        print(f"  {title:45} {part['seconds']:6.1f} s, from {part['start']:.1f} s")


def main() -> None:
    """Measure, print the tables and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inits", type=int, choices=(0, 1), default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    if not options.inits:
        sampled, timings = profiled_status(options.name), None
    elif options.name in clusters(Host()):
        # It would be deleted at the end.
        parser.error(f"there is a cluster {options.name}: choose another --name")
    else:
        sampled, timings = profiled_init(options.name, options.workers)
    found = figures(sampled, timings, len(os.sched_getaffinity(0)))
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
