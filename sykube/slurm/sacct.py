"""Jobs as sacct prints them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sykube.errors import UsageError

COLUMNS = ("JobID", "State", "AllocCPUS", "Elapsed", "TotalCPU")
# Not --allocations: sacct adds TotalCPU up of the steps (src/sacct/options.c, get_data).
COMMAND = ("sacct", "--allusers", "--parsable2", f"--format={','.join(COLUMNS)}")
_MAKE_ONE = f"Make one where that Slurm is: {' '.join(COMMAND)} --starttime=now-180days > jobs.txt"
# sacct(1), JOB STATE CODES, and what jobs can be for moments. A run that was REQUEUED has ended.
_UNFINISHED = frozenset((
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING"),
    *("STOPPED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
))  # fmt: skip
# [DD-[HH:]]MM:SS[.mmm]: sacct(1), TotalCPU; it prints days only with hours.
_TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)", re.ASCII)
# What Slurm prints for a time that it cannot know: of clocks that went back.
_NO_TIME = ("", "INVALID")


@dataclass(frozen=True, slots=True)
class Job:
    """A job, or a task of an array; one that was queued again is there once for each run.

    Attributes:
        cpus: allocated to it.
        elapsed_s: seconds that it had them.
        cpu_s: seconds of CPU time that its processes took, as users and in the kernel.
        finished: whether it has ended; what one took that has not is not known yet.
    """

    id: str
    cpus: int
    elapsed_s: float
    cpu_s: float
    finished: bool

    @property
    def allocated_s(self) -> float:
        """CPU time that was kept for it, in seconds."""
        return self.cpus * self.elapsed_s


def read(lines: Iterable[str], name: str) -> list[Job]:
    """The jobs in the output of `sacct --parsable2`, or --parsable, with its header.

    Steps are left out, as their job's line has their sum. Columns may be in any order, and there
    may be more of them.

    Args:
        name: of the output, for errors.

    Raises:
        UsageError: it is none, lacks a column, or has no job; or a line cannot be read.
    """
    numbered = enumerate(lines, start=1)
    header = next(numbered, (1, ""))[1].rstrip("\r\n")
    if not header:
        raise UsageError(f"{name} is empty", resolution=_MAKE_ONE)
    titles = [title.strip().lower() for title in header.split("|")]
    places = {title: place for place, title in enumerate(titles)}
    missing = [each for each in COLUMNS if each.lower() not in places]
    if len(missing) == len(COLUMNS) or len(titles) == 1:
        raise UsageError(
            f"{name} is no output of sacct --parsable2 with its header", resolution=_MAKE_ONE
        )
    if missing:
        raise UsageError(
            f"{name} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            resolution=_MAKE_ONE,
        )
    order = [places[each.lower()] for each in COLUMNS]
    jobs = [*_jobs(numbered, order, len(titles), name)]
    if not jobs:
        raise UsageError(
            f"there is no job in {name}",
            details="sacct shows the jobs since midnight where it is not told otherwise",
            resolution=_MAKE_ONE,
        )
    return jobs


def _jobs(
    numbered: Iterable[tuple[int, str]], order: list[int], width: int, name: str
) -> Iterator[Job]:
    for number, line in numbered:
        if not line.strip():
            continue
        words = line.rstrip("\r\n").split("|")
        if len(words) != width:
            raise UsageError(
                f"{name}, line {number}: {len(words)} columns, where the header has {width}",
                details="a value may have a | in it, such as the name of a job",
                resolution=_MAKE_ONE,
            )
        id_, state, cpus, elapsed, total = (words[place].strip() for place in order)
        # 12.batch, 12.extern, 12.0; tasks of arrays are 12_3, parts of heterogeneous jobs 12+0.
        if "." in id_:
            continue
        try:
            yield Job(
                id_,
                _count(cpus),
                _seconds("Elapsed", elapsed),
                _seconds("TotalCPU", total),
                state.partition(" ")[0].rstrip("+") not in _UNFINISHED,
            )
        except ValueError as error:
            raise UsageError(f"{name}, line {number}: {error}", resolution=_MAKE_ONE) from error


def _count(text: str) -> int:
    # Not int() for all: it takes 1_000, -1 and digits of other scripts.
    if text and not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f"AllocCPUS {text!r} is no number of CPUs")
    return int(text or 0)


def _seconds(column: str, text: str) -> float:
    if text in _NO_TIME:
        return 0.0
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(
            f"{column} {text!r} is no time of Slurm's, such as 1-02:03:04 or 02:03.456"
        )
    days, hours, minutes, seconds = match.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)
