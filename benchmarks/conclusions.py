"""Which conclusions of a thesis hold for what was measured here: by rules, not by hand.

The thesis: N. Eijsvogel, Containerization for High Performance Computing (2022), chapters 6 to 8,
and its Figures 41 and 42. It has Singularity where Apptainer is here, and Docker where containerd's
containers with runc are, which have the same namespaces.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.costs import BROKERS, HPCC, Cost, Pair, Word, against, shapes
from sykube.bench import delays, judging
from sykube.bench.judging import Comparison, Verdict
from sykube.bench.results import Result
from sykube.cluster.commands.bench.image_files import EXEC, HOST

_MEDIAN = delays.MEDIAN
_SECTIONS = {
    "6.1": ("Linpack", ("hpl",)),
    "6.2": ("STREAM", ("stream",)),
    "6.3": ("PTRANS", ("ptrans",)),
    "6.4": ("RandomAccess", ("random_access",)),
    "6.5": ("FFT", ("fft",)),
    "6.6": ("a ring's latency and bandwidth", ("ring_latency", "ring_bandwidth")),
    "6.1 to 6.6, run time": ("the whole run", ("seconds",)),
}


class Rule(enum.Enum):
    """How it is decided, by ratios of what is spent: time, or the reciprocal of a rate."""

    NO_MORE = (
        "A", "holds where every ratio is *equal*, or *different* and below 1; does not hold where "
        "one is *different* and above 1",
    )  # fmt: skip
    MORE = (
        "B", "holds where every ratio is *different* and above 1; does not hold where one is "
        "*equal*, or *different* and below 1",
    )  # fmt: skip
    ALIKE = (
        "C", "holds where all ratios have the same word and are on the same side of 1; does not "
        "hold where they differ in that",
    )  # fmt: skip

    def __init__(self, letter: str, text: str) -> None:
        self.letter, self.text = letter, text


@dataclass(frozen=True)
class Conclusion:
    """One of the thesis', put to what is measured here.

    Attributes:
        source: where the thesis has it.
    """

    source: str
    text: str
    rule: Rule
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Decision:
    """What the figures say of a conclusion.

    Attributes:
        compared: each pair that was measured.
    """

    conclusion: Conclusion
    word: Word
    compared: Mapping[Pair, Comparison]


def decided(results: Mapping[str, Result]) -> list[Decision]:
    """All conclusions, each with what these results say of it.

    The comparisons that are asked of one run are a family: their words hold together at 5 %.
    """
    listed = conclusions(results)
    compared: dict[Pair, Comparison] = {}
    for run, result in results.items():
        asked = dict.fromkeys(pair for each in listed for pair in each.pairs)
        both = {
            pair: (one, other)
            for pair in asked
            if pair.one.run == run
            and (one := pair.one.values(results))
            and (other := pair.other.values(results))
        }
        found = judging.in_blocks(
            [other for _, other in both.values()],
            [one for one, _ in both.values()],
            result.margin,
        )
        compared |= dict(zip(both, found, strict=True))
    return [
        Decision(each, _word(each, compared), {p: compared[p] for p in each.pairs if p in compared})
        for each in listed
    ]


def conclusions(results: Mapping[str, Result]) -> list[Conclusion]:
    """Those that results of this kind can say something about."""
    return [*_of_hpcc(results.get(HPCC)), *(each for run in BROKERS for each in _of_stream(run))]


def _of_hpcc(result: Result | None) -> Iterator[Conclusion]:
    fitting, crowded = shapes(result)
    for source, (title, figures) in _SECTIONS.items():
        text = f"a container costs {title} nothing"
        yield Conclusion(source, text, Rule.NO_MORE, against(EXEC, HOST, figures, fitting))
    every = [figure for _, figures in _SECTIONS.values() for figure in figures]
    yield Conclusion(
        "8, question 2",
        "a container costs nothing either where there are more threads than cores",
        Rule.NO_MORE,
        against(EXEC, HOST, every, crowded),
    )
    best = [
        Pair(
            f"{place}: HPL, {many} to {few}",
            *(Cost(HPCC, f"hpl-{each}", place) for each in (many, few)),
        )
        for few in fitting[:1]
        for many in crowded[:1]
        for place in (HOST, EXEC)
    ]
    yield Conclusion(
        "8, question 2",
        "which number of processes is best is the same in containers",
        Rule.ALIKE,
        best,
    )


def _of_stream(run: str) -> Iterator[Conclusion]:
    broker = BROKERS[run]

    def more(one: str, other: str) -> list[Pair]:
        return [Pair(f"{one} to {other}", *(Cost(run, _MEDIAN, each) for each in (one, other)))]

    first = [
        Pair(
            f"{place}, first messages to others",
            Cost(run, delays.WARM_UP, place),
            Cost(run, _MEDIAN, place),
        )
        for place in (EXEC, "runc:node")
    ]
    yield Conclusion(
        "7.5, Figure 41", f"{broker}: the first messages take longest", Rule.MORE, first
    )
    yield Conclusion(
        "7.5, Figure 41",
        f"{broker}: messages take longer between containers with a network each than between "
        "Apptainer's on the host's",
        Rule.MORE,
        more("runc:node", EXEC),
    )
    yield Conclusion(
        "7.6, Figure 42",
        f"{broker}: in a pod of Kubernetes, messages take longer between Apptainer's containers "
        "than between others",
        Rule.MORE,
        more("apptainer:pod", "runc:pod"),
    )
    yield Conclusion(
        "7.6",
        f"{broker}: Kubernetes takes from Apptainer's containers what they gain outside of it",
        Rule.MORE,
        more("apptainer:pod", EXEC),
    )
    yield Conclusion(
        "8, question 1",
        f"{broker}: that containers are isolated makes messages take longer",
        Rule.MORE,
        more("runc:pod", HOST),
    )


def _word(conclusion: Conclusion, compared: Mapping[Pair, Comparison]) -> Word:
    found = [compared[pair] for pair in conclusion.pairs if pair in compared]
    if not found or len(found) < len(conclusion.pairs):
        return Word.UNMEASURED
    sides = [_side(each) for each in found]
    if conclusion.rule == Rule.ALIKE:
        if Verdict.UNDECIDED in {each.verdict for each in found}:
            return Word.UNDECIDED
        return Word.HOLDS if len({*sides}) == 1 else Word.FAILS
    good, bad = ({0, -1}, {1}) if conclusion.rule == Rule.NO_MORE else ({1}, {0, -1})
    if bad & {*sides}:
        return Word.FAILS
    return Word.HOLDS if {*sides} <= good else Word.UNDECIDED


def _side(found: Comparison) -> int | None:
    """0 for equal, the side of 1 for different, None for undecided."""
    match found.verdict:
        case Verdict.EQUAL:
            return 0
        case Verdict.DIFFERENT:
            return 1 if found.ratio > 1 else -1
        case _:
            return None
