"""What `sykube slurm efficiency` reads and shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from sykube.cli import context, extras
from sykube.errors import UsageError
from sykube.host.files import require_place, unreadable
from sykube.slurm import efficiency, sacct
from sykube.slurm.efficiency import Survey

_STDIN = "-"
_KINDS = (".svg", ".png")


def read(files: Sequence[str]) -> list[Survey]:
    """Read the output of sacct from files, - for standard input, each of them a cluster's.

    Raises:
        UsageError: one of them cannot be read, or is no such output.
    """
    stems = [Path(each).stem for each in files]
    names = stems if len({*stems}) == len(stems) else files
    return [
        efficiency.survey("standard input" if file == _STDIN else name, _jobs(file))
        for file, name in zip(files, names, strict=True)
    ]


def _jobs(file: str) -> list[sacct.Job]:
    is_stdin = file == _STDIN
    try:
        # Names of jobs are in whatever their users' systems have.
        with open(
            0 if is_stdin else file, encoding="utf-8-sig", errors="replace", closefd=not is_stdin
        ) as lines:
            return sacct.read(lines, "standard input" if is_stdin else file)
    except OSError as error:
        raise unreadable(Path(file), error) from error


def require_plots(files: Sequence[Path]) -> ModuleType:
    """The module that draws, once pictures can be written.

    Raises:
        UsageError: a file cannot be one of them.
        HostError: matplotlib is not there.
    """
    for file in files:
        if file.suffix.lower() not in _KINDS:
            raise UsageError(f"{file}: pictures are SVG or PNG", resolution="Name it .svg or .png.")
        require_place(file)
    if len({each.absolute() for each in files}) < len(files):
        raise UsageError("two pictures are to be the same file", resolution="Give each its own.")
    return extras.require("sykube.slurm.plots", "pictures", "matplotlib")


def draw(
    surveys: Sequence[Survey],
    wanted: Iterable[tuple[Callable[[Sequence[Survey]], Any], Sequence[Path]]],
    save: Callable[[Any, Path], None],
) -> None:
    """Write pictures of surveys: what draws each, and its files.

    Raises:
        UsageError: one cannot be written.
    """
    context.give_back_umask()
    for make, files in wanted:
        for file in files:
            try:
                save(make(surveys), file)
            except OSError as error:
                raise UsageError(
                    f"cannot write {file}: {error.strerror or error}",
                    resolution="Give a file that you can write.",
                ) from error


def described(survey: Survey) -> dict[str, Any]:
    """A survey, for programs."""
    return {
        "name": survey.name,
        "jobs": len(survey.jobs),
        "average_percent": survey.average,
        "median_percent": survey.median,
        "overall_percent": survey.overall,
        "overall_as_printed_percent": survey.printed_overall,
        "left_out": {"unfinished": survey.unfinished, "without_time": survey.timeless},
        "efficiencies": [
            {
                "job": job.job,
                "efficiency_percent": job.percent,
                "wasted_cpu_s": job.wasted_s,
                "impact_percent": job.impact_percent,
                "impact_as_printed_percent": job.printed_impact_percent,
            }
            for job in survey.jobs
        ],
    }


def lines(surveys: Sequence[Survey], worst: int) -> Iterator[str]:
    """Surveys, for people: Table I, and the jobs of each with the most impact."""
    rows = [
        ("Cluster", "Jobs", "Average %", "Median %", "Overall %", "(2) as printed %"),
        *(
            (
                each.name,
                str(len(each.jobs)),
                *(f"{value:.2f}" for value in (each.average, each.median, each.overall)),
                f"{each.printed_overall:.3g}",
            )
            for each in surveys
        ),
    ]
    yield from _table(rows)
    for each in surveys:
        yield from _notes(each)
        shown = [job for job in each.worst(worst) if job.impact_percent > 0]
        if shown:
            yield ""
            yield f"{each.name}: jobs with the most impact"
            yield from _table([
                ("  Job", "Efficiency %", "Wasted CPU time", "Impact %"),
                *(
                    (
                        f"  {job.job}",
                        f"{job.percent:.2f}",
                        _time(job.wasted_s),
                        f"{job.impact_percent:.3g}",
                    )
                    for job in shown
                ),
            ])  # fmt: skip


def _notes(survey: Survey) -> Iterator[str]:
    if survey.unfinished:
        yield f"{survey.name}: left out as they wait or run: {survey.unfinished}"
    if survey.timeless:
        yield f"{survey.name}: left out as they took less than a second: {survey.timeless}"
    if survey.over:
        yield f"{survey.name}: jobs that took more than was allocated to them: {survey.over}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *figures in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(figures, widths[1:], strict=True)]
        yield "  ".join([f"{name:{widths[0]}}", *cells])


def _time(seconds: float) -> str:
    """As Slurm writes it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02}:{minutes:02}:{rest:02}"
