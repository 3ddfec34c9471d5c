"""What a cluster takes over its life: init of a snapshot, start after stop, status, workers.

init --from the whole command, until all is well, in turn with an ordinary init
start      the whole command, until all pods are Ready and DNS answers
status     the whole command, in turn with `kubectl get nodes` on the same cluster
node add   the whole command for one worker after the other, until it is Ready; the memory that it
           takes then, and how much more disk all nodes together take

Run it as root: python3 -m benchmarks.lifecycle [--inits 3] [--starts 5] [--looks 10] [--workers 8]
    [--name bench]
A cluster of that name is used; it keeps the workers that are added. What is to be done 0 times is
left out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import cluster_of_two, disk_mb, memory_mb, middle, shown, sykube, timed
from sykube.cluster.model import lookup
from sykube.cluster.model.state import clusters
from sykube.cluster.operations import archive
from sykube.host.host import Host
from sykube.ui import Ui

SECOND, SNAPSHOT = "bench-second", "bench"


@dataclass(frozen=True)
class Worker:
    """One `node add`: seconds, the worker's memory, the further disk of all nodes, in MB."""

    seconds: float
    memory_mb: float
    disk_mb: float


def inits_of_a_snapshot(name: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each `init --from` a snapshot of the fresh cluster and of each ordinary init."""
    if not count:
        return [], []
    sykube("stop", "--name", name, "--quiet")
    sykube("snapshot", "save", SNAPSHOT, "--name", name, "--quiet")
    of_snapshot: list[float] = []
    ordinary: list[float] = []
    for number in range(count):
        for seconds, options in ((of_snapshot, ["--from", SNAPSHOT]), (ordinary, [])):
            seconds.append(sykube("init", "--name", SECOND, "--quiet", *options)[0])
            sykube("delete", "--name", SECOND, "--yes", "--quiet")
        last = of_snapshot[-1], ordinary[-1]
        print(f"{number + 1}: init --from {last[0]:.1f} s, init {last[1]:.1f} s", flush=True)
    sykube("start", "--name", name, "--quiet")
    return of_snapshot, ordinary


def start_after_stop(name: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each stop and of each start."""
    stops, starts = [], []
    for number in range(count):
        stops.append(sykube("stop", "--name", name, "--quiet")[0])
        starts.append(sykube("start", "--name", name, "--quiet")[0])
        print(f"{number + 1}: stop {stops[-1]:.1f} s, start {starts[-1]:.1f} s", flush=True)
    return stops, starts


def status_and_kubectl(name: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds of `sykube status` and of plain `kubectl get nodes`, in turn."""
    cluster = lookup.load(Host(), name, Ui(quiet=True))
    get_nodes: list[str | Path] = [
        cluster.image.kubectl,
        "--kubeconfig",
        cluster.paths.kubeconfig,
        "get",
        "nodes",
    ]
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(count):
        ours.append(sykube("status", "--name", name)[0])
        theirs.append(timed(get_nodes)[0])
    return ours, theirs


def add_workers(name: str, up_to: int) -> list[Worker]:
    """Workers join one after the other until there are that many."""
    added = []
    while len(lookup.load(Host(), name, Ui(quiet=True)).workers) < up_to:
        disk = _disk_of_all(name)
        seconds, _ = sykube("node", "add", "--name", name, "--quiet")
        # Not of all nodes: the control plane's own ups and downs are larger than a worker.
        memory = memory_mb(lookup.load(Host(), name, Ui(quiet=True)).workers[-1].instance)
        added.append(Worker(seconds, memory, _disk_of_all(name) - disk))
        last = added[-1]
        print(
            f"node add {len(added)}: {last.seconds:.1f} s, {last.memory_mb:.0f} MB of memory, "
            f"{last.disk_mb:.0f} MB of disk",
            flush=True,
        )
    return added


def _disk_of_all(name: str) -> float:
    return sum(disk_mb(node) for node in lookup.load(Host(), name, Ui(quiet=True)).nodes)


def measure(options: argparse.Namespace, init_s: float | None) -> dict[str, Any]:
    """The figures, by name; None for what was left out.

    Args:
        init_s: seconds of the cluster's init, if it was made for this.
    """
    name = options.name
    of_snapshot, ordinary = inits_of_a_snapshot(name, options.inits)
    stops, starts = start_after_stop(name, options.starts)
    ours, theirs = status_and_kubectl(name, options.looks)
    added = add_workers(name, options.workers)
    status_s, kubectl_s = middle(ours, 3), middle(theirs, 3)
    return {
        "init_s": middle([*ordinary, *([init_s] if init_s else [])]),
        "init_from_s": middle(of_snapshot),
        "stop_s": middle(stops),
        "start_s": middle(starts),
        "status_s": status_s,
        "kubectl_get_nodes_s": kubectl_s,
        "status_ratio": round(status_s / kubectl_s, 2) if status_s and kubectl_s else None,
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
        "sykube init": shown(found["init_s"], "7.1", " s"),
        "sykube init --from SNAPSHOT": shown(found["init_from_s"], "7.1", " s"),
        "sykube stop": shown(found["stop_s"], "7.1", " s"),
        "sykube start, until pods and DNS are well": shown(found["start_s"], "7.1", " s"),
        "sykube status": shown(found["status_s"], "7.2", " s"),
        "kubectl get nodes": shown(found["kubectl_get_nodes_s"], "7.2", " s"),
        "status / kubectl get nodes": shown(found["status_ratio"], "7.2"),
    }
    if add:
        rows |= {
            f"node add, median of {len(add)}": shown(middle(add), "7.1", " s"),
            f"node add, the last of {found['workers']} workers": shown(add[-1], "7.1", " s"),
            "memory of each further worker": shown(middle(memory), "5.0", " MB"),
            "disk of each further worker": shown(middle(disk), "5.0", " MB"),
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
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    try:
        with cluster_of_two(options.name) as init_s:
            found = measure(options, init_s)
    finally:
        if SECOND in clusters(Host()):
            sykube("delete", "--name", SECOND, "--yes", "--quiet", check=False)
        if SNAPSHOT in archive.names(Host()):
            sykube("snapshot", "delete", SNAPSHOT, "--quiet", check=False)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
