"""What measurements say, and how sure it is.

Places are measured in turn, once in each block, so that what disturbs the machine disturbs all
of them: places are compared block by block, in ratios. That two are equal is claimed only where a
test of equivalence says so; that a test finds no difference is no equality.

By numpy and scipy, which are the extra `bench`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_LEVEL = 0.05
_POWER = 0.8
_RESAMPLES = 10_000
# The same figures give the same interval.
_SEED = 19
_MOST_RUNS = 10_000
Floats = NDArray[np.float64]


class Verdict(enum.StrEnum):
    """How a place compares to another."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """A place beside another.

    Attributes:
        ratio: the median of its values to the other's; `low` and `high` are its 95 % interval.
        verdict: EQUAL within the margin, or DIFFERENT from 1, each at 5 % for all comparisons of a
            family together (Holm); else UNDECIDED.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True)
class _Tested:
    ratio: float
    low: float
    high: float
    equal: float
    different: float


def in_blocks(
    base: Sequence[Sequence[float]], others: Sequence[Sequence[float]], margin: float
) -> list[Comparison]:
    """Compare, one to one, what was measured in the same blocks.

    The ratio is the median of the blocks' ratios, its interval the percentile bootstrap's over
    blocks (Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13). The tests are
    of the logarithms of the blocks' ratios: Student's t for a difference, and two of them, one for
    each side, for equivalence (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657).

    Args:
        base, others: positive values, one for each block, in the same order of blocks.
        margin: what counts as equal: 0.02 for ratios from 1 / 1.02 to 1.02.
    """
    found = []
    for one, other in zip(base, others, strict=True):
        ratios = np.asarray(other, dtype=float) / np.asarray(one, dtype=float)
        resampled = np.median(_resamples(ratios, np.random.default_rng(_SEED)), axis=1)
        logs = np.log(ratios)
        freedom = len(logs) - 1
        error = float(np.std(logs, ddof=1)) / math.sqrt(len(logs)) if freedom else 0.0
        equal, different = _p_values(float(np.mean(logs)), error, freedom, margin)
        found.append(_Tested(float(np.median(ratios)), *_middle(resampled), equal, different))
    return _judged(found)


def apart(
    base: Sequence[Sequence[float]], others: Sequence[Sequence[float]], margin: float
) -> list[Comparison]:
    """Compare, one to one, what was measured at different times or on different machines.

    The ratio is that of the medians; the tests are Welch's of the logarithms.

    Args:
        base, others: positive values, of each pair of places.
    """
    found = []
    for one, other in zip(base, others, strict=True):
        below, above = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
        chance = np.random.default_rng(_SEED)
        resampled = np.median(_resamples(above, chance), axis=1) / np.median(
            _resamples(below, chance), axis=1
        )
        first, second = np.log(below), np.log(above)
        error, freedom = _welch(first, second)
        equal, different = _p_values(
            float(np.mean(second) - np.mean(first)), error, freedom, margin
        )
        ratio = float(np.median(above) / np.median(below))
        found.append(_Tested(ratio, *_middle(resampled), equal, different))
    return _judged(found)


def estimate(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of some values and the ends of its 95 % interval, by the percentile bootstrap."""
    known = np.asarray(values, dtype=float)
    resampled = np.median(_resamples(known, np.random.default_rng(_SEED)), axis=1)
    return (float(np.median(known)), *_middle(resampled))


def runs_needed(base: Sequence[float], other: Sequence[float], margin: float) -> int:
    """How many blocks show, four times in five, that two equal places are equal.

    Of the spread that some blocks have shown. Source: Chow, Shao, Wang: Sample Size Calculations in
    Clinical Research (2008), 3.2.2, with Student's t in the place of the normal distribution.

    Args:
        base, other: values of two blocks or more.
    """
    logs = np.log(np.asarray(other, dtype=float) / np.asarray(base, dtype=float))
    spread = float(np.std(logs, ddof=1)) / math.log1p(margin)
    for count in range(2, _MOST_RUNS):
        quantiles = stats.t.ppf([1 - _LEVEL, (1 + _POWER) / 2], count - 1)
        if count >= (float(np.sum(quantiles)) * spread) ** 2:
            return count
    return _MOST_RUNS


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of a family, each so adjusted that all of them together hold to a level.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _judged(found: Sequence[_Tested]) -> list[Comparison]:
    equal = holm([each.equal for each in found])
    different = holm([each.different for each in found])
    return [
        Comparison(each.ratio, each.low, each.high, _verdict(same, other))
        for each, same, other in zip(found, equal, different, strict=True)
    ]


def _verdict(equal: float, different: float) -> Verdict:
    # A difference within the margin is none that matters.
    if equal < _LEVEL:
        return Verdict.EQUAL
    return Verdict.DIFFERENT if different < _LEVEL else Verdict.UNDECIDED


def _welch(one: Floats, other: Floats) -> tuple[float, float]:
    """The standard error of the difference of two means, and its degrees of freedom."""
    if min(len(one), len(other)) < 2:
        return 0.0, 0.0
    parts = [float(np.var(each, ddof=1)) / len(each) for each in (one, other)]
    # Where nothing varies, any number will do.
    freedom = float(len(one) + len(other) - 2)
    if any(parts):
        weights = [
            part**2 / (len(each) - 1) for part, each in zip(parts, (one, other), strict=True)
        ]
        freedom = sum(parts) ** 2 / sum(weights)
    return math.sqrt(sum(parts)), freedom


def _p_values(mean: float, error: float, freedom: float, margin: float) -> tuple[float, float]:
    """Of equivalence and of a difference, for the mean of logarithms of ratios."""
    edge = math.log1p(margin)
    # One block says nothing.
    if freedom < 1:
        return 1.0, 1.0
    if not error:
        return float(abs(mean) >= edge), float(mean == 0)
    sides = [float(stats.t.sf((edge - mean * sign) / error, freedom)) for sign in (1, -1)]
    return max(sides), 2 * float(stats.t.sf(abs(mean) / error, freedom))


def _resamples(values: Floats, chance: np.random.Generator) -> Floats:
    return chance.choice(values, (_RESAMPLES, len(values)))


def _middle(resampled: Floats) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)
