"""The how-tos of docs/: their shell blocks do on a real cluster what the text says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import TestCluster

NAME = "e2e-docs"
DOCS = Path(__file__).resolve().parents[2] / "docs"
# Those whose blocks begin from a cluster that runs and leave it as it was.
HOWTOS = (
    "addons", "airgap", "images", "ports", "shell", "volumes",
    pytest.param("metrics", marks=pytest.mark.long),
    pytest.param("slurm", marks=pytest.mark.long),
)  # fmt: skip
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    made = TestCluster(NAME, tmp_path_factory.mktemp("docs"))
    made.delete_quietly()
    made.init("--workers", "1", "--dns", "192.0.2.53", "--yes")
    yield made
    made.delete_quietly()


@pytest.mark.parametrize("name", HOWTOS)
def test_the_blocks_of_a_how_to_work(docs: TestCluster, name: str, tmp_path: Path) -> None:
    blocks = _BLOCK.findall((DOCS / f"{name}.md").read_text())
    assert blocks
    command = tmp_path / "bin/sykube"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.e2e.release "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        env=docs.environment
        | {
            "SYKUBE_CLUSTER": NAME,
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(DOCS.parent),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
