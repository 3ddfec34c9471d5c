"""The machine that sykube runs on, as one object: where its files are, and what runs programs."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sykube.host import background
from sykube.host import run as processes
from sykube.host.grants import Grants
from sykube.host.network import Network
from sykube.host.run import PATH, Completed


class Runner(Protocol):
    """What runs a program of the machine; see sykube.host.run.run."""

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | Path = "/",
        timeout: float = 60.0,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
        secret: bool = False,
        terminal: bool = False,
        wrapper: Sequence[str] = (),
        stop: threading.Event | None = None,
    ) -> Completed: ...


class Attached(Protocol):
    """What runs a program at the caller's terminal; see sykube.host.run.run_attached."""

    def __call__(
        self, argv: Sequence[str | Path], env: Mapping[str, str], until: float | None = None
    ) -> int: ...


class Space(Protocol):
    """Bytes of a file system; see shutil.disk_usage."""

    @property
    def total(self) -> int: ...
    @property
    def free(self) -> int: ...


def _which(program: str) -> str | None:
    return shutil.which(program, path=PATH)


@dataclass(frozen=True)
class Host:
    """A machine; made once, in cli/, and passed on to whatever touches it.

    Attributes:
        root: its root folder; tests have one of their own.
        run: runs a program to its end.
        replace_process: lets this process become a program.
        run_attached: runs a program at the caller's terminal; its exit code.
        in_background: does something after this process has ended; what is said goes to a file.
        kill: sends a process a signal.
        which: the path of a program; None where there is none.
        disk_usage: the space of the file system that a folder is on.
        statvfs: the blocks and inodes of the file system that a folder is on.
        is_mount: whether a file system is mounted there.
        user: the number of the user whose rights this process has.
        machine: the kernel's name of the processor, such as x86_64.
        monotonic: a clock that never goes back, in seconds.
        sleep: waits for some seconds.
        waiting: is around every wait for something of that name; sykube.timings records it.
        chown: gives a file to a user and a group.
        patience: how many times as long as usual others are waited for; tests have more of it.
        time: the time of day, in seconds since the epoch.
        network: what other programs and machines are asked over.
        grants: what it lets this process do.
    """

    root: Path = Path("/")
    run: Runner = processes.run
    replace_process: Callable[[Sequence[str | Path], Mapping[str, str]], None] = (
        processes.replace_process
    )
    run_attached: Attached = processes.run_attached
    in_background: Callable[[Callable[[], None], Path], None] = background.run
    kill: Callable[[int, int], None] = os.kill
    which: Callable[[str], str | None] = _which
    disk_usage: Callable[[Path], Space] = shutil.disk_usage
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
    is_mount: Callable[[Path], bool] = Path.is_mount
    user: Callable[[], int] = os.geteuid
    machine: Callable[[], str] = platform.machine
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    waiting: Callable[[str], AbstractContextManager[object]] = nullcontext
    patience: float = 1.0
    time: Callable[[], float] = time.time
    chown: Callable[[str | Path, int, int], None] = os.chown
    network: Network = Network()  # noqa: RUF009 - it has no state
    grants: Grants = Grants()  # noqa: RUF009 - it cannot be changed

    @property
    def variables(self) -> Mapping[str, str]:
        """What programs that are run for the caller need to find the same machine."""
        return {}

    @property
    def data(self) -> Path:
        """A folder for each cluster, and what clusters share."""
        return self.root / "var/lib/sykube"

    @property
    def records(self) -> Path:
        """The host's settings as they were before the first cluster."""
        return self.data / "host"

    @property
    def snapshots(self) -> Path:
        return self.data / "snapshots"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/sykube"

    @property
    def locks(self) -> Path:
        return self.root / "run/sykube"

    @property
    def cache(self) -> Path:
        """/var/cache/sykube, or SYKUBE_CACHE_DIR."""
        return Path(os.environ.get("SYKUBE_CACHE_DIR") or self.root / "var/cache/sykube")

    @property
    def caches(self) -> tuple[Path, ...]:
        """The cache, and those of others whose images and engine can be used, too."""
        return (self.cache,)

    @property
    def proc_sys(self) -> Path:
        return self.root / "proc/sys"

    @property
    def cgroups(self) -> Path:
        """The root of the cgroup hierarchies."""
        return self.root / "sys/fs/cgroup"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def class_net(self) -> Path:
        """A folder for each network interface."""
        return self.root / "sys/class/net"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def units(self) -> Path:
        """Units of systemd that are not of a package."""
        return self.etc / "systemd/system"

    @property
    def systemd(self) -> Path:
        """A folder that is there where systemd runs: sd_booted(3)."""
        return self.root / "run/systemd/system"

    @property
    def manager(self) -> Path:
        """A folder that is there where the systemd runs whose units these are."""
        return self.systemd

    def systemctl(self, *words: str, check: bool = True) -> Completed:
        """Ask that systemd."""
        return self.run(["systemctl", *words], check=check)

    @property
    def cni_state(self) -> Path:
        """What CNI plugins remember of the interfaces that they made."""
        return self.root / "var/lib/cni"

    @property
    def debian_keys(self) -> Path:
        return self.root / "usr/share/keyrings/debian-archive-keyring.gpg"
