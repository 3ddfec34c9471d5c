"""The fake iptables does as the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.iptables import IptablesContract, Run
from tests.fakes import Kernel
from tests.fakes.iptables import Iptables


class TestFake(IptablesContract):
    @pytest.fixture
    def iptables(self, tmp_path: Path) -> Run:
        kernel = Kernel(tmp_path)
        for chains in kernel.tables.values():
            for rules in chains.values():
                rules.clear()
        fake = Iptables(kernel)

        def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
            return fake.restore([*words], stdin) if stdin else fake([*words])

        return run
