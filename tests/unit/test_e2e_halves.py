"""How the tests of tests/e2e are shared out."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.__main__ import FIRST, HALVES

FOLDER = Path(__file__).resolve().parents[1] / "e2e"


def test_each_file_is_run_once() -> None:
    there = sorted(file.stem.removeprefix("test_") for file in FOLDER.glob("test_*.py"))
    assert sorted([*FIRST, *HALVES[0], *HALVES[1]]) == there


_LONG = "pytest.mark.long"
_NAMES = re.compile(
    rf"@{_LONG}\n(?:@.*\n)*def (\w+)|pytest\.param\(\"(\w+)\", marks={_LONG}|^pytestmark = {_LONG}()",
    re.MULTILINE,
)


def test_those_that_ci_leaves_to_soak_are_named() -> None:
    text = (FOLDER.parents[1] / "docs/soak.md").read_text(encoding="utf-8")
    for file in FOLDER.glob("test_*.py"):
        source = file.read_text(encoding="utf-8")
        found = _NAMES.findall(source)
        assert len(found) == source.count(_LONG)
        for marked, case, _ in found:
            assert (
                f"`{marked or case}`" in text if marked or case else f"| {file.stem} | all" in text
            )
