"""Imports go one way, as CONTRIBUTING.md has it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import sykube

ROOT = Path(sykube.__file__).parent
# Each imports those after it, and none before it.
CLUSTER = ("cluster.commands", "cluster.operations", "cluster.model")
LAYERS = ("cli", "dashboard", *CLUSTER)
# These know of each other, and of no layer above.
BELOW = ("addons", "bench", "slurm", "kubernetes", "network", "image", "rootless", "node", "host")


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def layer(name: str) -> int:
    """The place of a module among the layers; -1 for one that is for all of them."""
    for number, each in enumerate(LAYERS):
        if name == f"sykube.{each}" or name.startswith(f"sykube.{each}."):
            return number
    return len(LAYERS) if name.startswith(tuple(f"sykube.{each}" for each in BELOW)) else -1


def test_every_layer_imports_those_below_it_alone() -> None:
    wrong = []
    for file in ROOT.rglob("*.py"):
        own = ".".join(("sykube", *file.relative_to(ROOT).with_suffix("").parts))
        for name in imported(file):
            if 0 <= layer(name) < layer(own):
                wrong.append(f"{own} imports {name}")
    assert wrong == []


def test_each_folder_of_a_cluster_is_a_layer() -> None:
    """A module beside them would be of none."""
    assert {f"cluster.{each.parent.name}" for each in (ROOT / "cluster").glob("*/*.py")} == {
        *CLUSTER
    }
    assert [each.name for each in (ROOT / "cluster").glob("*.py")] == ["__init__.py"]


def test_programs_in_pods_import_nothing_of_the_rest() -> None:
    for file in (ROOT / "incluster").rglob("*.py"):
        for name in imported(file):
            assert not name.startswith("sykube.") or name.startswith("sykube.incluster"), file


def test_a_cluster_is_locked_where_it_is_opened_and_nowhere_else() -> None:
    lockers = [
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if "sykube.cluster.model.state.locked" in imported(file)
    ]
    assert lockers == ["cluster/operations/opening.py"]
