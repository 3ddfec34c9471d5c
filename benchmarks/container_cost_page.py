"""docs/container-cost.md, of what `sykube bench` has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import conclusions, goals
from benchmarks.conclusions import Decision, Rule
from benchmarks.costs import BROKERS, HPCC, Pair, Word
from benchmarks.intervals import Estimate, cell
from sykube.bench import judging
from sykube.bench.judging import Comparison
from sykube.bench.results import Result
from sykube.cli import figures

# Of all that can be measured, in the order of the page.
TITLES = {
    HPCC: "HPC Challenge",
    **{run: f"Messages through {broker}" for run, broker in BROKERS.items()},
    "network": "The network of pods",
    "start": "Pods that start and stop",
}


@dataclass(frozen=True)
class Told:
    """What is said of all that was measured.

    Attributes:
        date: on which it was, such as 2026-11-30.
        failed: the error of what could not be measured, by its name.
    """

    date: str
    failed: Mapping[str, str]


def page(results: Mapping[str, Result], told: Told, pictures: Mapping[str, Sequence[Path]]) -> str:
    """The page, in Markdown.

    Args:
        results: one at least, by the keys of TITLES.
        pictures: the files of each, as the page finds them.
    """
    lines = [
        "# What a container costs here",
        "",
        f"Written by `python3 -m benchmarks.container_cost` on {told.date}, not by hand, of what "
        "[`sykube bench`](bench.md) measured in one go; what the words mean is said there, too.",
        "",
        *_machine(results),
        "",
        "## What the thesis concluded, and what these figures say",
        "",
        *_decided(conclusions.decided(results)),
    ]
    if asked := [*goals.goals(results)]:
        lines += ["", "## What is asked of sykube", "", *_asked_of_sykube(asked)]
    for run, title in TITLES.items():
        if run in results:
            lines += ["", f"## {title}", "", *_measured(results[run])]
            for picture in pictures.get(run, ()):
                lines += ["", f"![{title}: {picture.stem}]({picture})"]
        elif run in told.failed:
            lines += ["", f"## {title}", "", f"Not measured: {told.failed[run]}"]
    return "\n".join([*lines, ""])


def table(result: Result) -> Iterator[str]:
    """Medians of each place, the first one's with their interval, the others' with their ratio."""
    compared = figures.compared(result)
    places = dict.fromkeys(place for each in result.measures.values() for place in each.values)
    yield f"| | {' | '.join(places)} |"
    yield f"|{'-|' * (len(places) + 1)}"
    for what, measure in result.measures.items():
        cells = []
        for place in places:
            if not (values := measure.values.get(place)):
                cells.append("")
            elif found := compared.get((what, place)):
                cells.append(f"{figures.shown(values)}, {_ratio(found)}")
            else:
                cells.append(cell(Estimate(*judging.estimate(values))))
        yield f"| {measure.title}, {measure.unit} | {' | '.join(cells)} |"


def _machine(results: Mapping[str, Result]) -> Iterator[str]:
    machine = next(iter(results.values())).machine
    frequency = f", governor {machine.governor}" if machine.governor else ""
    turbo = {True: ", turbo on", False: ", turbo off", None: ""}[machine.turbo]
    processor = machine.processor or "of a model that the kernel does not say"
    yield f"- {machine.cores} cores {processor}{frequency}{turbo}; Linux {machine.kernel}"
    versions: dict[str, str] = {}
    for result in results.values():
        versions |= {what: version for what, version in result.versions.items() if version}
    yield f"- {', '.join(f'{what} {version}' for what, version in versions.items())}"
    for run, result in results.items():
        busy = f"{result.machine.busy:.0%} of its time taken by others just before"
        stolen = f"{result.machine.stolen:.0%} by other machines of its hypervisor"
        disturbed = "; ".join(result.disturbances) or "nothing known disturbed it"
        yield f"- {TITLES[run]}: {busy}, {stolen}; {disturbed}"


def _measured(result: Result) -> Iterator[str]:
    asked = ", ".join(f"{value:g} {name}" for name, value in result.asked.items())
    yield (
        f"{asked}; {result.pinned or 'nothing is pinned'}. Medians, and ratios to {result.base} "
        f"with their 95 % intervals; equal is within {result.margin:.1%}."
    )
    yield ""
    yield from table(result)


def _decided(decisions: Sequence[Decision]) -> Iterator[str]:
    yield (
        "N. Eijsvogel, *Containerization for High Performance Computing* (2022), measured HPC "
        "Challenge on bare metal and in Singularity on 1, 25 and 40 nodes, and Kafka's messages in "
        "Singularity and in Docker, without Kubernetes and in it. Here Apptainer stands for "
        "Singularity, one machine for the nodes, NATS and Valkey for Kafka, and runc's containers, "
        "which have Docker's namespaces, for Docker. The program decides, by the rules below; a "
        "ratio is of what is spent: time, or the reciprocal of a rate. All ratios of one run hold "
        "together at 5 % (Holm); *undecided* is the word where the rule needs one that is."
    )
    yield ""
    yield "| thesis | conclusion | here | rule | by |"
    yield "|-|-|-|-|-|"
    for each in decisions:
        asked = each.conclusion
        yield (
            f"| {asked.source} | {asked.text} | **{each.word}** | {asked.rule.letter} | "
            f"{'; '.join(_reasons(asked.pairs, each.compared))} |"
        )
    yield ""
    yield from (f"- {rule.letter}: {rule.text}" for rule in Rule)


def _asked_of_sykube(
    asked: Sequence[tuple[goals.Goal, Word, Mapping[Pair, Comparison]]],
) -> Iterator[str]:
    yield (
        "It *holds* where the 95 % intervals of all ratios are below what is asked, and does not "
        "where one is above it; ratios of what is spent, as before, but each by itself."
    )
    yield ""
    yield "| asked | here | by |"
    yield "|-|-|-|"
    for goal, word, compared in asked:
        by = (
            f"{pair.title} × {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})"
            for pair, found in compared.items()
        )
        yield f"| {goal.text} | **{word}** | {'; '.join(by)} |"


def _reasons(pairs: Sequence[Pair], compared: Mapping[Pair, Comparison]) -> Iterator[str]:
    for pair in pairs:
        if pair in compared:
            yield f"{pair.title} {_ratio(compared[pair])}"


def _ratio(found: Comparison) -> str:
    return f"× {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}) {found.verdict}"
