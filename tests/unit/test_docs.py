"""What docs/ says of the tree; that its commands work is tested on a real cluster (tests/e2e)."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FILE = re.compile(r"`((?:definitions|docs|manifests|sykube|tests)/[\w./-]+)`")


def test_what_is_added_has_the_files_that_the_guide_names() -> None:
    named = set(_FILE.findall((ROOT / "docs/adding.md").read_text(encoding="utf-8")))
    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_names_in_code_that_the_guide_gives_are_there() -> None:
    text = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "sykube").rglob("*.py"))
    code += (ROOT / "tests/unit/test_rendering.py").read_text(encoding="utf-8")
    named = {*re.findall(r"`([A-Z][A-Za-z_]+|_?[A-Z_]{3,}|_?[a-z]+(?:_[a-z0-9]+)+)`", text)}
    named -= {"CHANGELOG", "RuntimeClass", "BinaryName"}
    assert len(named) > 10
    assert sorted(name for name in named if not re.search(rf"\b{name}\b", code)) == []
