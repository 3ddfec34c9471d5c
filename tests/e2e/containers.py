"""What a real cluster's containers run in."""

from __future__ import annotations

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
