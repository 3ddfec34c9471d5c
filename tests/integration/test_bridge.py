"""A cluster's bridge and rules on this kernel, by both kinds of iptables; as root.

Each case is a process of its own, in a network that nobody else has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sykube.host import run as run_module
from sykube.host.host import Host
from sykube.host.run import CommandError, Completed
from sykube.network import rules
from sykube.network.bridge import Bridge
from sykube.network.ports import PortMap
from sykube.network.rules import Chain, Wiring
from tests.fakes.nodes import make_subnets

ROOT = Path(__file__).resolve().parents[2]
# `ip link` sees the new network by its file system of its own.
_INSIDE = 'mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'
OTHERS = (
    ("filter", "-N", "SYKUBE-lab-2-FWD"),
    ("filter", "-A", "SYKUBE-lab-2-FWD", "-j", "ACCEPT"),
    (
        "filter",
        "-A",
        "FORWARD",
        "-i",
        "docker0",
        "-m",
        "comment",
        "--comment",
        "a  b",
        "-j",
        "DROP",
    ),
    ("nat", "-A", "POSTROUTING", "-s", "192.0.2.0/24", "-j", "MASQUERADE"),
)


def wiring(*ports: str) -> Wiring:
    led = tuple((PortMap.parse(port), "10.11.11.3") for port in ports)
    return Wiring(make_subnets(), "127.0.0.53", "10.11.11.254", led)


ALL = wiring("8080:30080", "0.0.0.0:53:30053/udp")


class Machine:
    """The network of this process, with somebody else's rules."""

    def __init__(self, variant: str) -> None:
        self._variant = variant
        self.host = Host(run=self.run)
        for table, *words in OTHERS:
            self.iptables(table, *words)

    def iptables(self, table: str, *words: str) -> str:
        return self.run(["iptables", "-w", "-t", table, *words]).stdout

    def run(self, argv: Sequence[str | Path], **options: Any) -> Completed:
        program, *words = argv
        names = {
            "iptables": f"iptables-{self._variant}",
            "iptables-restore": f"iptables-{self._variant}-restore",
        }
        return run_module.run([names.get(str(program), program), *words], **options)

    def rules(self) -> dict[str, str]:
        return {table: self.iptables(table, "-S") for table in ("filter", "nat")}


def made_twice(machine: Machine) -> None:
    """The second time changes nothing, and what is gone comes back."""
    Bridge(machine.host, "lab").create(ALL)
    once = machine.rules()
    assert Bridge(machine.host, "lab").missing_rules(ALL) == []
    assert Bridge(machine.host, "lab").problem(ALL) == ""
    Bridge(machine.host, "lab").create(ALL)
    assert machine.rules() == once
    machine.iptables("filter", "-F", "SYKUBE-lab-FWD")
    machine.iptables("nat", "-F", "POSTROUTING")
    assert Bridge(machine.host, "lab").problem(ALL) != ""
    Bridge(machine.host, "lab").create(ALL)
    machine.iptables("nat", "-A", *OTHERS[-1][2:])
    assert machine.rules() == once


def removed(machine: Machine) -> None:
    """Others' rules stay, also chains whose names begin alike; of a second jump nothing stays."""
    before = machine.rules()
    Bridge(machine.host, "lab").create(ALL)
    assert machine.rules() != before
    (jump,) = [
        line.split()[1:]
        for line in machine.iptables("filter", "-S").splitlines()
        if line.startswith("-A FORWARD") and line.endswith("-j SYKUBE-lab-FWD")
    ]
    machine.iptables("filter", "-A", *(word.strip('"') for word in jump))
    Bridge(machine.host, "lab").remove()
    assert machine.rules() == before
    assert not Bridge(machine.host, "lab").exists()
    Bridge(machine.host, "lab").remove()
    assert machine.rules() == before


def changed(machine: Machine) -> None:
    """What the new wiring has no rules for goes with its chains."""
    Bridge(machine.host, "lab").create(Wiring(make_subnets(), "", "10.11.11.254"))
    small = machine.rules()
    Bridge(machine.host, "lab").create(ALL)
    assert "SYKUBE-lab-OUT" in machine.rules()["nat"]
    Bridge(machine.host, "lab").create(Wiring(make_subnets(), "", "10.11.11.254"))
    assert machine.rules() == small


def refused(machine: Machine) -> None:
    """A rule that this kernel does not take leaves its table as it was."""
    Bridge(machine.host, "lab").create(ALL)
    before = machine.rules()
    chains = rules.chains("sk-lab", ALL)
    bad = Chain("nat", "OUTPUT", "SYKUBE-lab-OUT", (("-p", "tcp", "-j", "NO-SUCH-TARGET"),))
    kept = [chain for chain in chains if chain.name != bad.name]
    with mock.patch.object(rules, "chains", lambda *_: [*kept, bad]):
        try:
            Bridge(machine.host, "lab").create(ALL)
        except CommandError as error:
            assert "iptables" in error.brief
        else:
            raise AssertionError("it was taken")
    assert machine.rules() == before
    Bridge(machine.host, "lab").remove()
    assert "SYKUBE-lab-OUT" not in machine.rules()["nat"]


CASES: tuple[Callable[[Machine], None], ...] = (made_twice, removed, changed, refused)


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_rules(case: Callable[[Machine], None], variant: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes networks")
    if not shutil.which(f"iptables-{variant}"):
        pytest.skip(f"there is no iptables-{variant}")
    program = [sys.executable, "-m", __name__, variant, case.__name__]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", _INSIDE, "sh", *program],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def main(variant: str, name: str) -> None:
    """One case, in this process."""
    machine = Machine(variant)
    (case,) = (case for case in CASES if case.__name__ == name)
    case(machine)


if __name__ == "__main__":
    main(*sys.argv[1:])
