"""What jobs make of the CPUs that are allocated to them.

After C. Cérin, N. Greneche and T. Menouer, "Towards pervasive containerization of HPC job
schedulers" (2020), section III. Its formulas (2) and (3) are here as they are printed, and as they
must be for what the text says of them: docs/slurm.md says why.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sykube.errors import UsageError
from sykube.slurm.sacct import Job


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What one job made of its CPUs.

    Attributes:
        percent: CPU time that it took, of that which was kept for it: (1) of the paper.
        wasted_s: CPU time, in seconds, that was kept for it and not taken; never below 0.
        impact_percent: that, of the CPU time that was kept for all jobs.
        printed_impact_percent: that, of the seconds that all jobs lasted: (3) as it is printed.
    """

    job: str
    percent: float
    wasted_s: float
    impact_percent: float
    printed_impact_percent: float


@dataclass(frozen=True)
class Survey:
    """The jobs of a cluster: a line of the paper's Table I.

    Attributes:
        jobs: in sacct's order.
        average, median: of the jobs' efficiencies, in percent.
        overall: CPU time that all jobs took, in percent of that which was kept for them.
        printed_overall: (2) as it is printed, in percent.
        unfinished: how many jobs are left out as they wait or run.
        timeless: how many are left out as no CPU was kept for them, or not for a second.
    """

    name: str
    jobs: tuple[Efficiency, ...]
    average: float
    median: float
    overall: float
    printed_overall: float
    unfinished: int
    timeless: int

    @property
    def over(self) -> int:
        """How many jobs took more than was kept for them."""
        return sum(job.percent > 100 for job in self.jobs)

    def worst(self, count: int) -> list[Efficiency]:
        """The jobs with the most impact."""
        return sorted(self.jobs, key=lambda job: -job.impact_percent)[:count]


def survey(name: str, jobs: Sequence[Job]) -> Survey:
    """What the jobs of a cluster make of its CPUs.

    Raises:
        UsageError: none of them has ended and taken time, or sacct was not asked for CPU time.
    """
    finished = [job for job in jobs if job.finished]
    counted = [job for job in finished if job.allocated_s > 0]
    unfinished, timeless = len(jobs) - len(finished), len(finished) - len(counted)
    if not counted:
        raise UsageError(
            f"no job in {name} has ended after a second or more",
            details=f"{unfinished} jobs wait or run, {timeless} took no time",
            resolution="Ask sacct for a longer time: --starttime=now-180days",
        )
    used = math.fsum(job.cpu_s for job in counted)
    if not used:
        raise UsageError(
            f"no job in {name} has any CPU time (TotalCPU)",
            details="sacct has it of the steps of jobs, and Slurm of its JobAcctGatherType",
            resolution="Call sacct without -X (--allocations).",
        )
    kept = math.fsum(job.allocated_s for job in counted)
    lasted = math.fsum(job.elapsed_s for job in counted)
    found = tuple(_efficiency(job, kept, lasted) for job in counted)
    return Survey(
        name,
        found,
        statistics.fmean(job.percent for job in found),
        statistics.median(job.percent for job in found),
        100 * used / kept,
        100 * used / sum(job.cpus for job in counted) / lasted,
        unfinished,
        timeless,
    )


def _efficiency(job: Job, kept_s: float, lasted_s: float) -> Efficiency:
    wasted = max(0.0, job.allocated_s - job.cpu_s)
    return Efficiency(
        job.id,
        100 * job.cpu_s / job.allocated_s,
        wasted,
        100 * wasted / kept_s,
        100 * wasted / lasted_s,
    )
