"""What a real cluster's containers run in, and what pods have of its nodes."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.cluster import TestCluster

_FOLDER = Path(__file__).parent


def runtimes(cluster: TestCluster, *selection: str) -> dict[str, set[str]]:
    """What the containers of some pods run in, by NAMESPACE/POD.

    Args:
        selection: of `kubectl get pods`, such as --all-namespaces.
    """
    by_id: dict[str, str] = {}
    for node in cluster.get("nodes")["items"]:
        name = node["metadata"]["name"].removeprefix(f"{cluster.name}-")
        said = _in_node(cluster, name, "list-runtimes")
        by_id |= dict(line.split() for line in said.splitlines())
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": {
            by_id[container] for container in _running(pod)
        }
        for pod in cluster.get("pods", *selection)["items"]
    }


def _in_node(cluster: TestCluster, node: str, program: str) -> str:
    """What a program of this folder, in shell, says in a node."""
    text = (_FOLDER / program).read_text(encoding="utf-8")
    return cluster.sykube("exec", "--name", cluster.name, node, "sh", "-c", text, program).stdout


def _running(pod: dict[str, Any]) -> list[str]:
    """IDs of its containers that run."""
    statuses = pod["status"].get("containerStatuses", [])
    running = [each["containerID"] for each in statuses if "running" in each["state"]]
    return [each.removeprefix("containerd://") for each in running]


def footprint(cluster: TestCluster) -> dict[str, list[str]]:
    """What pods have of each node at the moment: processes, mounts, cgroups, files, snapshots …

    With `host`: the loop devices.
    """
    found = {}
    for node in cluster.get("nodes")["items"]:
        name = node["metadata"]["name"].removeprefix(f"{cluster.name}-")
        said = _in_node(cluster, name, "list-footprint")
        found[name] = sorted(said.splitlines())
    loops = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {**found, "host": sorted(loops.stdout.splitlines())}


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """What there is more or less of, a line each."""
    lines = []
    for place in before:
        had, has = Counter(before[place]), Counter(after[place])
        lines += [f"{place} + {each}" for each in sorted((has - had).elements())]
        lines += [f"{place} - {each}" for each in sorted((had - has).elements())]
    return lines
