"""How the tests of tests/e2e are shared out."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.__main__ import FIRST, HALVES

FOLDER = Path(__file__).resolve().parents[1] / "e2e"


def test_each_file_is_run_once() -> None:
    there = sorted(file.stem.removeprefix("test_") for file in FOLDER.glob("test_*.py"))
    assert sorted([*FIRST, *HALVES[0], *HALVES[1]]) == there
