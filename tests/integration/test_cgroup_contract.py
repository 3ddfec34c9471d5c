"""This kernel's cgroups, as root, in folders of the test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.cgroups import CgroupContract, Make

pytestmark = pytest.mark.integration
ROOT = Path("/sys/fs/cgroup")


def remove(folder: Path) -> None:
    """Remove a cgroup that was left; the kernel lets go of an ended process a moment later."""
    deadline = time.monotonic() + 30
    while folder.exists():
        with contextlib.suppress(OSError):
            folder.rmdir()
        assert time.monotonic() < deadline, f"{folder} stays"


class TestReal(CgroupContract):
    @pytest.fixture
    def make(self) -> Iterator[Make]:
        made: list[Path] = []

        def folder(hierarchy: str) -> Path:
            root = ROOT / hierarchy
            if hierarchy == "unified" and (ROOT / "cgroup.controllers").exists():
                root = ROOT
            if not root.is_dir():
                pytest.skip(f"this kernel has no such hierarchy: {hierarchy}")
            made.append(root / f"sykube-contract-{os.getpid()}")
            made[-1].mkdir()
            return made[-1]

        yield folder
        for each in made:
            remove(each / "inner")
            remove(each)

    @pytest.fixture
    def process(self, make: Make) -> Iterator[int]:
        """Ended before its cgroup is removed."""
        with subprocess.Popen(["sleep", "600"]) as sleeping:
            yield sleeping.pid
            sleeping.kill()
