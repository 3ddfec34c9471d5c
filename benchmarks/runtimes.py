"""What pods take under runc, crun and Apptainer, by their RuntimeClasses.

One run, of each runtime in turn; which one goes first changes:
pod          from the request that creates a pod until its program's first instruction
start        of these, containerd's StartContainer, as its log has it
exec         `kubectl exec POD -- true`, the whole command
round trip   of one byte over TCP from that pod to one of the same runtime on the other node
throughput   of one connection between them
processor    the same work of a processor in the pod
Before the runs:
memory       proportional set sizes of what a container has beside its own program, of ten pods of
             each runtime that run at once

Run it as root, with nothing else to do: python3 -m benchmarks.runtimes [--runs 10] [--name bench]
    [--plot FILE.svg]
A cluster of that name is used as it is. --runs 0 does everything once, with one pod, and judges
nothing. --plot needs matplotlib: the extra `plots`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import in_pod
from benchmarks.intervals import Estimate, cell, estimate
from benchmarks.measure import cluster_of_two, drawing, processes_of, set_size_mb, timed
from sykube.bench import wire
from sykube.bench.machine import two_cores
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.runtime import APPTAINER, RUNC
from sykube.cluster.operations import runtimes
from sykube.host.host import Host
from sykube.kubernetes.api import Api, wait_until
from sykube.node.node import Node
from sykube.ui import Ui

NAMESPACE = "bench-runtimes"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_TIMEOUT_S = 120.0
_LOG = "/var/log/sykube/containerd.log"
_STARTED = re.compile(
    r'^time="(?P<time>\S+)" .*StartContainer for \\"(?P<id>\w+)\\"(?P<end> returns successfully)?'
)
# Seconds of a throughput's measurement, and containers that run at once for their memory.
_SENDING_S, _AT_ONCE = 1.5, 10
# What is measured, with its title and unit.
TITLES = {
    "pod_ms": ("a pod, until its program runs", "ms"),
    "start_ms": ("of these, starting its container", "ms"),
    "exec_ms": ("kubectl exec", "ms"),
    "memory_mb": ("memory beside a container's program", "MB"),
    "round_trip_us": ("round trip between two nodes' pods", "µs"),
    "throughput_mb_s": ("throughput between them", "MB/s"),
    "processor_s": ("work of a processor", "s"),
}
# Issue 16: what a container of apptainer may cost.
_MEMORY_MAX_MB, _LATER_MAX_MS = 8.0, 150.0
Figures = dict[str, dict[str, list[float]]]


class Lab:
    """A cluster, and pods in a namespace of its own."""

    def __init__(self, cluster: Cluster, api: Api) -> None:
        self.cluster, self.api = cluster, api
        self.image = cluster.image.name_of("system")

    def create(self, name: str, runtime: str, node: Node, *command: str) -> float:
        """Create a pod whose program says first when it runs.

        Returns:
            The time (of the epoch) of the request.
        """
        script = 'date +%s%N; exec "$@"'
        container = {
            "name": "main",
            "image": self.image,
            "command": ["sh", "-c", script, "sh", *command],
        }
        requested = time.time()
        self.api.request(
            "POST",
            _PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"runtime": runtime}},
                "spec": {
                    "runtimeClassName": runtime,
                    "nodeName": node.instance,
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": False,
                    "containers": [container],
                },
            },
        )
        return requested

    def wait_running(self, *names: str) -> dict[str, dict[str, Any]]:
        """Pods, once they run and have addresses."""
        found: dict[str, dict[str, Any]] = {}

        def missing() -> str:
            for name in names:
                found[name] = self.api.get(f"{_PODS}/{name}")
                if found[name]["status"].get("phase") != "Running":
                    return f"{name} is {found[name]['status'].get('phase')}"
            return ""

        wait_until(self.cluster.host, "the pods run", missing, _TIMEOUT_S)
        return found

    def delete_all(self) -> None:
        """Delete the pods, and wait until they are gone."""
        self.api.request("DELETE", _PODS, params={"gracePeriodSeconds": "0"})

        def left() -> str:
            return "pods are left" if self.api.get(_PODS)["items"] else ""

        wait_until(self.cluster.host, "the pods are gone", left, _TIMEOUT_S)

    def first_instruction(self, name: str) -> float:
        """When (of the epoch) a pod's program ran."""
        return int(str(self.api.get(f"{_PODS}/{name}/log")).split()[0]) / 1e9

    def kubectl(self, *arguments: str) -> tuple[float, str]:
        """Seconds of the program itself, and what it printed."""
        words = ("--namespace", NAMESPACE, *arguments)
        kubeconfig = self.cluster.paths.kubeconfig
        return timed([self.cluster.image.kubectl, "--kubeconfig", kubeconfig, *words])


@contextmanager
def lab(name: str) -> Iterator[Lab]:
    """The cluster of that name, or a new one; its own namespace is deleted at the end."""
    with cluster_of_two(name):
        cluster = lookup.load(Host(), name, Ui(quiet=True))
        with cluster.api() as api:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            api.apply(namespace)
            try:
                yield Lab(cluster, api)
            finally:
                api.delete(namespace)


def one_run(lab: Lab, runtime: str) -> dict[str, float]:
    """The figures of one runtime, but for memory."""
    master, worker = lab.cluster.master, lab.cluster.workers[0]
    asking, serving = two_cores()
    lab.create("server", runtime, master, "python3", *wire.serving(serving))
    server = lab.wait_running("server")["server"]["status"]["podIP"]
    requested = lab.create("client", runtime, worker, "sleep", "100000")
    client = lab.wait_running("client")["client"]
    first = lab.first_instruction("client")
    container = client["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    exec_s, _ = lab.kubectl("exec", "client", "--", "true")
    asked = wire.asking(asking, server, _SENDING_S)
    _, said = lab.kubectl("exec", "client", "--", "python3", *asked)
    found = json.loads(said)
    _, worked = lab.kubectl("exec", "client", "--", "python3", "-c", in_pod.program())
    lab.delete_all()
    return {
        "pod_ms": (first - requested) * 1000,
        "start_ms": start_ms(worker, container),
        "exec_ms": exec_s * 1000,
        "round_trip_us": found["round_trip"],
        "throughput_mb_s": found["throughput"],
        "processor_s": float(worked),
    }


def start_ms(node: Node, container: str) -> float:
    """How long containerd's StartContainer took."""
    times = {}
    for line in node.read(_LOG).splitlines():
        match = _STARTED.match(line)
        if match and match["id"] == container:
            times[bool(match["end"])] = datetime.fromisoformat(match["time"])
    return (times[True] - times[False]).total_seconds() * 1000


def memory(lab: Lab, runtime: str, count: int) -> list[float]:
    """What each of some containers has beside its own program, in MB, while all run."""
    worker = lab.cluster.workers[0]
    names = [f"memory-{number}" for number in range(count)]
    for name in names:
        lab.create(name, runtime, worker, "sleep", "100000")
    found = lab.wait_running(*names)
    uids = {pod["metadata"]["uid"]: name for name, pod in found.items()}
    sizes: defaultdict[str, float] = defaultdict(float)
    for process in processes_of(worker.instance):
        # What started containers may end meanwhile.
        with suppress(OSError):
            groups = (process / "cgroup").read_text(encoding="utf-8")
            name = next((name for uid, name in uids.items() if uid in groups), "")
            program = (process / "comm").read_text(encoding="utf-8").strip()
            if name and program not in ("sleep", "pause"):
                sizes[name] += set_size_mb(process)
    lab.delete_all()
    return [sizes[name] for name in names]


def measure(lab: Lab, runs: int) -> Figures:
    """What was measured of each runtime; once for 0 runs, too."""
    there = runtimes.offered(lab.cluster)
    found: Figures = {runtime: {what: [] for what in TITLES} for runtime in there}
    for runtime in there:
        sizes = memory(lab, runtime, _AT_ONCE if runs else 1)
        found[runtime]["memory_mb"] = sizes
        print(f"{runtime}: {', '.join(f'{size:.2f}' for size in sizes)} MB", flush=True)
    for number in range(max(runs, 1)):
        first = number % len(there)
        for runtime in (*there[first:], *there[:first]):
            figures = one_run(lab, runtime)
            for what, value in figures.items():
                found[runtime][what].append(value)
            shown = ", ".join(f"{what} {value:.1f}" for what, value in figures.items())
            print(f"run {number + 1}, {runtime}: {shown}", flush=True)
    return found


def differences(found: Figures, what: str, *, to: str = RUNC) -> list[float]:
    """How much more Apptainer has than another one, run by run."""
    if APPTAINER not in found:
        return []
    pairs = zip(found[APPTAINER][what], found[to][what], strict=True)
    return [mine - other for mine, other in pairs]


def main() -> None:
    """Measure in turns, print the table and the JSON, draw what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--name", default="bench")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    plots = drawing(options.plot)
    with lab(options.name) as made:
        found = measure(made, options.runs)
    estimates = {
        runtime: {what: estimate(values) for what, values in figures.items()}
        for runtime, figures in found.items()
    }
    later = estimate(differences(found, "start_ms"))
    show(estimates, later)
    if plots:
        drawn = plots.svg(plots.panels(TITLES, estimates))
        options.plot.write_text(drawn, encoding="utf-8")
    print(json.dumps({"runs": options.runs, "later_ms": later, "runtimes": estimates}))
    held = estimates.get(APPTAINER, {}).get("memory_mb")
    too_much = (held and held.median > _MEMORY_MAX_MB) or (later and later.median > _LATER_MAX_MS)
    sys.exit(bool(options.runs and too_much))


def show(estimates: dict[str, dict[str, Estimate | None]], later: Estimate | None) -> None:
    """The table, as docs/ has it."""
    print(f"\n| median (95 % interval) | {' | '.join(estimates)} |")
    print(f"|{'-|' * (len(estimates) + 1)}")
    for what, (title, unit) in TITLES.items():
        cells = [cell(figures[what]) for figures in estimates.values()]
        print(f"| {title}, {unit} | {' | '.join(cells)} |")
    print(f"a container of apptainer starts {cell(later)} ms later than one of runc")


if __name__ == "__main__":
    main()
