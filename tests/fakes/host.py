"""The machine of a test: a folder, and the programs that it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube.host.host import Attached, Host, Runner
from tests.fakes.cgroups import CgroupPath
from tests.fakes.files import fill
from tests.fakes.kernel import SysctlPath


def no_process(*args: object, **_: object) -> Any:
    raise AssertionError(f"a unit test tried to start a process: {args}")


@dataclass(frozen=True)
class FakeHost(Host):
    """A machine below a folder, whose /proc/sys and cgroups behave like the kernel's.

    It has no programs but those that it is given.
    """

    run: Runner = no_process
    replace_process: Callable[[Sequence[str | Path], Mapping[str, str]], None] = no_process
    run_attached: Attached = no_process
    in_background: Callable[[Callable[[], None], Path], None] = no_process
    kill: Callable[[int, int], None] = no_process
    user: Callable[[], int] = lambda: 0
    # Not what a busy machine takes for an answer.
    patience: float = 10.0
    # What reads and writes its sysctls and cgroups.
    sysctls: type[SysctlPath] = SysctlPath
    cgroup_files: type[CgroupPath] = CgroupPath

    @property
    def proc_sys(self) -> SysctlPath:
        return self.sysctls(super().proc_sys)

    @property
    def cgroups(self) -> CgroupPath:
        return self.cgroup_files(super().cgroups)


def give_capabilities(host: Host, mask: int, last: int = 40) -> None:
    """Let a process of the host have these capabilities, of those up to the last one's number."""
    fill(host.proc / "self", {"status": f"CapEff:\t{mask:016x}\n"})
    fill(host.proc_sys / "kernel", {"cap_last_cap": f"{last}\n"})
