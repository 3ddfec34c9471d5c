"""What `sykube bench` sees of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sykube.bench import machine
from sykube.cluster.commands.bench import laboratory
from sykube.errors import HostError
from tests.fakes import FakeHost


def made(root: Path, before: str, after: str, **files: str) -> machine.Machine:
    """What is seen of a host whose /proc/stat changes while it is looked at."""
    stat = root / "proc/stat"
    texts = {
        "proc/stat": f"cpu {before} 0 0\ncpu0 {before} 0 0\n",
        "proc/cpuinfo": "processor : 0\nmodel name : Quick 1\n\nprocessor : 1\nmodel name : Quick 1\n",
        "proc/sys/kernel/osrelease": "6.12.1\n",
        **{f"sys/devices/system/cpu/{name}": text for name, text in files.items()},
    }
    for name, text in texts.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    host = FakeHost(root=root, sleep=lambda _: void(stat.write_text(f"cpu {after} 0 0\n")))
    return machine.look(host)


def void(_written: int) -> None:
    """A sleep returns nothing."""


def test_a_quiet_machine_has_no_disturbances(tmp_path: Path) -> None:
    found = made(tmp_path, "0 0 0 0 0 0 0 0", "10 0 6 380 4 0 0 0")
    assert (found.processor, found.cores, found.kernel) == ("Quick 1", 2, "6.12.1")
    assert found.busy == pytest.approx(0.04)
    assert (found.governor, found.turbo, found.throttled) == ("", None, 0)
    assert found.disturbances == []
    laboratory.require_quiet(found, anyway=False)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("100 20 80 200 0 0 0 0", "other programs take 50% of its 2 cores"),
        ("0 0 0 360 0 0 0 40", "other machines of its hypervisor take 10% of its time"),
    ],
)
def test_a_busy_one_is_refused_unless_it_is_meant(tmp_path: Path, after: str, said: str) -> None:
    found = made(tmp_path, "0 0 0 0 0 0 0 0", after)
    with pytest.raises(HostError, match="busy") as caught:
        laboratory.require_quiet(found, anyway=False)
    assert said in caught.value.details
    assert "--anyway" in caught.value.resolution
    laboratory.require_quiet(found, anyway=True)


def test_what_cores_are_set_to_is_told_and_refuses_nothing(tmp_path: Path) -> None:
    found = made(
        tmp_path, "5 5 5 5 5 5 5 5", "5 5 5 405 5 5 5 5",
        **{
            "cpu0/cpufreq/scaling_governor": "powersave\n",
            "intel_pstate/no_turbo": "0\n",
            "cpu0/thermal_throttle/core_throttle_count": "3\n",
            "cpu1/thermal_throttle/core_throttle_count": "4\n",
        },
    )  # fmt: skip
    assert (found.governor, found.turbo, found.throttled) == ("powersave", True, 7)
    assert "powersave" in found.disturbances[0]
    laboratory.require_quiet(found, anyway=False)


def test_turbo_is_also_known_of_other_drivers(tmp_path: Path) -> None:
    idle = ("0 0 0 0 0 0 0 0", "0 0 0 400 0 0 0 0")
    assert made(tmp_path, *idle, **{"cpufreq/boost": "0\n"}).turbo is False
