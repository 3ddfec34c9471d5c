"""The Vagrantfile, read by Vagrant."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("ci", ["", "true"])
def test_vagrant_takes_it(tmp_path: Path, ci: str) -> None:
    """Without a provider: those are for machines that can start others."""
    environment = os.environ | {
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "machines"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }
    environment.pop("CI", None)
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=_REPOSITORY,
        env=environment | ({"CI": ci} if ci else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "validated successfully" in done.stdout
