"""What a cluster takes that has nothing to do: memory and CPU time of its nodes, by program.

memory   proportional set size: a page of several processes, such as the node image's, counts for
         each of them as its part of it
CPU      as the nodes' cgroups count it, so with processes that come and go meanwhile (probes);
         `short-lived` is what no process was seen for that was there from begin to end

A new cluster of two nodes is left alone for a minute before. Then a worker joins, and it is left
alone again. With --stock it is a cluster that stock kubeadm makes of the same node image, which has
neither sykube's settings nor its add-ons: what Kubernetes itself takes.

Run it as root, with nothing else to do: python3 -m benchmarks.idle [--seconds 60] [--settle 60]
    [--name bench] [--stock]
With --seconds 0 it looks at the memory of the cluster of that name, and adds no worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import stock
from benchmarks.measure import cluster_of_two, processes_of, set_size_mb, sykube
from benchmarks.processes import program_at, spent_by
from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.host.host import Host
from sykube.node import cgroups
from sykube.ui import Ui


def memory(instance: str) -> dict[str, float]:
    """Proportional set sizes of a node's programs, in MB."""
    found: defaultdict[str, float] = defaultdict(float)
    for process in processes_of(instance):
        with contextlib.suppress(OSError):
            found[program_at(process)] += set_size_mb(process)
    return _sorted(found)


def processors(instances: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """CPU seconds of nodes' programs, by node; `short-lived` is the rest of the nodes' own."""
    before = {each: _spent(each) for each in instances}
    time.sleep(seconds)
    found = {}
    for instance, (total, programs) in before.items():
        now, later = _spent(instance)
        passed: defaultdict[str, float] = defaultdict(float)
        for (_, program), spent in later.items():
            passed[program] += spent
        for (pid, program), spent in programs.items():
            passed[program] -= spent if (pid, program) in later else 0
        passed["short-lived"] = now - total - sum(passed.values())
        found[instance] = _sorted(passed)
    return found


def _spent(instance: str) -> tuple[float, dict[tuple[str, str], float]]:
    """CPU seconds of a node, and of each of its processes, by id and program."""
    found = {}
    for process in processes_of(instance):
        with contextlib.suppress(OSError):
            found[process.name, program_at(process)] = spent_by(process)
    return cgroups.usage(Host(), instance).cpu or 0.0, found


@contextlib.contextmanager
def stock_of_two(name: str) -> Iterator[None]:
    """Two nodes with what stock kubeadm makes of them; deleted at the end."""
    with stock.prepared(ClusterSpec(name=name, workers=1)) as cluster:
        stock.init(cluster)
        stock.join(cluster)
        yield


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures, by name: of the cluster of two nodes, then of its further worker."""
    seconds = options.seconds
    time.sleep(options.settle if seconds else 0)
    nodes = _nodes(options.name, seconds)
    found = {
        "stock": options.stock,
        "seconds": seconds,
        "settle": options.settle,
        "cluster_cpu_percent": round(sum(node["cpu_percent"] for node in nodes.values()), 2),
        "nodes": nodes,
    }
    if seconds and not options.stock:
        sykube("node", "add", "--name", options.name, "--quiet")
        time.sleep(options.settle)
        worker, of_it = list(_nodes(options.name, seconds).items())[-1]
        nodes[f"{worker}, added"] = of_it
    return found


def _nodes(name: str, seconds: float) -> dict[str, dict[str, Any]]:
    nodes = {each.name: each.instance for each in lookup.load(Host(), name, Ui(quiet=True)).nodes}
    spent = processors([*nodes.values()], seconds)
    return {node: _node(memory(each), spent[each], seconds) for node, each in nodes.items()}


def _node(held: dict[str, float], spent: dict[str, float], seconds: float) -> dict[str, Any]:
    percent = {name: round(100 * each / seconds, 2) for name, each in spent.items() if seconds}
    return {
        "memory_mb": round(sum(held.values()), 1),
        "cpu_percent": round(sum(percent.values()), 2),
        "memory_by_program_mb": held,
        "cpu_by_program_percent": percent,
    }


def _sorted(found: Mapping[str, float]) -> dict[str, float]:
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {program: round(value, 2) for program, value in ordered}


def show(found: dict[str, Any]) -> None:
    """The tables."""
    for node, of_node in found["nodes"].items():
        memory, cpu = of_node["memory_by_program_mb"], of_node["cpu_by_program_percent"]
        print(f"{node:35} {of_node['memory_mb']:8.1f} MB {of_node['cpu_percent']:7.2f} % of a core")
        for program in sorted({**memory, **cpu}, key=lambda each: -memory.get(each, 0.0)):
            print(f"  {program:33} {memory.get(program, 0):8.1f} MB {cpu.get(program, 0):7.2f} %")
    print(f"{'the cluster of two nodes':35} {'':11} {found['cluster_cpu_percent']:7.2f} %")


def main() -> None:
    """Measure, print the tables and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--settle", type=int, default=60)
    parser.add_argument("--name", default="bench")
    parser.add_argument("--stock", action="store_true")
    options = parser.parse_args()
    with (stock_of_two if options.stock else cluster_of_two)(options.name):
        found = measure(options)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
