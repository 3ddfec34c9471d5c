"""Slurm clusters as the page shows them, by what `sykube slurm status` and `efficiency` ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from sykube.cluster.commands.slurm import accounting, status
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import SykubeError
from sykube.host.run import CommandError
from sykube.slurm.efficiency import Efficiency, Survey

Json = dict[str, Any]

# Nobody reads more of a table; the page says how many there are besides.
_JOBS = 200
# Jobs with the most impact, as `sykube slurm efficiency` shows them.
_WORST = 5
# So many points lie side by side in the plot; those that would lie upon each other are sent once.
_STEPS = 200


def clusters(places: list[Place]) -> list[Json]:
    """Nodes and jobs of each Slurm cluster; of one that fails, why."""
    return [_cluster(place) for place in places]


def _cluster(place: Place) -> Json:
    try:
        found = status.collect(place)
    except SykubeError as error:
        return _described(place, error.brief)
    try:
        queue = place.controller.queue()
    except CommandError:
        # What is wrong with slurmctld is in the problem.
        queue = []
    return _described(place, found.problem) | {
        "nodes": [asdict(each) for each in found.nodes],
        "unscheduled": [asdict(each) for each in found.unscheduled],
        "jobs": [asdict(each) for each in queue[:_JOBS]],
        "more_jobs": max(0, len(queue) - _JOBS),
        "accounting": found.accounting,
        "automatic": asdict(found.automatic) if found.automatic else None,
    }


def _described(place: Place, problem: str) -> Json:
    return {
        "namespace": place.namespace,
        # How commands on the page name it.
        "options": place.options,
        "problem": problem,
        "nodes": [],
        "unscheduled": [],
        "jobs": [],
        "more_jobs": 0,
        "accounting": False,
        "automatic": None,
    }


def efficiencies(places: list[Place]) -> Json:
    """What jobs made of their CPUs, by the namespace of each Slurm cluster that has accounting."""
    return dict(_efficiencies(places))


def _efficiencies(places: list[Place]) -> Iterator[tuple[str, Json]]:
    for place in places:
        try:
            if not place.require().accounting:
                continue
            yield place.namespace, _surveyed(accounting.survey(place))
        except SykubeError as error:
            yield place.namespace, {"problem": error.brief}


def _surveyed(survey: Survey) -> Json:
    return {
        "problem": "",
        "jobs": len(survey.jobs),
        "average": survey.average,
        "median": survey.median,
        "overall": survey.overall,
        "unfinished": survey.unfinished,
        "worst": [
            {"job": each.job, "efficiency": each.percent, "wasted_s": each.wasted_s,
             "impact": each.impact_percent}
            for each in survey.worst(_WORST) if each.impact_percent > 0
        ],
        "points": _points(survey.jobs),
    }  # fmt: skip


def _points(jobs: tuple[Efficiency, ...]) -> list[tuple[float, float]]:
    """Impact and efficiency of jobs in percent, those that look the same once."""
    widest = max((job.impact_percent for job in jobs), default=0.0) / _STEPS or 1.0
    highest = max((job.percent for job in jobs), default=0.0) / _STEPS or 1.0
    cells = {(round(job.impact_percent / widest), round(job.percent / highest)) for job in jobs}
    return sorted((round(x * widest, 4), round(y * highest, 4)) for x, y in cells)
