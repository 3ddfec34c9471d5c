"""sykube bench: what runs cost on this machine."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from sykube.cli import completion, context, logfile
from sykube.errors import HostError, UsageError
from sykube.host.files import require_place

if TYPE_CHECKING:
    from sykube.bench.judging import Comparison
    from sykube.bench.results import Result

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%?", re.ASCII)


def _margin(_ctx: click.Context, _parameter: click.Parameter, value: str) -> float:
    match = _PERCENT.fullmatch(value)
    if not match or not 0 < float(match[1]) <= 50:
        raise click.BadParameter(f"{value!r} is no part between 0 and 50 %, such as 2%")
    return float(match[1]) / 100


_MARGIN = click.option(
    "--margin", default="2%", show_default=True, callback=_margin, metavar="PERCENT",
    help="What counts as equal.",
)  # fmt: skip


@click.group()
def bench() -> None:
    """Measure what containers and pods cost on this machine, with statistics that hold."""


def _measured(command: Callable[..., Result]) -> click.Command:
    """A command that measures in a cluster, and shows and keeps what it has found."""

    @bench.command()
    @context.named
    @click.option(
        "--runs",
        type=click.IntRange(3, 1000),
        default=10,
        show_default=True,
        metavar="N",
        help="Number of blocks, in each of which every place has its turn.",
    )
    @_MARGIN
    @click.option(
        "--save",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        shell_complete=completion.files,
        help="Write all figures: .json or .csv. May be repeated.",
    )
    @click.option("--anyway", is_flag=True, help="Measure also while the machine is busy.")
    @context.output_option
    @context.common
    @functools.wraps(command)
    def wrapper(*, name: str, save: tuple[Path, ...], output: str, **asked: Any) -> None:
        judging = _judging()
        for file in save:
            if file.suffix.lower() not in (".json", ".csv"):
                named = "Name it .json or .csv."
                raise UsageError(f"{file}: figures are JSON or CSV", resolution=named)
            require_place(file)
        # What it needs may not be installed.
        from sykube.bench import results

        logfile.open_for(name)
        result = command(name=name, **asked)
        context.give_back_umask()
        for file in save:
            results.write(result, file)
        context.show(output, result.described(), _lines(result, judging))

    return wrapper  # fmt: skip


@_measured
@click.option("--runtime", "places", multiple=True, metavar="RUNTIME",
              help="RuntimeClass to measure; the first is what others are compared to. "
              "May be repeated. [default: all]")  # fmt: skip
@click.option("--pods", type=click.IntRange(1, 200), default=10, show_default=True, metavar="N",
              help="Number of pods that are started at once.")  # fmt: skip
def start(name: str, **asked: Any) -> Result:
    """Measure how fast pods start and stop under each container runtime."""
    # What it needs may not be installed.
    from sykube.cluster.commands.bench import start as measuring

    return measuring.measure(context.host(), name, context.ui(), **asked)


@_measured
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.5, show_default=True,
              metavar="S", help="Seconds of each measurement of throughput.")  # fmt: skip
def network(name: str, **asked: Any) -> Result:
    """Measure how fast pods talk to each other, beside two processes of this host."""
    # What it needs may not be installed.
    from sykube.cluster.commands.bench import network as measuring

    return measuring.measure(context.host(), name, context.ui(), **asked)


@bench.command()
@click.argument("before", type=click.Path(path_type=Path), shell_complete=completion.files)
@click.argument("after", type=click.Path(path_type=Path), shell_complete=completion.files)
@_MARGIN
@context.common
def compare(before: Path, after: Path, margin: float) -> None:
    """Compare two results that --save has written: of two machines, versions, or days."""
    judging = _judging()
    # What it needs may not be installed.
    from sykube.bench import results

    for line in _compared(results.read(before), results.read(after), margin, judging):
        click.echo(line)


def _judging() -> ModuleType:
    """The module that judges.

    Raises:
        HostError: numpy or scipy is not there.
    """
    try:
        from sykube.bench import judging
    except ImportError as error:
        raise HostError(
            "this needs numpy and scipy, which are not installed",
            details=str(error),
            resolution=f"{sys.executable} -m pip install numpy scipy",
        ) from error
    return judging


def _lines(result: Result, judging: ModuleType) -> Iterator[str]:
    """A result, for people."""
    places = [*next(iter(result.measures.values())).values]
    others = [place for place in places if place != result.base]
    pairs = [(what, place) for what in result.measures for place in others]
    compared = dict(
        zip(
            pairs,
            judging.in_blocks(
                [result.measures[what].values[result.base] for what, _ in pairs],
                [result.measures[what].values[place] for what, place in pairs],
                result.margin,
            ),
            strict=True,
        )
    )
    rows = [("", *places)]
    for what, measure in result.measures.items():
        cells = [
            _figure(judging.percentiles(measure.values[place], [50])[0])
            + (f"  {_ratio(compared[what, place])}" if place in others else "")
            for place in places
        ]
        rows.append((f"{measure.title}, {measure.unit}", *cells))
    yield from _table(rows)
    yield ""
    yield from _notes(result)


def _notes(result: Result) -> Iterator[str]:
    asked = ", ".join(f"{value} {name}" for name, value in result.asked.items())
    yield f"{asked}; medians, and ratios to {result.base} with their 95 % intervals"
    yield (
        f"equal: within {result.margin:.1%}, by a test of equivalence; different: by one of a "
        "difference; undecided: more runs would tell (5 % for all ratios together)"
    )
    machine = result.machine
    yield f"{machine.cores} cores {machine.processor}, Linux {machine.kernel}; nothing is pinned"
    for each in result.disturbances:
        yield f"disturbed: {each}"


def _compared(before: Result, after: Result, margin: float, judging: ModuleType) -> Iterator[str]:
    """Two results beside each other, for people.

    Raises:
        UsageError: they have nothing in common.
    """
    pairs = [
        (what, place)
        for what, measure in before.measures.items()
        for place in measure.values
        if before.kind == after.kind and place in after.measures[what].values
    ]
    if not pairs:
        raise UsageError(
            "the two results have nothing in common",
            details=f"one is of {before.kind}, the other of {after.kind}",
            resolution="Compare results of the same command and runtimes.",
        )
    first = [before.measures[what].values[place] for what, place in pairs]
    second = [after.measures[what].values[place] for what, place in pairs]
    compared = judging.apart(first, second, margin)
    rows: list[Sequence[str]] = [("", "before", "after", "ratio (95 % interval)")]
    for (what, place), one, other, found in zip(pairs, first, second, compared, strict=True):
        medians = (judging.percentiles(values, [50])[0] for values in (one, other))
        title = f"{before.measures[what].title}, {before.measures[what].unit}, {place}"
        rows.append((title, *map(_figure, medians), _ratio(found)))
    yield from _table(rows)
    if before.asked != after.asked:
        yield f"asked for differently: {dict(before.asked)} and {dict(after.asked)}"
    for result, which in ((before, "before"), (after, "after")):
        for each in result.disturbances:
            yield f"{which}, disturbed: {each}"


def _ratio(found: Comparison) -> str:
    return f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}) {found.verdict}"


def _figure(value: float) -> str:
    """Three digits at least, where there are some."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
