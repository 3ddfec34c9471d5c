"""The runtimes' wrapper in nodes of clusters without root."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "definitions/node/runc-rootless"


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


ONE_USER = "         0       1000          1\n"
USERS = f"{ONE_USER}         1     100000      65536\n"
GROUP = "SYKUBE_CGROUP=sykube/lab-node1\nSYKUBE_ROOTLESS=yes\n"
NO_GROUP = "SYKUBE_CGROUP=\nSYKUBE_ROOTLESS=yes\n"


@pytest.fixture
def node(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., None]:
    """Sets what the node that it runs in has."""

    def has(uid_map: str = ONE_USER, env: str = GROUP) -> None:
        for name, text in (("UID_MAP", uid_map), ("NODE", env)):
            (tmp_path / name).write_text(text)
            monkeypatch.setitem(program["main"].__globals__, name, tmp_path / name)

    has()
    return has


def called(
    program: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    name: str = "runc-rootless",
) -> list[tuple[str, list[str]]]:
    """What it becomes."""
    became: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(sys, "argv", [f"/usr/lib/sykube/{name}", *arguments])
    monkeypatch.setattr("os.execv", lambda path, words: became.append((path, words)))
    program["main"]()
    return became


def test_a_container_runs_as_root_without_mounts_of_other_groups(
    program: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    node: Callable[..., None],
) -> None:
    spec = {
        "process": {
            "user": {"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [5]},
            "args": ["id"],
        },
        "mounts": [
            {"destination": "/dev/pts", "type": "devpts", "options": ["nosuid", "gid=5"]},
            {"destination": "/proc", "type": "proc"},
        ],
        "linux": {"namespaces": [], "cgroupsPath": "/k8s.io/1", "resources": {"cpu": {}}},
    }
    (tmp_path / "config.json").write_text(json.dumps(spec))
    arguments = ["--root", "/run/runc", "create", "--bundle", str(tmp_path), "name"]
    assert called(program, monkeypatch, *arguments) == [
        ("/usr/lib/sykube/runc", ["/usr/lib/sykube/runc", *arguments])
    ]
    changed = json.loads((tmp_path / "config.json").read_text())
    assert changed["process"] == {"user": {"uid": 0, "gid": 0, "umask": 18}, "args": ["id"]}
    assert [each["options"] for each in changed["mounts"]] == [["nosuid"], []]
    assert changed["linux"] == spec["linux"]


def test_so_does_what_is_executed_in_one(
    program: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    node: Callable[..., None],
) -> None:
    file = tmp_path / "process.json"
    file.write_text(json.dumps({"user": {"uid": 7, "gid": 7}, "args": ["id"]}))
    called(program, monkeypatch, "exec", "--process", str(file), "name")
    assert json.loads(file.read_text()) == {"user": {"uid": 0, "gid": 0}, "args": ["id"]}


@pytest.mark.parametrize(("env", "has"), [(GROUP, True), (NO_GROUP, False)])
def test_containers_have_no_cgroups_where_the_node_has_none(
    program: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    node: Callable[..., None],
    env: str,
    has: bool,
) -> None:
    """And keep their users where there are more than one."""
    node(USERS, env)
    groups = {"cgroupsPath": "/kubepods/1", "resources": {"pids": {"limit": 7}}}
    spec = {
        "process": {"user": {"uid": 7, "gid": 7}},
        "linux": {"namespaces": [], **groups},
    }
    (tmp_path / "config.json").write_text(json.dumps(spec))
    called(program, monkeypatch, "create", "--bundle", str(tmp_path), "name")
    changed = json.loads((tmp_path / "config.json").read_text())
    assert changed["process"] == spec["process"]
    assert changed["linux"] == {"namespaces": [], **(groups if has else {})}


def test_crun_is_wrapped_under_its_own_name(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, node: Callable[..., None]
) -> None:
    assert called(program, monkeypatch, "kill", "name", name="crun-rootless") == [
        ("/usr/lib/sykube/crun", ["/usr/lib/sykube/crun", "kill", "name"])
    ]


def test_other_calls_are_handed_on(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called(program, monkeypatch, "kill", "name", "9") == [
        ("/usr/lib/sykube/runc", ["/usr/lib/sykube/runc", "kill", "name", "9"])
    ]
