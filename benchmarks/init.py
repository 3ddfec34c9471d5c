"""Wall time of `sykube init` against stock kubeadm, in pairs within one run.

sykube: the whole command on a warm cache, until all nodes are Ready, every
pod of kube-system runs and DNS answers on the first and the last node.
kubeadm: `kubeadm init` and then `kubeadm join` alone, one node after the other,
on nodes that run already, with containerd up and every image there. Of a single
node, `kubeadm init`, removing the taint, and DNS until it answers.

Run it as root:
python3 -m benchmarks.init [--control-planes 1] [--workers 1] [--pairs 5] [--name bench]
    [--node-image FILE]
--pairs 0 measures nothing: stock kubeadm checks what it is told, on nodes that are prepared for it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from statistics import median

from benchmarks import stock
from benchmarks.measure import add_node_image, disk_mb, image_options, memory_mb, of_image, sykube
from sykube.cluster.commands import removal
from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.host.host import Host
from sykube.ui import Ui


@dataclass(frozen=True)
class SykubeRun:
    """One `sykube init`: seconds in all and by step; MB by node name."""

    total_s: float
    steps: dict[str, float]
    memory_mb: dict[str, float]
    disk_mb: dict[str, float]


def sykube_run(spec: ClusterSpec) -> SykubeRun:
    """Make a cluster with the command line, look at its nodes, delete it."""
    name, planes, workers = spec.name, str(spec.control_planes), str(spec.workers)
    shape = ["--name", name, "--control-planes", planes, "--workers", workers]
    total, printed = sykube("init", *shape, *image_options(spec), "--quiet", "--output", "json")
    cluster = lookup.load(Host(), name, Ui(quiet=True))
    run = SykubeRun(
        total,
        json.loads(printed)["seconds"],
        {node.name: memory_mb(node.instance) for node in cluster.nodes},
        {node.name: disk_mb(node) for node in cluster.nodes},
    )
    removal.delete(Host(), name, Ui(quiet=True))
    return run


def kubeadm_run(spec: ClusterSpec) -> tuple[float, float]:
    """Seconds of kubeadm init on nodes prepared beforehand, and of what comes after it."""
    with stock.prepared(spec) as cluster:
        time.sleep(3)
        rest = stock.join if len(cluster.nodes) > 1 else stock.finish
        return stock.init(cluster), rest(cluster)


def rehearsal(spec: ClusterSpec) -> None:
    """All that comes before the measuring: the nodes, and a configuration that kubeadm accepts."""
    with stock.prepared(spec) as cluster:
        stock.init(cluster, "--dry-run")


def main() -> None:
    """Run the pairs, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--control-planes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--name", default="bench")
    add_node_image(parser)
    options = parser.parse_args()
    pairs = options.pairs
    spec = of_image(
        ClusterSpec(
            name=options.name, workers=options.workers, control_planes=options.control_planes
        ),
        options.node_image,
    )
    after = "kubeadm join" if spec.workers or spec.control_planes > 1 else "taint and DNS"
    if not pairs:
        rehearsal(spec)
        print(json.dumps({"pairs": pairs}))
        return
    ours: list[SykubeRun] = []
    theirs: list[tuple[float, float]] = []
    for number in range(pairs):
        # Which one goes first changes, so that neither has the warmer host.
        for kind in ("sykube", "kubeadm") if number % 2 == 0 else ("kubeadm", "sykube"):
            if kind == "sykube":
                ours.append(sykube_run(spec))
                print(f"pair {number + 1}: sykube init {ours[-1].total_s:.1f} s", flush=True)
            else:
                theirs.append(kubeadm_run(spec))
                init_s, join_s = theirs[-1]
                print(
                    f"pair {number + 1}: kubeadm init {init_s:.1f} s + {after} {join_s:.1f} s",
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
    print(f"  {after:45} {median(t[1] for t in theirs):6.1f} s")
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
                "control_planes": spec.control_planes,
                "workers": spec.workers,
                "pairs": pairs,
            }
        )
    )


if __name__ == "__main__":
    main()
