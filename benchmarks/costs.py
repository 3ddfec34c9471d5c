"""What is spent in the places of a measurement, to be compared."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sykube.bench import hpcc_output
from sykube.bench.hpcc_input import Shape
from sykube.bench.results import Result

# Results, by their names.
HPCC = "hpcc"
BROKERS = {"stream-nats": "NATS", "stream-valkey": "Valkey"}
# Of the figures of HPC Challenge, those that are better when they are less.
_TIMES = ("seconds", "ring_latency")


class Word(enum.StrEnum):
    """What is said of a conclusion, or of what is asked."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    UNMEASURED = "not measured"


@dataclass(frozen=True)
class Cost:
    """A figure of a place; of a rate its reciprocal, so that less is better.

    Attributes:
        run: the name of a result.
        what: the key of a measure there.
    """

    run: str
    what: str
    place: str

    def values(self, results: Mapping[str, Result]) -> list[float] | None:
        """One for each block; None where it was not measured."""
        result = results.get(self.run)
        measure = result.measures.get(self.what) if result else None
        found = measure.values.get(self.place) if measure else None
        if found and self.run == HPCC and self.what.partition("-")[0] not in _TIMES:
            return [1 / value for value in found]
        return found


@dataclass(frozen=True)
class Pair:
    """What is spent in one place, and in another, which it is divided by.

    Attributes:
        title: of the ratio, for people.
    """

    title: str
    one: Cost
    other: Cost


def shapes(result: Result | None) -> tuple[list[Shape], list[Shape]]:
    """Those that were measured with no more threads than cores, and those with more."""
    if not result:
        return [], []
    keys = dict.fromkeys(key.partition("-")[2] for key in result.measures)
    shapes = [Shape.parse(each) for each in keys]
    crowded = [each for each in shapes if each.processes * each.threads > result.machine.cores]
    return [each for each in shapes if each not in crowded], crowded


def against(place: str, other: str, figures: Sequence[str], shapes: Sequence[Shape]) -> list[Pair]:
    """What figures of HPC Challenge take in a place, and in another one."""
    named = hpcc_output.FIGURES
    return [
        Pair(
            f"{named[figure].title} ({shape})",
            *(Cost(HPCC, f"{figure}-{shape}", each) for each in (place, other)),
        )
        for figure in figures
        for shape in shapes
        # One process has no ring.
        if figure in hpcc_output.figures(shape.processes)
    ]
