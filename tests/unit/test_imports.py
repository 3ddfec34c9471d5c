"""Imports go one way, as CONTRIBUTING.md has it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sykube
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.network import subnets

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


# --- what quick commands import ---

# What takes long to import; those of sykube with all that is below them.
SLOW = (
    *("_hashlib", "asyncio", "concurrent.futures", "ctypes", "email", "http.client", "jinja2"),
    *("requests", "ssl", "tempfile", "urllib.request", "urllib3", "xmlrpc.client", "yaml"),
    *("sykube.addons", "sykube.cluster.commands", "sykube.cluster.operations.addons"),
    *(
        "sykube.host.engines",
        "sykube.host.preflight",
        "sykube.image.build",
        "sykube.image.versions",
    ),
    *("sykube.kubernetes.kubeadm", "sykube.rootless", "sykube.slurm"),
)
# A server is asked (and what of sykube asks it), and several nodes at once.
STATUS = {
    *("concurrent.futures", "email", "http.client", "ssl", "xmlrpc.client", "sykube.addons"),
    *("sykube.cluster.commands", "sykube.cluster.operations.addons", "sykube.image.versions"),
}
# What downloads, and what renders files.
DOWNLOADS = {"jinja2", "requests", "urllib.request", "urllib3"}
PROGRAM = """
import os, sys
from pathlib import Path
from sykube.cli.main import main
from sykube.host.host import Host

def end(*_):
    print(*sorted(sys.modules), file=sys.stderr, flush=True)
    os._exit(0)

host = Host(root=Path(sys.argv.pop(1)), replace_process=end, user=lambda: 0)
try:
    main(host)
except SystemExit:
    end()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a host with the record of a cluster, whose bridge is there."""
    host = Host(root=tmp_path_factory.mktemp("root"))
    paths = ClusterPaths(host, "sykube")
    paths.root.mkdir(parents=True)
    State(
        spec=ClusterSpec(),
        subnets=subnets.choose(()),
        engine="/usr/bin/apptainer",
        engine_environment={},
        image="0123",
        image_folder="/image",
        versions={"kubernetes": "v1.36.4"},
        loopback_resolver="",
        resolvers=(),
    ).save(paths.state)
    paths.kubeconfig.touch()
    (host.class_net / "sk-sykube").mkdir(parents=True)
    return host.root


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--help"], set()),
        (["kubectl", "get", "nodes"], set()),
        (["exec", "master", "true"], set()),
        (["config"], set()),
        (["logs"], set()),
        (["status"], STATUS),
        (["start", "--help"], {*SLOW} - DOWNLOADS),
        (["slurm", "status", "--help"], {*SLOW} - DOWNLOADS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_quick_command_imports_little(recorded: Path, words: list[str], needed: set[str]) -> None:
    """Most of the time of such a command is that of its imports."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(recorded), *words],
        cwd=ROOT.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    modules = done.stderr.splitlines()[-1].split()
    assert "sykube.cli.main" in modules
    slow = {each for each in SLOW for name in modules if f"{name}.".startswith(f"{each}.")}
    assert slow - needed == set()
