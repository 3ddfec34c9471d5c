"""Both kinds of iptables of this machine, as root, in a network that nobody else has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.contracts.iptables import IptablesContract, Run

pytestmark = pytest.mark.integration


class TestReal(IptablesContract):
    @pytest.fixture(params=["nft", "legacy"])
    def iptables(self, request: pytest.FixtureRequest) -> Iterator[Run]:
        if not shutil.which(f"iptables-{request.param}"):
            pytest.skip(f"there is no iptables-{request.param}")
        with subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; read line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]

            def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
                program = f"iptables-{request.param}" + ("-restore" if stdin else "")
                done = subprocess.run(
                    [*inside, program, *words],
                    input=stdin,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                return done.returncode, done.stdout, done.stderr

            yield run
            holder.communicate(b"\n")
