"""What the emulated machine is told to do, and what tests of real clusters make of its slowness."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.e2e import cluster
from tests.e2e.cluster import TestCluster
from tests.e2e.test_runtimes import PROBES, Suite, objects
from tests.vm import disk, scenario


def test_each_file_of_a_stage_is_there_and_runs_in_a_scenario() -> None:
    there = {*(scenario.HERE / "stages").iterdir()}
    assert {file for each in scenario.SCENARIOS.values() for file in each.scripts()} == there


def test_the_plan_has_a_line_for_each_step() -> None:
    plan = scenario.SCENARIOS["runtimes"].plan()
    assert plan.splitlines()[:2] == ["stage prepare 300 root", "stage runtimes-init 1800 root"]
    assert scenario.SCENARIOS["boot"].plan().splitlines()[1] == "reboot"


def test_what_tests_need_in_the_machine_is_among_the_packages_of_developers() -> None:
    project = tomllib.loads((disk.CHECKOUT / "pyproject.toml").read_text())["project"]
    found = disk.of_tests(project["optional-dependencies"]["dev"])
    assert [each[:6] for each in found] == ["dnspyt", "pytest"]


class _Cluster(TestCluster):
    """One of two nodes."""

    def get(self, *arguments: str) -> Any:
        return {"items": [{"metadata": {"name": name}} for name in ("one-master", "one-node1")]}


def _probes(patience: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
    """Probes of the pods of a class: pod and kind, and how long each may take."""
    monkeypatch.setattr(cluster, "_PATIENCE", patience)
    made = objects(Suite(_Cluster("one", disk.CHECKOUT), "crun"), "image:1")
    return {
        f"{each['metadata']['name']} {name}": {
            key: value for key, value in each["spec"]["containers"][0][name].items()
            if key.endswith("Seconds")
        }
        for each in made if each["kind"] == "Pod"
        for name in PROBES if name in each["spec"]["containers"][0]
    }  # fmt: skip


def test_probes_get_as_much_time_as_a_slow_machine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, slow = (_probes(patience, monkeypatch) for patience in (1, 6))
    # What the API server takes where nothing is said.
    assert usual["served livenessProbe"] == {"periodSeconds": 1, "timeoutSeconds": 1}
    assert usual["terms livenessProbe"]["initialDelaySeconds"] == 5
    assert len(usual) > 5
    assert slow == json.loads(json.dumps(usual), object_hook=_six_times)


def _six_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value * 6 if key.endswith("Seconds") else value for key, value in found.items()}


def test_a_limit_is_as_much_longer_as_the_machine_is_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.001)
    with pytest.raises(AssertionError, match="not within 0 s: it never is"):
        cluster.eventually("it never is", lambda: False, timeout=90)
