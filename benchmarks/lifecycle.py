"""What a cluster takes over its life, against stock kubeadm init + join and an ordinary init.

One round, of a cluster of two nodes, each the whole command:
stop       of the cluster with nothing to do
kubeadm    stock `kubeadm init` and `kubeadm join` alone (benchmarks/stock.py), and sykube init
           --from SNAPSHOT and init until all is well; which goes first changes. The cluster is
           stopped meanwhile.
start      until all pods are Ready and DNS answers
node add   one worker, which is deleted again
certs      certs renew, until all is well
Beside the rounds:
status     in turn with `kubectl get nodes` on the same cluster
workers    node add of one after the other; the memory that it takes then, and how much more disk
           all nodes together take

Run it as root: python3 -m benchmarks.lifecycle [--rounds 5] [--looks 10] [--workers 8]
    [--name bench] [--node-image FILE]
A cluster of that name is used; it keeps the workers that are added. What is to be done 0 times is
left out.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.init import kubeadm_run
from benchmarks.measure import (
    add_node_image,
    cluster_of_two,
    disk_mb,
    image_options,
    memory_mb,
    middle,
    of_image,
    shown,
    sykube,
    timed,
)
from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import clusters
from sykube.cluster.operations import archive
from sykube.host.host import Host
from sykube.ui import Ui

SECOND, SNAPSHOT = "bench-second", "bench"
# What is measured in a round, with its title.
TITLES = {
    "stop": "sykube stop",
    "kubeadm": "stock kubeadm init + join",
    "init_from": "sykube init --from SNAPSHOT",
    "init": "sykube init",
    "start": "sykube start",
    "node_add": "sykube node add",
    "certs_renew": "sykube certs renew",
}
RATIOS = (("start", "kubeadm"), ("node_add", "kubeadm"), ("init_from", "init"))
_IDLE_S = 10.0


@dataclass(frozen=True)
class Worker:
    """One `node add`: seconds, the worker's memory, the further disk of all nodes, in MB."""

    seconds: float
    memory_mb: float
    disk_mb: float


def rounds(name: str, second: ClusterSpec, count: int) -> dict[str, list[float]]:
    """Seconds of each thing of TITLES; of `second` is what is made and deleted again."""
    found: dict[str, list[float]] = {what: [] for what in TITLES}
    if not count:
        return found
    sykube("stop", "--name", name, "--quiet")
    sykube("snapshot", "save", SNAPSHOT, "--name", name, "--quiet")
    sykube("start", "--name", name, "--quiet")

    def command(what: str, *arguments: str, of: str = name) -> None:
        found[what].append(sykube(*arguments, "--name", of, "--quiet")[0])

    for number in range(count):
        time.sleep(_IDLE_S)
        command("stop", "stop")
        for what in ("kubeadm", "init_from", "init")[:: -1 if number % 2 else 1]:
            if what == "kubeadm":
                found[what].append(sum(kubeadm_run(second)))
                continue
            options = ["--from", SNAPSHOT] if what == "init_from" else image_options(second)
            command(what, "init", *options, of=second.name)
            sykube("delete", "--name", second.name, "--yes", "--quiet")
        command("start", "start")
        command("node_add", "node", "add")
        added = lookup.load(Host(), name, Ui(quiet=True)).workers[-1].name
        sykube("node", "delete", added, "--name", name, "--quiet")
        command("certs_renew", "certs", "renew")
        last = ", ".join(f"{TITLES[what]} {seconds[-1]:.1f} s" for what, seconds in found.items())
        print(f"{number + 1}: {last}", flush=True)
    return found


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


def measure(
    options: argparse.Namespace, second: ClusterSpec, init_s: float | None
) -> dict[str, Any]:
    """The figures, by name; None for what was left out.

    Args:
        second: the cluster beside it.
        init_s: seconds of the cluster's init, if it was made for this.
    """
    name = options.name
    found = rounds(name, second, options.rounds)
    ours, theirs = status_and_kubectl(name, options.looks)
    added = add_workers(name, options.workers)
    status_s, kubectl_s = middle(ours, 3), middle(theirs, 3)
    medians = {what: middle(seconds) for what, seconds in found.items()}
    return {
        **{f"{what}_s": seconds for what, seconds in medians.items()},
        "init_s": medians["init"] or (init_s and round(init_s, 2)),
        **{f"{what}_ratio": _ratio(medians[what], medians[to], 3) for what, to in RATIOS},
        "status_s": status_s,
        "kubectl_get_nodes_s": kubectl_s,
        "status_ratio": _ratio(status_s, kubectl_s, 2),
        "workers_s": [round(worker.seconds, 2) for worker in added],
        "workers_memory_mb": [round(worker.memory_mb) for worker in added],
        "workers_disk_mb": [round(worker.disk_mb) for worker in added],
        "rounds": options.rounds,
        "looks": options.looks,
        "workers": options.workers,
    }


def _ratio(value: float | None, to: float | None, digits: int) -> float | None:
    return round(value / to, digits) if value and to else None


def show(found: dict[str, Any]) -> None:
    """The table."""
    add, memory, disk = (found[f"workers_{what}"] for what in ("s", "memory_mb", "disk_mb"))
    print(f"\nmedians of {found['rounds']} rounds, {found['looks']} looks")
    rows = {title: shown(found[f"{what}_s"], "7.1", " s") for what, title in TITLES.items()}
    rows |= {
        f"{TITLES[what]} / {TITLES[to].removeprefix('sykube ')}": shown(
            found[f"{what}_ratio"], "7.2"
        )
        for what, to in RATIOS
    }
    rows |= {
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--looks", type=int, default=10)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--name", default="bench")
    add_node_image(parser)
    options = parser.parse_args()
    second = of_image(ClusterSpec(name=SECOND), options.node_image)
    try:
        with cluster_of_two(options.name, *image_options(second)) as init_s:
            found = measure(options, second, init_s)
    finally:
        if SECOND in clusters(Host()):
            sykube("delete", "--name", SECOND, "--yes", "--quiet", check=False)
        if SNAPSHOT in archive.names(Host()):
            sykube("snapshot", "delete", SNAPSHOT, "--quiet", check=False)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
