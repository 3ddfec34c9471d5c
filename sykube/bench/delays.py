"""How long messages took, and what of that is shown.

Every delay is kept, and a percentile is one of them: the smallest that as many messages are not
above. A histogram (HdrHistogram) would need less memory and round each.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sykube.bench.results import Curves, Line
from sykube.errors import SykubeError

# Of the line of a place: parts of a run, and of 1000 messages.
_SLICES = 100
_PARTS = (1, *range(10, 1000, 10), 995, 999, 1000)
WARM_UP, MEDIAN = "warm_up", "p50"
# By how many of 1000 messages have at most that.
_PERCENTILES = {MEDIAN: 500, "p90": 900, "p99": 990, "p99.9": 999}
MEASURES = {
    WARM_UP: ("delay while warming up (median)", "µs"),
    MEDIAN: ("delay (median)", "µs"),
    "p90": ("delay (90th percentile)", "µs"),
    "p99": ("delay (99th percentile)", "µs"),
    "p99.9": ("delay (99.9th percentile)", "µs"),
}


@dataclass(frozen=True)
class Arrived:
    """What a consumer says of the messages of a run.

    Attributes:
        delays: of all in order, in nanoseconds.
        seconds: from the first to the last.
    """

    delays: list[int]
    seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return (len(self.delays) - 1) / self.seconds


def figures(delays: Sequence[int], warm_up: int) -> dict[str, float]:
    """What MEASURES names.

    Args:
        delays: of all messages in order, in nanoseconds.
        warm_up: how many of the first are none of the percentiles'.
    """
    first, rest = delays[:warm_up], delays[warm_up:]
    found = {name: percentile(rest, part) / 1000 for name, part in _PERCENTILES.items()}
    return {WARM_UP: percentile(first, 500) / 1000, **found}


def percentile(delays: Sequence[int], part: int) -> int:
    """The smallest delay that so many of 1000 messages are not above: the nearest rank.

    Not by numpy, which multiplies in floating point and is one rank off for 999 of 1000.
    """
    return sorted(delays)[-(-part * len(delays) // 1000) - 1]


def curves(runs: Mapping[str, Sequence[Sequence[int]]], warm_up: int) -> dict[str, Curves]:
    """Delay over messages, also over the first, and how many messages have at most which delay.

    Args:
        runs: the delays of each run in each place, in nanoseconds.
    """
    course = {place: _course(each) for place, each in runs.items()}
    spread = {place: _spread(each, warm_up) for place, each in runs.items()}
    return {
        "course": Curves(
            "delay over messages (median of the runs)", "message", "delay, µs", "y", course
        ),
        "spread": Curves(
            "messages that have at most this delay (of all runs)", "delay, µs", "%", "x", spread
        ),
    }


def _course(runs: Sequence[Sequence[int]]) -> Line:
    count = len(runs[0])
    slices = min(_SLICES, count)
    edges = [count * number // slices for number in range(slices + 1)]
    shown = [
        median(percentile(run[start:end], 500) for run in runs) / 1000
        for start, end in itertools.pairwise(edges)
    ]
    return Line([float(start + 1) for start in edges[:-1]], shown)


def _spread(runs: Sequence[Sequence[int]], warm_up: int) -> Line:
    together = sorted(delay for run in runs for delay in run[warm_up:])
    shown = [percentile(together, part) / 1000 for part in _PARTS]
    return Line(shown, [part / 10 for part in _PARTS])


def parse(text: str, count: int) -> Arrived:
    """What the consumer of `sykube.bench.messages` says; other lines may be among it.

    Raises:
        SykubeError: it is not of so many messages.
    """
    for line in text.splitlines():
        if not line.startswith('{"delays"'):
            continue
        try:
            said = json.loads(line)
            found, seconds = [int(each) for each in said["delays"]], float(said["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise _bad(repr(error), text) from error
        if len(found) != count:
            raise _bad(f"it names {len(found)} of {count} messages", text)
        if not (min(found) > 0 and seconds > 0):
            raise _bad("a message came before it was made: the clock is not one for both", text)
        return Arrived(found, seconds)
    raise _bad("it names no delays", text)


def _bad(why: str, text: str) -> SykubeError:
    return SykubeError(
        "what the consumer of messages says is no result",
        details="\n".join([why, *(line[:200] for line in text.strip().splitlines()[-5:])]),
        resolution="Try again; -v shows all that it wrote.",
    )
