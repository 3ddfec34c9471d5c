"""A real Slurm on a machine of its own: munged, slurmctld and slurmd of one node."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.machine.users import User

_FIRST = Path(__file__).with_name("slurm")


@dataclass(frozen=True)
class Slurm:
    """A Slurm that runs.

    Attributes:
        pid: the first process of its machine.
    """

    pid: int

    def _enter(self, *command: str) -> list[str]:
        return [
            "nsenter",
            f"--target={self.pid}",
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            *command,
        ]

    def submit(self, user: User, script: str, *options: str) -> int:
        """Let a user, who may have programs in ~/bin, submit a batch script from home; its number."""
        environment = user.environment
        environment["PATH"] = f"{user.home}/bin:{environment['PATH']}"
        done = subprocess.run(
            self._enter(*user.prefix, "sbatch", "--parsable", *options),
            env=environment, input=script, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return int(done.stdout)

    def cancel(self, job: int, *options: str) -> None:
        subprocess.run(self._enter("scancel", *options, str(job)), check=True, timeout=30)

    def show(self, job: int) -> dict[str, str]:
        """What Slurm says of a job: JobState, ExitCode, Reason …"""
        done = subprocess.run(
            self._enter("scontrol", "--oneliner", "show", "job", str(job)),
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)


@contextlib.contextmanager
def running(name: str, proctrack: str = "linuxproc", task: str = "none") -> Iterator[Slurm]:
    """Slurm, until the end of the block.

    Args:
        name: of its folder, below /var/tmp.
        proctrack: how slurmd knows a job's processes: proctrack/TYPE.
        task: what holds them to what they were given: task/TYPE.
    """
    folder = Path("/var/tmp") / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kinds = ("--mount", "--net", "--uts", "--ipc", "--pid")
    outer = subprocess.Popen(
        ["unshare", *kinds, "--fork", "--kill-child", "sh", _FIRST, folder, proctrack, task],
        stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert outer.stdout
        said = outer.stdout.readline()
        assert said == "ready\n", (folder / "log").read_text(encoding="utf-8")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        yield Slurm(int(children.read_text(encoding="utf-8").split()[0]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(outer.pid, signal.SIGKILL)
        outer.wait()
        for group in Path("/sys/fs/cgroup").glob("*/slurm_batch"):
            for each in (*sorted(group.rglob("*/"), reverse=True), group):
                with contextlib.suppress(OSError):
                    each.rmdir()
        shutil.rmtree(folder, ignore_errors=True)
