"""`sykube bench` on a real cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.cluster import TestCluster

SMALLEST = ("--runs", "3", "--anyway")


@pytest.mark.long
def test_each_runtime_starts_and_stops_pods_and_nothing_is_left(
    cluster: TestCluster, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    words = ("bench", "start", "--name", cluster.name, "--pods", "2", *SMALLEST)
    done = cluster.sykube(*words, "--save", str(file), "-o", "json", timeout=900)
    found = json.loads(done.stdout)
    assert found == json.loads(file.read_text())
    assert found["versions"]["kubernetes"]
    for measure in found["measures"].values():
        assert {*measure["values"]} == {"runc", "crun", "apptainer"}
        for values in measure["values"].values():
            assert len(values) == 3
            assert all(0 < value < 300 for value in values)
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")
    # The same figures are the same.
    done = cluster.sykube("bench", "compare", str(file), str(file))
    assert "different" not in done.stdout
    assert "1.000 (" in done.stdout


def test_pods_talk_to_each_other(cluster: TestCluster) -> None:
    words = ("bench", "network", "--name", cluster.name, "--seconds", "0.1", *SMALLEST)
    found = json.loads(cluster.sykube(*words, "-o", "json", timeout=900).stdout)
    ways = {"pods of one node", "pods of two nodes", "pod to ClusterIP", "host to NodePort"}
    for measure in found["measures"].values():
        assert {*measure["values"]} == {"loopback", *ways}
        assert all(value > 0 for values in measure["values"].values() for value in values)
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")


def test_a_runtime_that_is_not_there_is_refused(cluster: TestCluster) -> None:
    words = ("bench", "start", "--name", cluster.name, *SMALLEST)
    done = cluster.sykube(*words, "--runtime", "gvisor", check=False)
    assert done.returncode == 2
    assert "cannot run in 'gvisor'" in done.stderr
    assert "There are runc, crun, apptainer" in done.stderr
