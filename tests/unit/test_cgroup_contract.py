"""The fake cgroup file systems do as the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.cgroups import CgroupContract, Make
from tests.fakes.cgroups import CgroupPath, mount_cgroups


class TestFake(CgroupContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        roots = {version: CgroupPath(tmp_path / f"v{version}") for version in (1, 2)}
        for version, root in roots.items():
            mount_cgroups(root, version)

        def made(hierarchy: str) -> Path:
            # The fake one is mounted together with another; "cpu" leads to it.
            name = "cpu,cpuacct" if hierarchy == "cpu" else hierarchy
            root = roots[2] if hierarchy == "unified" else roots[1] / name
            folder: Path = root / "ours"
            folder.mkdir()
            return folder

        return made

    @pytest.fixture
    def process(self) -> int:
        return 5_000_000
