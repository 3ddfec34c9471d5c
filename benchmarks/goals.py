"""What is asked of sykube, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.costs import BROKERS, HPCC, Cost, Pair, Word, against, shapes
from sykube.bench import delays, hpcc_output, judging
from sykube.bench.judging import Comparison
from sykube.bench.results import Result
from sykube.cluster.commands.bench.image_files import HOST

# No more is to be spent, of time or of the reciprocal of a rate, than so many times the other's.
_OF_HOST, _OF_RUNC = 1 / 0.98, 1.05
_RUNTIMES = ("runc", "crun", "apptainer")
_DELAYS = {delays.MEDIAN: "median", "p99": "99th percentile"}
# HPC Challenge is asked for its tests, not for what they take together.
_TESTS = [each for each in hpcc_output.FIGURES if each != "seconds"]


@dataclass(frozen=True)
class Goal:
    """Something that is asked of sykube.

    Attributes:
        most: that the ratios of `pairs` may be.
    """

    text: str
    most: float
    pairs: Sequence[Pair]


def goals(results: Mapping[str, Result]) -> Iterator[tuple[Goal, Word, dict[Pair, Comparison]]]:
    """What is asked of sykube and was measured, with what the intervals of the ratios say of it."""
    for goal in _asked(results):
        compared = {}
        for pair in goal.pairs:
            one, other = pair.one.values(results), pair.other.values(results)
            if one and other:
                # Only its interval is looked at, which needs no family.
                (compared[pair],) = judging.in_blocks([other], [one], results[pair.one.run].margin)
        if len(compared) == len(goal.pairs):
            yield goal, _word(goal, compared), compared


def _asked(results: Mapping[str, Result]) -> Iterator[Goal]:
    fitting, _ = shapes(results.get(HPCC))
    for runtime in _RUNTIMES if fitting else ():
        text = f"HPC Challenge in pods of {runtime}: 0.98 of the host's at least"
        yield Goal(text, _OF_HOST, against(runtime, HOST, _TESTS, fitting))
    for run, broker in BROKERS.items():
        for layout in ("pod", "node", "nodes"):
            places = f"apptainer:{layout}", f"runc:{layout}"
            pairs = [
                Pair(title, *(Cost(run, what, place) for place in places))
                for what, title in _DELAYS.items()
            ]
            text = f"{broker}: delay in {places[0]} 1.05 times that in {places[1]} at most"
            yield Goal(text, _OF_RUNC, pairs)


def _word(goal: Goal, compared: Mapping[Pair, Comparison]) -> Word:
    if any(each.low > goal.most for each in compared.values()):
        return Word.FAILS
    reached = all(each.high <= goal.most for each in compared.values())
    return Word.HOLDS if reached else Word.UNDECIDED
