"""The machine that is measured: what it is, and what disturbs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host

_LOOK_S = 2.0
# A cluster of two nodes that does nothing takes 4 % of a core, what looks takes some as well.
_BUSY_MAX = 0.15
_STOLEN_MAX = 0.02


@dataclass(frozen=True)
class Machine:
    """What a run was on.

    Attributes:
        processor: its model; empty where the kernel does not say.
        busy: the part of all cores' time that was taken just before, 0 to 1.
        stolen: the part that the hypervisor gave to others, 0 to 1.
        governor: what sets the cores' frequency; empty where the kernel does not.
        turbo: whether cores may be faster than their nominal frequency; None where not known.
        throttled: how often the cores were too hot since the boot.
    """

    processor: str
    cores: int
    kernel: str
    busy: float
    stolen: float
    governor: str
    turbo: bool | None
    throttled: int

    @property
    def disturbances(self) -> list[str]:
        """What makes figures of this machine worth less, for people."""
        found = []
        if self.busy > _BUSY_MAX:
            found.append(f"other programs take {self.busy:.0%} of its {self.cores} cores")
        if self.stolen > _STOLEN_MAX:
            found.append(f"other machines of its hypervisor take {self.stolen:.0%} of its time")
        if self.governor and self.governor != "performance":
            found.append(
                f"its cores' frequency changes (governor {self.governor}); "
                "as root: cpupower frequency-set --governor performance"
            )
        return found

    @property
    def refused(self) -> bool:
        """Whether it is too busy to be measured."""
        return self.busy > _BUSY_MAX or self.stolen > _STOLEN_MAX


def look(host: Host) -> Machine:
    """See what the machine is and does: it takes two seconds.

    Source of the files: Linux, Documentation/filesystems/proc.rst (stat),
    Documentation/admin-guide/pm/cpufreq.rst, Documentation/admin-guide/pm/intel_pstate.rst.
    """
    before = _times(host)
    host.sleep(_LOOK_S)
    spent = [after - start for after, start in zip(_times(host), before, strict=True)]
    whole = sum(spent) or 1
    cpuinfo = _text(host.proc / "cpuinfo")
    models = [line.partition(":")[2] for line in cpuinfo.splitlines() if line[:10] == "model name"]
    cpus = host.root / "sys/devices/system/cpu"
    return Machine(
        processor=models[0].strip() if models else "",
        cores=cpuinfo.count("\nprocessor") + cpuinfo.startswith("processor"),
        kernel=_text(host.proc / "sys/kernel/osrelease"),
        busy=1 - (spent[_IDLE] + spent[_WAITING]) / whole,
        stolen=spent[_STEAL] / whole,
        governor=_text(cpus / "cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(cpus),
        throttled=sum(
            int(_text(file) or 0)
            for file in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        ),
    )


def usable_cores() -> list[int]:
    """The cores that this process, and so what it starts, may run on."""
    return sorted(os.sched_getaffinity(0))


def two_cores() -> tuple[int, int]:
    """One for each end of a connection; twice the same where there is no other."""
    cores = usable_cores()
    return cores[0], cores[1 % len(cores)]


# The columns of /proc/stat; the two after them are parts of the first two.
_IDLE, _WAITING, _STEAL, _COLUMNS = 3, 4, 7, 8


def _times(host: Host) -> list[int]:
    first = (host.proc / "stat").read_text(encoding="utf-8").partition("\n")[0]
    return [int(each) for each in first.split()[1:]][:_COLUMNS]


def _turbo(cpus: Path) -> bool | None:
    if text := _text(cpus / "intel_pstate/no_turbo"):
        return text == "0"
    if text := _text(cpus / "cpufreq/boost"):
        return text == "1"
    return None


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8").strip()
    return ""
