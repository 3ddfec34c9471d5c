"""Pods under Apptainer, started and stopped over and over: they leave nothing, and nothing grows."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.measure import processes_of, set_size_mb
from tests.e2e import containers
from tests.e2e.cluster import eventually
from tests.soak.bench import Bench, Outcome, Unexpected

PART = "pods"
AT_ONCE = 20
_NAMESPACE = "soak"
_TIMEOUT_S = 300
# Medians of the last three rounds by those of the first three: Go's garbage makes it vary.
GROWTH_MAX = 1.1
_WATCHED = ("containerd", "kubelet")


def start_and_stop(bench: Bench, count: int) -> Iterator[Outcome]:
    """So many pods in all, 20 at a time, on one cluster."""
    bench.sykube("init", *bench.plain)
    memory: list[dict[str, float]] = []
    try:
        # What is made once stays: the first of them are not counted.
        _round(bench)
        before = containers.footprint(bench.cluster)
        for number in range(1, count // AT_ONCE + 1):
            started = time.monotonic()
            problem = ""
            try:
                _round(bench)
            except (Unexpected, AssertionError, subprocess.TimeoutExpired) as error:
                problem = str(error)
            took = time.monotonic() - started
            memory.append(_memory(bench))
            shown = ", ".join(f"{what} {size:.0f} MB" for what, size in memory[-1].items())
            yield Outcome(PART, f"{AT_ONCE} pods, round {number}: {shown}", took, problem)
        yield bench.case(PART, "nothing is left", lambda: _assert_left(bench, before), clear=False)
        yield bench.case(PART, "memory is level", lambda: _assert_level(memory), clear=False)
    finally:
        bench.clear()
    yield bench.case(PART, "delete leaves the host as it was", bench.assert_clean)


def _round(bench: Bench) -> None:
    """Start 20 pods, and stop them once all run.

    Raises:
        Unexpected: one does not run, or does not end.
    """
    image = bench.cluster.image
    items = [_pod(number, image) for number in range(AT_ONCE)]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}
    bench.cluster.apply(namespace, *items)
    wait = ("-n", _NAMESPACE, "wait", "pod", "--all", f"--timeout={_TIMEOUT_S}s")
    done = bench.sykube("kubectl", *wait, "--for=condition=Ready", check=False)
    if done.returncode:
        raise Unexpected(f"not all pods run: {done.stderr.strip().splitlines()[-1:]}")
    bench.sykube("kubectl", "-n", _NAMESPACE, "delete", "pod", "--all", "--wait=true")


def _pod(number: int, image: str) -> dict[str, object]:
    script = "echo up; trap 'exit 0' TERM; sleep 100000 & wait"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number}", "namespace": _NAMESPACE},
        "spec": {
            "runtimeClassName": "apptainer",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": image, "command": ["sh", "-c", script]}],
        },
    }


def _memory(bench: Bench) -> dict[str, float]:
    """What both nodes' programs have for themselves, in MB.

    Their files' share grows when other clusters of the same node image end.
    """
    found = dict.fromkeys(_WATCHED, 0.0)
    for node in bench.cluster.get("nodes")["items"]:
        for process in processes_of(node["metadata"]["name"]):
            try:
                name = (process / "comm").read_text(encoding="utf-8").strip()
                if name in found:
                    found[name] += set_size_mb(process, "Pss_Anon")
            except OSError:
                continue
    return found


def _assert_left(bench: Bench, before: dict[str, list[str]]) -> None:
    found: list[str] = []

    def same() -> bool:
        found[:] = containers.differences(before, containers.footprint(bench.cluster))
        return not found

    try:
        eventually("nothing is left of the pods", same, timeout=180)
    except AssertionError as error:
        raise Unexpected(f"{len(found)} differences: {json.dumps(found[:10])}") from error


def _assert_level(memory: list[dict[str, float]]) -> None:
    """The programs are not larger at the end than at the beginning."""
    for what in _WATCHED:
        sizes = [each[what] for each in memory]
        first, last = median(sizes[:3]), median(sizes[-3:])
        if not 0 < last <= GROWTH_MAX * first:
            raise Unexpected(f"{what} had {first:.1f} MB in the beginning, and {last:.1f} MB now")
