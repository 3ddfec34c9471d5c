"""The batch job that this process runs in: what it was given on this host, and when it ends.

Slurm's variables: sbatch(1), OUTPUT ENVIRONMENT VARIABLES; PBS's: qsub(1B) of OpenPBS. What qstat
says of a job: pbs_job_attributes(7B).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sykube.errors import SykubeError

if TYPE_CHECKING:
    # A host knows the job; this asks the host.
    from sykube.host.host import Host

SLURM, PBS = "Slurm", "PBS"
_MIB = 1024**2
# cgroup v1 has the largest multiple of a page for "none".
_NO_LIMIT = 2**62
# A controller that is busy takes a second; squeue would ask one that is down for minutes.
_ANSWER_S = 10.0
# Of the variables of a job, those by which qstat finds its server.
_PBS_SERVER = ("PBS_CONF_FILE", "PBS_DEFAULT", "PBS_SERVER")


@dataclass(frozen=True)
class Job:
    """A job, as this process sees it.

    Attributes:
        scheduler: the program that started it.
        id: what the scheduler calls it; nothing in it that a file's name cannot have.
        millicores: thousandths of processors that it has on this host.
        memory: bytes that it has on this host; 0 where nobody limits it.
        scratch: the folder that it has for temporary files.
        end: when the scheduler ends it, in seconds since the epoch; 0 where that is not known.
        unknown: why the end is not known.
    """

    scheduler: str
    id: str
    millicores: int
    memory: int
    scratch: Path
    end: float = 0.0
    unknown: str = "it was not asked for"

    def __str__(self) -> str:
        cpus = f"{self.millicores / 1000:g} CPUs"
        memory = f", {self.memory // _MIB} MiB" if self.memory else ""
        return f"{self.scheduler} job {self.id}: {cpus}{memory}"

    @property
    def until(self) -> str:
        """When it ends, in words."""
        if not self.end:
            return f"its end is not known: {self.unknown}"
        return f"until {clock(self.end)}"


def clock(moment: float) -> str:
    """A time of day, as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def of_this_process(
    host: Host, environ: Mapping[str, str], processors: Collection[int] = ()
) -> Job | None:
    """The job that this process is in; None where it is in none, or in one of another host.

    Args:
        processors: those that this process may use.
    """
    # salloc gives its shell, which is where it was called, all but the second one.
    if "SLURM_JOB_ID" in environ and "SLURMD_NODENAME" in environ:
        scheduler, name = SLURM, environ["SLURM_JOB_ID"]
        cpus = _number(environ, "SLURM_CPUS_ON_NODE")
        memory = _number(environ, "SLURM_MEM_PER_NODE") or (
            _number(environ, "SLURM_MEM_PER_CPU") * cpus
        )
    elif "PBS_JOBID" in environ and "PBS_ENVIRONMENT" in environ:
        scheduler, name = PBS, environ["PBS_JOBID"]
        cpus, memory = _number(environ, "NCPUS"), 0
    else:
        return None
    usable = len(processors or os.sched_getaffinity(0))
    shares = [cpus * 1000, usable * 1000, *_cpu_limits(host)]
    sizes = [memory * _MIB, *_memory_limits(host)]
    return Job(
        scheduler,
        re.sub(r"[^\w.-]", "-", name),
        min(each for each in shares if each),
        min((each for each in sizes if each), default=0),
        _scratch(environ, host.root / "tmp"),
    )


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else 0


def _scratch(environ: Mapping[str, str], usual: Path) -> Path:
    named = Path(environ.get("TMPDIR", ""))
    usable = named.is_absolute() and named.is_dir() and os.access(named, os.W_OK | os.X_OK)
    return named if usable else usual


def _memory_limits(host: Host) -> Iterator[int]:
    """Of the cgroups that this process is in, in bytes."""
    for folder in _cgroups(host, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit() and int(text) < _NO_LIMIT:
                yield int(text)


def _cpu_limits(host: Host) -> Iterator[int]:
    """Of the cgroups that this process is in, in thousandths of a processor."""
    for folder in _cgroups(host, "cpu"):
        v1 = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        for share in (v1, _read(folder / "cpu.max").split()):
            if len(share) == 2 and all(each.isdigit() for each in share):
                yield int(share[0]) * 1000 // int(share[1])


def _cgroups(host: Host, controller: str) -> Iterator[Path]:
    """The cgroup of this process that has a controller, and those above it: cgroups(7)."""
    for line in _read(host.proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = host.cgroups / controllers
        own = root / path.lstrip("/")
        yield from (each for each in (own, *own.parents) if each.is_relative_to(root))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def asked(host: Host, job: Job, environ: Mapping[str, str]) -> Job:
    """The same, with its end as the scheduler has it now: one may change it while the job runs.

    To be called outside of namespaces of the user's, from which no scheduler is reached.
    """
    if job.scheduler == PBS:
        return _asked_of_pbs(host, job, environ)
    found = _asked_of_slurm(host, job, environ)
    # Newer ones tell it when the job starts.
    told = environ.get("SLURM_JOB_END_TIME", "")
    return replace(job, end=float(told), unknown="") if not found.end and told.isdigit() else found


def _asked_of_slurm(host: Host, job: Job, environ: Mapping[str, str]) -> Job:
    own = {"SLURM_TIME_FORMAT": "%s", "SLURM_CONF": environ.get("SLURM_CONF")}
    text, problem = _said(host, job, ["squeue", "-h", "-j", job.id, "-o", "%e"], own, environ)
    # Of a partition without a limit it is NONE.
    if not text.isdigit():
        return replace(job, unknown=problem or f"squeue says {text or 'nothing'}")
    return replace(job, end=float(text), unknown="")


def _asked_of_pbs(host: Host, job: Job, environ: Mapping[str, str]) -> Job:
    """By the output for people: of some jobs what qstat calls JSON is none (openpbs issue 2541)."""
    own = {name: environ.get(name) for name in _PBS_SERVER}
    text, problem = _said(host, job, ["qstat", "-f", environ["PBS_JOBID"]], own, environ)
    # What is too long for a line goes on behind a tab.
    lines = (line.partition(" = ") for line in text.splitlines() if line[:1] != "\t")
    about = {name.strip(): value.strip() for name, _, value in lines}
    started, limit = about.get("stime", ""), about.get("Resource_List.walltime", "")
    try:
        # What a job has used is measured now and then only, and would make its end too late.
        begin = time.mktime(time.strptime(started))
        seconds = sum(int(part) * 60**n for n, part in enumerate(reversed(limit.split(":"))))
    except ValueError:
        said = f"qstat says stime {started or '(none)'} and walltime {limit or '(none)'}"
        return replace(job, unknown=problem or said)
    return replace(job, end=begin + seconds, unknown="")


def _said(
    host: Host,
    job: Job,
    command: Sequence[str],
    own: Mapping[str, str | None],
    environ: Mapping[str, str],
) -> tuple[str, str]:
    """What a scheduler's program prints, or why it says nothing."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        return "", f"there is no {command[0]} here to ask {job.scheduler} by"
    try:
        done = host.run([program, *command[1:]], env=own, timeout=_ANSWER_S)
    except SykubeError as error:
        return "", error.brief
    return done.stdout.strip(), ""
