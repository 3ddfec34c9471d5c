"""Medians and how sure they are."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

_RESAMPLES = 10_000
# The same figures give the same interval.
_SEED = 16


class Estimate(NamedTuple):
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate | None:
    """The median of some measurements; None where there are none.

    The interval is the percentile bootstrap's: the middle 95 % of medians of resamples, each of as
    many as were measured. Source: Efron, Tibshirani: An Introduction to the Bootstrap (1993),
    chapter 13.
    """
    if not values:
        return None
    chance = random.Random(_SEED)
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    edge = round(_RESAMPLES * 0.025)
    return Estimate(median(values), medians[edge], medians[-1 - edge])


def cell(found: Estimate | None) -> str:
    """Such as 90 (80 to 100); three digits at least, where there are some."""
    if not found:
        return "-"
    known = math.floor(math.log10(found.median)) if found.median > 0 else 0
    digits = max(0, 2 - known)
    return f"{found.median:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"
