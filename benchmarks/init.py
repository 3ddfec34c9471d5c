"""Wall time of `sykube init` against stock kubeadm, in pairs within one run.

sykube: the whole command on a warm cache, until both nodes are Ready, every
pod of kube-system runs and DNS answers on both nodes.
kubeadm: `kubeadm init` and then `kubeadm join` alone, on two nodes that run
already, with containerd up and every image there.

Run it as root: python3 -m benchmarks.init [--pairs 5] [--name bench]
--pairs 0 measures nothing: stock kubeadm checks what it is told, on nodes that are prepared for it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import disk_mb, memory_mb, sykube
from sykube import documents
from sykube.cluster.commands import lifecycle, plan, removal, steps
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import control_plane
from sykube.host.host import Host
from sykube.kubernetes import kubeadm
from sykube.ui import Ui

_CONFIG = "/etc/kubernetes/bench.yaml"
_SKIPPED = "preflight,addon/coredns"


@dataclass(frozen=True)
class SykubeRun:
    """One `sykube init`: seconds in all and by step; MB by node name."""

    total_s: float
    steps: dict[str, float]
    memory_mb: dict[str, float]
    disk_mb: dict[str, float]


def sykube_run(name: str) -> SykubeRun:
    """Make a cluster with the command line, look at its nodes, delete it."""
    total, printed = sykube("init", "--name", name, "--quiet", "--output", "json")
    cluster = lookup.load(Host(), name, Ui(quiet=True))
    run = SykubeRun(
        total,
        json.loads(printed)["seconds"],
        {node.name: memory_mb(node.instance) for node in cluster.nodes},
        {node.name: disk_mb(node) for node in cluster.nodes},
    )
    removal.delete(Host(), name, Ui(quiet=True))
    return run


def kubeadm_run(name: str) -> tuple[float, float]:
    """Seconds of kubeadm init and of kubeadm join on nodes prepared beforehand."""
    with _prepared(name) as cluster:
        time.sleep(3)
        return _stock_init(cluster), _stock_join(cluster)


def rehearsal(name: str) -> None:
    """All that comes before the measuring: the nodes, and a configuration that kubeadm accepts."""
    with _prepared(name) as cluster:
        _stock_init(cluster, "--dry-run")


@contextlib.contextmanager
def _prepared(name: str) -> Iterator[Cluster]:
    """Nodes that run, with containerd up and no Kubernetes yet; deleted at the end."""
    ui = Ui(quiet=True)
    cluster = lifecycle._new(Host(), ClusterSpec(name=name), InitOptions(), ui)
    try:
        prepared = [step for step in steps.ALL if step.name in ("data", "network", "nodes")]
        plan.execute(cluster, prepared)
        yield cluster
    finally:
        removal.delete(Host(), name, ui)


def _stock_init(cluster: Cluster, *options: str) -> float:
    master = cluster.master
    settings = dataclasses.replace(control_plane.settings(cluster), names=(), taint=False)
    master.write(_CONFIG, _stock(kubeadm.init_configuration(settings)), mode="0600")
    command = ["kubeadm", "init", "--config", _CONFIG, "--skip-phases", _SKIPPED]
    started = time.monotonic()
    master.run([*command, "--skip-token-print", *options], timeout=600)
    return time.monotonic() - started


def _stock(configuration: str) -> str:
    """The configuration without what sykube adds to make kubeadm faster."""
    parts = documents.load_all(configuration)
    for part in parts:
        for key in ("controllerManager", "scheduler", "syncFrequency", "patches"):
            part.pop(key, None)
    return documents.dump_all(parts)


def _stock_join(cluster: Cluster) -> float:
    """With the command that kubeadm prints: a token and the hash of the CA."""
    environment = "KUBECONFIG=/etc/kubernetes/admin.conf"
    printed = cluster.master.run(
        ["env", environment, "kubeadm", "token", "create", "--print-join-command"], secret=True
    )
    command = printed.stdout.strip().splitlines()[-1].split()
    worker = cluster.workers[0]
    options = ["--node-name", worker.instance, "--cri-socket", kubeadm.CRI_SOCKET]
    worker.write(_CONFIG, " ".join([*command, *options, "--skip-phases", "preflight"]), mode="0600")
    started = time.monotonic()
    worker.run(["sh", _CONFIG], timeout=600)
    return time.monotonic() - started


def main() -> None:
    """Run the pairs, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    name, pairs = options.name, options.pairs
    if not pairs:
        rehearsal(name)
        print(json.dumps({"pairs": pairs}))
        return
    ours: list[SykubeRun] = []
    theirs: list[tuple[float, float]] = []
    for number in range(pairs):
        # Which one goes first changes, so that neither has the warmer host.
        for kind in ("sykube", "kubeadm") if number % 2 == 0 else ("kubeadm", "sykube"):
            if kind == "sykube":
                ours.append(sykube_run(name))
                print(f"pair {number + 1}: sykube init {ours[-1].total_s:.1f} s", flush=True)
            else:
                theirs.append(kubeadm_run(name))
                init_s, join_s = theirs[-1]
                print(
                    f"pair {number + 1}: kubeadm init {init_s:.1f} s + join {join_s:.1f} s",
                    flush=True,
                )
    total = median(run.total_s for run in ours)
    kubeadm_s = median(init_s + join_s for init_s, join_s in theirs)
    by_step = {title: median(run.steps[title] for run in ours) for title in ours[0].steps}
    memory = {
        name: round(median(run.memory_mb[name] for run in ours)) for name in ours[0].memory_mb
    }
    disk = {name: round(median(run.disk_mb[name] for run in ours)) for name in ours[0].disk_mb}
    print(f"\nmedians of {pairs} alternated pairs")
    for title, seconds in by_step.items():
        print(f"  {title:45} {seconds:6.1f} s")
    print(f"  {'sykube init, start to end':45} {total:6.1f} s")
    print(f"  {'kubeadm init':45} {median(t[0] for t in theirs):6.1f} s")
    print(f"  {'kubeadm join':45} {median(t[1] for t in theirs):6.1f} s")
    for name, megabytes in memory.items():
        print(f"  {name}: {megabytes} MB of memory, {disk[name]} MB of disk")
    print(
        json.dumps(
            {
                "ratio": round(total / kubeadm_s, 3),
                "total_s": round(total, 2),
                "kubeadm_s": round(kubeadm_s, 2),
                "memory_mb": memory,
                "disk_mb": disk,
                "steps_s": {title: round(seconds, 2) for title, seconds in by_step.items()},
                "pairs": pairs,
            }
        )
    )


if __name__ == "__main__":
    main()
