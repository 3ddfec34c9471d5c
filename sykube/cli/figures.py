"""What `sykube bench` shows people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from sykube.bench import judging
from sykube.bench.judging import Comparison
from sykube.bench.results import Result
from sykube.errors import UsageError


def lines(result: Result) -> Iterator[str]:
    """A result: the median of each place, and its ratio to the first one's."""
    ratios = {pair: _ratio(found) for pair, found in compared(result).items()}
    for what, measure in result.measures.items():
        yield f"{measure.title}, {measure.unit}"
        yield from _aligned([
            (f"  {place}", shown(values), ratios.get((what, place), ""))
            for place, values in measure.values.items()
        ])  # fmt: skip
    yield ""
    yield from notes(result)


def compared(result: Result) -> dict[tuple[str, str], Comparison]:
    """How each place compares to the first one, by measure and place."""
    pairs = [
        (what, place)
        for what, measure in result.measures.items()
        for place in measure.values
        if place != result.base
    ]
    found = judging.in_blocks(
        [result.measures[what].values[result.base] for what, _ in pairs],
        [result.measures[what].values[place] for what, place in pairs],
        result.margin,
    )
    return dict(zip(pairs, found, strict=True))


def notes(result: Result) -> Iterator[str]:
    """What its figures are, and depend on."""
    asked = ", ".join(f"{value:g} {name}" for name, value in result.asked.items())
    yield f"{asked}; medians, and ratios to {result.base} with their 95 % intervals"
    yield (
        f"equal: within {result.margin:.1%}, by a test of equivalence; different: by one of a "
        "difference; undecided: more runs would tell (5 % for all ratios together)"
    )
    machine = result.machine
    pinned = result.pinned or "nothing is pinned"
    yield f"{machine.cores} cores {machine.processor}, Linux {machine.kernel}; {pinned}"
    yield from (f"disturbed: {each}" for each in result.disturbances)


def shown(values: Sequence[float]) -> str:
    """The median of some values: three digits at least, where there are some."""
    value = median(values)
    if value < 1:
        return f"{value:#.3g}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def beside(before: Result, after: Result, margin: float) -> Iterator[str]:
    """Two results beside each other.

    Raises:
        UsageError: they have nothing in common.
    """
    pairs = [
        (what, place)
        for what, measure in before.measures.items()
        if before.kind == after.kind and what in after.measures
        for place in measure.values
        if place in after.measures[what].values
    ]
    if not pairs:
        raise UsageError(
            "the two results have nothing in common",
            details=f"one is of {before.kind}, the other of {after.kind}",
            resolution="Compare results of the same command and runtimes.",
        )
    first = [before.measures[what].values[place] for what, place in pairs]
    second = [after.measures[what].values[place] for what, place in pairs]
    judged = judging.apart(first, second, margin)
    rows: list[Sequence[str]] = [("", "before", "after", "ratio (95 % interval)")]
    for (what, place), one, other, found in zip(pairs, first, second, judged, strict=True):
        title = f"{before.measures[what].title}, {before.measures[what].unit}, {place}"
        rows.append((title, shown(one), shown(other), _ratio(found)))
    yield from _aligned(rows)
    if before.asked != after.asked:
        yield f"asked for differently: {dict(before.asked)} and {dict(after.asked)}"
    for result, which in ((before, "before"), (after, "after")):
        yield from (f"{which}, disturbed: {each}" for each in result.disturbances)


def _ratio(found: Comparison) -> str:
    return f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})  {found.verdict}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of a name, figures and a text: figures are aligned at their ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *values, text in rows:
        cells = [f"{value:>{width}}" for value, width in zip(values, widths[1:-1], strict=True)]
        yield "  ".join([f"{name:{widths[0]}}", *cells, text]).rstrip()
