"""What is asked of slurmctld, in its pod, by its own commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host
from sykube.host.run import WITHOUT_PROXIES, Completed
from sykube.slurm import sacct

POD, CONTAINER, NODE_CONTAINER = "slurmctld-0", "slurmctld", "slurmd"
LOGIN = "deployment/login"
REST = "slurmrestd"
ACCOUNTING_POD, ACCOUNTING_CONTAINER = "slurmdbd-0", "slurmdbd"
# What follows a state: not responding, powered down … (sinfo(1), NODE STATE CODES).
_MARKS = "*~#!%$@^+-"
_BUSY = frozenset({"allocated", "mixed", "completing", "draining", "reserved"})
# Powered down, to be powered down, being powered down, powering up: the same.
_AWAY = "~!%#"
# Planned: idle, and kept for a job that waits for more nodes.
_READY = frozenset({"idle", "allocated", "mixed", "completing", "planned"})
# squeue(1): ID, user, state, reason, CPUs, time that it has run, nodes, and last what may be
# anything: its name.
_QUEUE = "--format=%i|%u|%T|%r|%C|%M|%N|%j"
# For kubectl's own and slurmctld's: clients of Slurm wait for it up to SlurmctldTimeout (30 s).
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SlurmNode:
    """A node as Slurm sees it.

    Attributes:
        state: in sinfo's words, with its marks.
        memory: MiB.
        reason: why it is drained or down.
    """

    name: str
    state: str
    cpus: int
    allocated: int
    memory: int
    reason: str = ""

    @property
    def word(self) -> str:
        """The state without what it is marked with."""
        return self.state.rstrip(_MARKS)

    @property
    def is_busy(self) -> bool:
        """Whether a job runs on it, or has just ended there."""
        return self.word in _BUSY

    @property
    def is_drained(self) -> bool:
        """Whether it gets no job any more, though one may still run."""
        return self.word in ("draining", "drained")

    @property
    def responds(self) -> bool:
        return not self.state.endswith("*")

    @property
    def is_away(self) -> bool:
        """Whether Slurm has ended it, or waits for its pod to come or to go."""
        return self.state.endswith(tuple(_AWAY))

    @property
    def is_ready(self) -> bool:
        """Whether it can be given jobs, or has some; then Slurm lets it come where it is away."""
        return self.word in _READY and self.responds


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs, in squeue's words.

    Attributes:
        id: of an array, all tasks that wait are one: 12_[3-10].
        reason: why it waits; empty where it runs.
        time: that it has run, as [D-]HH:MM:SS or M:SS.
        nodes: that it runs on, as c[1-2]-0; empty where it waits.
    """

    id: str
    name: str
    user: str
    state: str
    reason: str
    cpus: int
    time: str
    nodes: str


class Controller:
    """The slurmctld of a Slurm cluster; errors are CommandErrors."""

    def __init__(self, host: Host, kubectl: Path, kubeconfig: Path, namespace: str) -> None:
        self._host, self._namespace = host, namespace
        self._kubectl = [str(kubectl), "--kubeconfig", str(kubeconfig), "--namespace", namespace]

    def kubectl(
        self,
        *words: str,
        stdin: str | None = None,
        timeout: float = _TIMEOUT_S,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        """Run kubectl in the Slurm cluster's namespace; arguments as of `run`."""
        return self._host.run(
            [*self._kubectl, *words],
            stdin=stdin,
            env=WITHOUT_PROXIES,
            timeout=timeout,
            check=check,
            secret=secret,
        )

    def nodes(self) -> dict[str, SlurmNode]:
        """The nodes that Slurm knows, by name."""
        said = self._run("sinfo", "--noheader", "--Node", "--format=%N|%T|%C|%m|%E")
        found = [_node(line) for line in said.splitlines() if line.count("|") >= 4]
        return {node.name: node for node in found}

    def jobs(self) -> dict[str, int]:
        """How many jobs there are by state, each task of an array for itself."""
        said = self._run("squeue", "--noheader", "--array", "--states=all", "--format=%T")
        states = [line.strip().lower() for line in said.splitlines() if line.strip()]
        return {state: states.count(state) for state in sorted({*states})}

    def queue(self) -> list[QueuedJob]:
        """The jobs that wait or run, in squeue's order."""
        said = self._run("squeue", "--noheader", _QUEUE)
        lines = (line.split("|", 7) for line in said.splitlines())
        # A name may have a line break in it; what follows that is no job.
        return [_queued(line) for line in lines if len(line) == 8 and line[4].isdecimal()]

    def unfinished(self) -> int:
        """How many jobs wait or run."""
        said = self._run("squeue", "--noheader", "--array", "--format=%i")
        return len(said.split())

    def partitions(self) -> list[str]:
        return sorted({*self._run("sinfo", "--noheader", "--format=%R").split()})

    def accounting(self) -> str:
        """What sacct says of all jobs there have been."""
        # Numbers of jobs begin again with the queue, which goes before what is kept of jobs.
        return self._run(*sacct.COMMAND, "--duplicates", "--starttime=1970-01-01")

    def has_accounting(self, pod: str, container: str) -> bool:
        """Whether sacct works in a pod."""
        words = ("exec", pod, "--container", container, "--", "sacct", "--noheader")
        return self.kubectl(*words, check=False).ok

    def token(self, user: str, lifetime_s: int) -> str:
        """A token by which somebody is that user for slurmrestd; it is in no log.

        Raises:
            CommandError: slurmctld makes none.
        """
        words = ("scontrol", "token", f"username={user}", f"lifespan={lifetime_s}")
        said = self._run(*words, secret=True)
        # SLURM_JWT=TOKEN
        return said.partition("=")[2].strip()

    def reconfigure(self) -> None:
        """Have all daemons take slurmctld's configuration as it is."""
        self._run("scontrol", "reconfigure")

    def knows(self, pod: str, container: str, users: Sequence[str]) -> bool:
        """Whether a pod knows all of these users."""
        words = ("exec", pod, "--container", container, "--", "getent", "passwd", *users)
        return self.kubectl(*words, check=False).ok

    def drain(self, names: Sequence[str], reason: str) -> None:
        """Give nodes no more jobs."""
        self._update(names, "state=drain", f"reason={reason}")

    def undrain(self, names: Sequence[str]) -> None:
        """Let nodes have jobs again; those that are down come back by themselves."""
        self._update(names, "state=undrain")

    def fail(self, names: Sequence[str], reason: str) -> None:
        """Take nodes away from their jobs; batch jobs wait in the queue again."""
        self._update(names, "state=down", f"reason={reason}")

    def forget(self, names: Sequence[str]) -> None:
        """Delete the entries of nodes whose pods are gone."""
        if names:
            self._run("scontrol", "delete", f"nodename={','.join(names)}")

    def cancel_all(self) -> None:
        """Cancel every job."""
        self._run("scancel", "--state=pending")
        self._run("scancel", "--state=running")

    def _update(self, names: Sequence[str], *changes: str) -> None:
        if names:
            self._run("scontrol", "update", f"nodename={','.join(names)}", *changes)

    def _run(self, *command: str, secret: bool = False) -> str:
        words = ("exec", POD, "--container", CONTAINER, "--", *command)
        return self.kubectl(*words, secret=secret).stdout


def _queued(words: Sequence[str]) -> QueuedJob:
    id_, user, state, reason, cpus, time, nodes, name = words
    why = "" if reason == "None" else reason
    return QueuedJob(id_, name, user, state.lower(), why, int(cpus), time, nodes)


def _node(line: str) -> SlurmNode:
    name, state, cpus, memory, reason = line.split("|", 4)
    # Allocated, idle, other, total: sinfo(1), %C.
    counts = [int(count) for count in cpus.split("/")]
    why = "" if reason == "none" else reason
    return SlurmNode(name, state, counts[3], counts[0], int(memory.rstrip("+")), why)
