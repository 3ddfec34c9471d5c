"""What a cluster takes over its life: init of a snapshot, start after stop, status, workers.

init --from the whole command, until all is well, in turn with an ordinary init
start      the whole command, until all pods are Ready and DNS answers
status     the whole command, in turn with `kubectl get nodes` on the same cluster
node add   the whole command for one worker after the other, until it is Ready; the memory that it
           takes then, and how much more disk all nodes together take

Run it as root: python3 -m benchmarks.lifecycle [--inits 3] [--starts 5] [--looks 10] [--workers 8]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import disk_mb, memory_mb, sykube, timed
from sykube.cluster import archive, lookup
from sykube.cluster.state import clusters
from sykube.ui import Ui

NAME, SECOND, SNAPSHOT = "bench", "bench-second", "bench"


@dataclass(frozen=True)
class Worker:
    """One `node add`: seconds, the worker's memory, the further disk of all nodes, in MB."""

    seconds: float
    memory_mb: float
    disk_mb: float


def inits_of_a_snapshot(count: int) -> tuple[list[float], list[float]]:
    """Seconds of each `init --from` a snapshot of the fresh cluster and of each ordinary init."""
    sykube("stop", "--name", NAME, "--quiet")
    sykube("snapshot", "save", SNAPSHOT, "--name", NAME, "--quiet")
    of_snapshot: list[float] = []
    ordinary: list[float] = []
    for number in range(count):
        for seconds, options in ((of_snapshot, ["--from", SNAPSHOT]), (ordinary, [])):
            seconds.append(sykube("init", "--name", SECOND, "--quiet", *options)[0])
            sykube("delete", "--name", SECOND, "--yes", "--quiet")
        last = of_snapshot[-1], ordinary[-1]
        print(f"{number + 1}: init --from {last[0]:.1f} s, init {last[1]:.1f} s", flush=True)
    sykube("start", "--name", NAME, "--quiet")
    return of_snapshot, ordinary


def start_after_stop(count: int) -> tuple[list[float], list[float]]:
    """Seconds of each stop and of each start."""
    stops, starts = [], []
    for number in range(count):
        stops.append(sykube("stop", "--name", NAME, "--quiet")[0])
        starts.append(sykube("start", "--name", NAME, "--quiet")[0])
        print(f"{number + 1}: stop {stops[-1]:.1f} s, start {starts[-1]:.1f} s", flush=True)
    return stops, starts


def status_and_kubectl(count: int) -> tuple[list[float], list[float]]:
    """Seconds of `sykube status` and of plain `kubectl get nodes`, in turn."""
    cluster = lookup.load(NAME, Ui(quiet=True))
    get_nodes: list[str | Path] = [
        cluster.image.kubectl,
        "--kubeconfig",
        cluster.paths.kubeconfig,
        "get",
        "nodes",
    ]
    ours, theirs = [], []
    for _ in range(count):
        ours.append(sykube("status", "--name", NAME)[0])
        theirs.append(timed(get_nodes)[0])
    return ours, theirs


def add_workers(up_to: int) -> list[Worker]:
    """Workers join one after the other until there are that many."""
    added = []
    while len(lookup.load(NAME, Ui(quiet=True)).workers) < up_to:
        disk = _disk_of_all()
        seconds, _ = sykube("node", "add", "--name", NAME, "--quiet")
        # Not of all nodes: the control plane's own ups and downs are larger than a worker.
        memory = memory_mb(lookup.load(NAME, Ui(quiet=True)).workers[-1].instance)
        added.append(Worker(seconds, memory, _disk_of_all() - disk))
        last = added[-1]
        print(
            f"node add {len(added)}: {last.seconds:.1f} s, {last.memory_mb:.0f} MB of memory, "
            f"{last.disk_mb:.0f} MB of disk",
            flush=True,
        )
    return added


def _disk_of_all() -> float:
    return sum(disk_mb(node.folder) for node in lookup.load(NAME, Ui(quiet=True)).nodes)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures, by name."""
    init_s, _ = sykube("init", "--name", NAME, "--quiet")
    print(f"init: {init_s:.1f} s", flush=True)
    of_snapshot, ordinary = inits_of_a_snapshot(options.inits)
    stops, starts = start_after_stop(options.starts)
    ours, theirs = status_and_kubectl(options.looks)
    added = add_workers(options.workers)
    status_s, kubectl_s = median(ours), median(theirs)
    return {
        "init_s": round(median([init_s, *ordinary]), 2),
        "init_from_s": round(median(of_snapshot), 2),
        "stop_s": round(median(stops), 2),
        "start_s": round(median(starts), 2),
        "status_s": round(status_s, 3),
        "kubectl_get_nodes_s": round(kubectl_s, 3),
        "status_ratio": round(status_s / kubectl_s, 2),
        "node_add_s": [round(worker.seconds, 2) for worker in added],
        "node_memory_mb": [round(worker.memory_mb) for worker in added],
        "node_disk_mb": [round(worker.disk_mb) for worker in added],
        "inits": options.inits,
        "starts": options.starts,
        "looks": options.looks,
        "workers": options.workers,
    }


def show(found: dict[str, Any]) -> None:
    """The table."""
    add, memory, disk = found["node_add_s"], found["node_memory_mb"], found["node_disk_mb"]
    print(
        f"\nmedians of {found['inits']} inits of a snapshot, {found['starts']} stops and starts, "
        f"{found['looks']} looks"
    )
    rows = {
        "sykube init": f"{found['init_s']:7.1f} s",
        "sykube init --from SNAPSHOT": f"{found['init_from_s']:7.1f} s",
        "sykube stop": f"{found['stop_s']:7.1f} s",
        "sykube start, until pods and DNS are well": f"{found['start_s']:7.1f} s",
        "sykube status": f"{found['status_s']:7.2f} s",
        "kubectl get nodes": f"{found['kubectl_get_nodes_s']:7.2f} s",
        "status / kubectl get nodes": f"{found['status_ratio']:7.2f}",
    }
    if add:
        rows |= {
            f"node add, median of {len(add)}": f"{median(add):7.1f} s",
            f"node add, the last of {found['workers']} workers": f"{add[-1]:7.1f} s",
            "memory of each further worker": f"{median(memory):5.0f} MB",
            "disk of each further worker": f"{median(disk):5.0f} MB",
        }
    for title, figure in rows.items():
        print(f"  {title:45} {figure}")


def main() -> None:
    """Measure, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inits", type=int, default=3)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--looks", type=int, default=10)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    try:
        found = measure(options)
    finally:
        for name in {NAME, SECOND} & {*clusters()}:
            sykube("delete", "--name", name, "--yes", "--quiet", check=False)
        if SNAPSHOT in archive.names():
            sykube("snapshot", "delete", SNAPSHOT, "--quiet", check=False)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
