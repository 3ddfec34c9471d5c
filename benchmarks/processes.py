"""CPU seconds of a cluster's programs while something goes on, read from /proc 20 times a second.

`spent_by` has those of processes that are there anyway. The Sampler counts the processes that began
meanwhile and that this one started, itself or through others, or that are in the cgroups of the
cluster's nodes. What is missed is in `Sampled.missed_s`, if the
machine has nothing else to do: processes that come and go between two looks (ip, iptables, runc,
the shells of probes), the last moments of all others, and the kernel's own threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from sykube.host import processes
from sykube.kubernetes.api import API_PORT
from sykube.node import cgroups

_INTERVAL_S = 0.05
OTHERS = "others"
# By the names that the kernel keeps, which have at most 15 characters.
_PROGRAMS = {
    "kube-apiserver": "kube-apiserver",
    "etcd": "etcd",
    "kube-controller": "kube-controller-manager",
    "kube-scheduler": "kube-scheduler",
    "kubelet": "kubelet",
    "containerd": "containerd",
    "containerd-shim": "containerd",
    "runc": "containerd",
    "kubeadm": "kubeadm",
    "apptainer": "apptainer",
    "starter": "apptainer",
    "starter-suid": "apptainer",
    "singularity": "apptainer",
    "appinit": "apptainer",
    "sinit": "apptainer",
}
# Of /proc/PID/stat after the name, as proc_pid_stat(5) numbers them less 3.
_PARENT, _USER, _SYSTEM, _BEGAN = 1, 11, 12, 19
# Of the first line of /proc/stat (proc_stat(5)); after these come time that other machines had, and
# guests' time, which is in user's and nice's already.
_IDLE, _IO_WAIT, _FIELDS = 3, 4, 7
_LISTENS = "0A"


@dataclass
class _Process:
    began: int
    spent: int = 0
    is_sykube: bool = False


@dataclass
class Sampled:
    """What was seen.

    Attributes:
        programs_s: CPU seconds by program; what has no name here is in `others_s`.
        others_s: CPU seconds by the kernel's name of a process.
        first_seen_s: seconds until a program ran first, by program.
        api_listens_s: seconds until the API server listened; None if it did not.
        wall_s: seconds from begin to end.
        machine_s: CPU seconds of the whole machine.
        idle_s: seconds that its cores had nothing to do, of all cores together.
        sampler_s: CPU seconds of this process.
    """

    programs_s: dict[str, float] = field(default_factory=dict)
    others_s: dict[str, float] = field(default_factory=dict)
    first_seen_s: dict[str, float] = field(default_factory=dict)
    api_listens_s: float | None = None
    wall_s: float = 0.0
    machine_s: float = 0.0
    idle_s: float = 0.0
    sampler_s: float = 0.0

    @property
    def seen_s(self) -> float:
        return sum(self.programs_s.values()) + sum(self.others_s.values())

    @property
    def missed_s(self) -> float:
        """CPU seconds of the machine that belong to no process that was seen."""
        return self.machine_s - self.seen_s - self.sampler_s


class Sampler:
    """Looks at processes while its body runs; then `found` is complete.

    Args:
        cluster: its name; its nodes' processes are counted.
        proc: where the kernel shows processes.
        interval: seconds from look to look.
    """

    def __init__(
        self, cluster: str, proc: Path = Path("/proc"), interval: float = _INTERVAL_S
    ) -> None:
        self.found = Sampled()
        self._proc = proc
        self._interval = interval
        self._node = f"/{cgroups.path_of(cluster)}-"
        self._tick = 1.0 / os.sysconf("SC_CLK_TCK")
        self._ours: dict[str, _Process] = {}
        self._foreign: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._foreign = set(self._pids())
        self._before = self._machine()
        self._own_before = time.process_time()
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.look()
        busy, idle = self._machine()
        self.found.wall_s = time.monotonic() - self._began
        self.found.machine_s = busy - self._before[0]
        self.found.idle_s = idle - self._before[1]
        self.found.sampler_s = time.process_time() - self._own_before

    def _look_on(self) -> None:
        while not self._stop.wait(self._interval):
            self.look()

    def look(self) -> None:
        """Look at every process that began since the start, once."""
        for pid in self._pids():
            if pid not in self._foreign:
                with contextlib.suppress(OSError):
                    self._count(pid)

    def _count(self, pid: str) -> None:
        folder = self._proc / pid
        stat = processes.stat(folder)
        known = self._ours.get(pid)
        if not known or known.began != int(stat[_BEGAN]):
            parent = stat[_PARENT]
            is_child = parent == str(os.getpid())
            if not (is_child or parent in self._ours or self._is_of_node(folder)):
                # It may still be put into a node's cgroup.
                return
            known = self._ours[pid] = _Process(int(stat[_BEGAN]), is_sykube=is_child)
        name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        # Python's name says nothing: add-ons are in Python, too.
        program = "sykube" if known.is_sykube else program_of(name)
        spent = int(stat[_USER]) + int(stat[_SYSTEM])
        # By what it is now: the engine becomes the program that it starts.
        seconds, known.spent = (spent - known.spent) * self._tick, spent
        if program == OTHERS:
            self.found.others_s[name] = self.found.others_s.get(name, 0.0) + seconds
        else:
            self.found.programs_s[program] = self.found.programs_s.get(program, 0.0) + seconds
        now = time.monotonic() - self._began
        self.found.first_seen_s.setdefault(program, now)
        if program == "kube-apiserver" and self.found.api_listens_s is None and listens(folder):
            self.found.api_listens_s = now

    def _is_of_node(self, folder: Path) -> bool:
        return self._node in (folder / "cgroup").read_text(encoding="utf-8")

    def _pids(self) -> list[str]:
        return [folder.name for folder in self._proc.iterdir() if folder.name.isdigit()]

    def _machine(self) -> tuple[float, float]:
        """Seconds of all cores: busy, idle."""
        with (self._proc / "stat").open(encoding="utf-8") as file:
            ticks = [int(word) for word in file.readline().split()[1 : _FIELDS + 1]]
        idle = ticks[_IDLE] + ticks[_IO_WAIT]
        return (sum(ticks) - idle) * self._tick, idle * self._tick


def spent_by(process: Path) -> float:
    """CPU seconds of a process, without its children.

    Raises:
        OSError: it is gone.
    """
    stat = processes.stat(process)
    return (int(stat[_USER]) + int(stat[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def program_at(process: Path) -> str:
    """The program that a process runs: of Python its module or script, else as the kernel names it.

    Raises:
        OSError: it is gone.
    """
    _, *arguments = (process / "cmdline").read_text(encoding="utf-8").split("\0")
    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    if name.startswith(("python", "supervisord")):
        # -m MODULE, or a script.
        words = [each for each in arguments if each and not each.startswith("-")]
        return Path(words[0]).name if words else name
    return name


def program_of(name: str) -> str:
    """The program that a process is of, by the kernel's name of it."""
    # runc calls its own stages runc:[1:CHILD] and so on.
    return _PROGRAMS.get(name.partition(":")[0], OTHERS)


def listens(process: Path) -> bool:
    """Whether anything in a process's network listens at the API server's port."""
    for table in ("tcp", "tcp6"):
        lines = (process / "net" / table).read_text(encoding="utf-8").splitlines()[1:]
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTENS and local.endswith(f":{API_PORT:04X}"):
                return True
    return False
