"""Each benchmark in its shortest form, so that its figures can be made again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from sykube.cluster.model.state import clusters
from sykube.host.host import Host
from tests.e2e import release
from tests.e2e.cluster import TestCluster

# Those with --name e2e look at the cluster of the tests; init makes nodes of its own.
SHORTEST = {
    "container_cost": "--name e2e --runs 0 --measure network",
    "idle": "--name e2e --seconds 0",
    "images": "--name e2e --runs 0",
    "init": "--name e2e-bench --pairs 0",
    "node_image": "--runs 0",
    "lifecycle": "--name e2e --rounds 0 --looks 1 --workers 0",
    "kind": "--name e2e-bench --pairs 0",
    "network": "--name e2e-bench --rounds 0",
    "network_policy": "--name e2e --pods 20 --policies 4 --pairs 1 --connections 20",
    "profile": "--name e2e --inits 0",
    "runtimes": "--name e2e --runs 0",
    "rootless": "--name e2e-bench --pairs 0",
    "sif": "--name e2e --runs 0 --megabytes 10",
    "slurm": "--name e2e --runs 1 --ranks 2 --pods 2 --seconds 0.1 --size 0",
    "workers": "--name e2e-bench --pairs 0",
}


def programs() -> list[str]:
    """The modules of the folder that can be run."""
    files = Path(benchmarks.__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if "__main__" in file.read_text(encoding="utf-8"))


def run(name: str, options: str, cluster: TestCluster) -> dict[str, Any]:
    """The line of JSON of a benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options.split()]
    root = Path(benchmarks.__file__).parents[1]
    # As `make bench` has it: what it compares is of Debian's.
    environment = cluster.environment | {"SYKUBE_SOURCE": "debian", release.SERVED: ""}
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", programs())
def test_it_runs_to_its_line_of_json_and_leaves_the_clusters_as_they_were(
    name: str, cluster: TestCluster
) -> None:
    found = run(name, SHORTEST[name], cluster)
    assert found
    assert cluster.name in clusters(Host())
    assert not [each for each in clusters(Host()) if each.startswith(("bench", "e2e-bench"))]
    if name == "kind":
        assert found["missing"] or shutil.which("kind")
    if name == "container_cost":
        assert [*found["runs"]] == ["network"]
        assert found["runs"]["network"]["throughput"]["pods of two nodes"][0] > 1
        assert {word for _, word in found["conclusions"]} == {"not measured"}
    if name == "lifecycle":
        assert found["status_ratio"] > 0
        assert found["init_s"] is None
    if name == "idle":
        assert found["nodes"]["master"]["memory_by_program_mb"]["kube-apiserver"] > 50
        assert found["nodes"]["node1"]["memory_by_program_mb"]["supervisord"] > 5
    if name == "network_policy":
        assert found["connection_with_policies_us"] > 0 < found["slowest_change_s"]
    if name == "runtimes":
        assert [*found["runtimes"]] == ["runc", "crun", "apptainer"]
        for figures in found["runtimes"].values():
            assert figures["exec_ms"][0] > 0
            assert figures["throughput_mb_s"][0] > 1
        assert found["runtimes"]["runc"]["memory_mb"] == [0, 0, 0]
        assert 1 < found["runtimes"]["apptainer"]["memory_mb"][0] < 40
    if name == "profile":
        assert found["programs_s"]["sykube"] > 0
    if name == "slurm":
        assert [*found["places"]] == ["C=0", "C=2"]
        assert [*found["ratios"]] == ["C=2"]
        for figures in found["places"].values():
            shortest, mean, longest = (
                figures[f"allreduce_{each}_us"][0] for each in ("min", "avg", "max")
            )
            assert 0 < shortest <= mean <= longest
        assert all(figure[0] > 0 for figure in found["elastic"]["C=2"].values())
        assert_no_slurm_is_left(cluster)


def assert_no_slurm_is_left(cluster: TestCluster) -> None:
    assert "bench-slurm" not in cluster.kubectl("get", "namespaces", "-o", "name")
    assert not [*(Host().cache / "tmp").glob("slurm-*")]


@pytest.mark.long
def test_what_a_container_costs_is_measured_in_all_its_kinds(cluster: TestCluster) -> None:
    found = run("container_cost", "--name e2e --runs 0", cluster)
    assert [*found["runs"]] == ["hpcc", "stream-nats", "stream-valkey", "network", "start"]
    assert [*found["runs"]["stream-valkey"]["p50"]] == ["host", "exec", "runc:pod"]
    assert not found["failed"]
    words = dict(found["conclusions"])
    assert words["a container costs Linpack nothing"] != "not measured"
    assert (
        words["Valkey: that containers are isolated makes messages take longer"] != "not measured"
    )
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")


@pytest.mark.long
def test_hpc_challenge_runs_in_slurms_nodes_of_every_runtime(cluster: TestCluster) -> None:
    runtimes = "--runtime runc --runtime crun --runtime apptainer"
    options = f"--name e2e --runs 1 --ranks 2 --pods 2 --seconds 0.1 --size 200 {runtimes}"
    found = run("slurm", options, cluster)
    assert [*found["places"]] == ["C=0", "C=2 runc", "C=2 crun", "C=2 apptainer"]
    for figures in found["places"].values():
        assert all(figures[each][0] > 0 for each in ("hpl", "ring_latency", "seconds"))
    assert_no_slurm_is_left(cluster)
