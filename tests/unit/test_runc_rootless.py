"""runc's wrapper in nodes whose user namespace has one user only."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "definitions/node/runc-rootless"


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


def called(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> list[tuple[str, list[str]]]:
    """What it becomes."""
    became: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(sys, "argv", ["runc-rootless", *arguments])
    monkeypatch.setattr("os.execv", lambda path, words: became.append((path, words)))
    program["main"]()
    return became


def test_a_container_runs_as_root_without_mounts_of_other_groups(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
        "linux": {"namespaces": []},
    }
    (tmp_path / "config.json").write_text(json.dumps(spec))
    arguments = ["--root", "/run/runc", "create", "--bundle", str(tmp_path), "name"]
    assert called(program, monkeypatch, *arguments) == [
        ("/usr/bin/runc", ["/usr/bin/runc", *arguments])
    ]
    changed = json.loads((tmp_path / "config.json").read_text())
    assert changed["process"] == {"user": {"uid": 0, "gid": 0, "umask": 18}, "args": ["id"]}
    assert [each["options"] for each in changed["mounts"]] == [["nosuid"], []]
    assert changed["linux"] == spec["linux"]


def test_so_does_what_is_executed_in_one(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "process.json"
    file.write_text(json.dumps({"user": {"uid": 7, "gid": 7}, "args": ["id"]}))
    called(program, monkeypatch, "exec", "--process", str(file), "name")
    assert json.loads(file.read_text()) == {"user": {"uid": 0, "gid": 0}, "args": ["id"]}


def test_other_calls_are_handed_on(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called(program, monkeypatch, "kill", "name", "9") == [
        ("/usr/bin/runc", ["/usr/bin/runc", "kill", "name", "9"])
    ]
