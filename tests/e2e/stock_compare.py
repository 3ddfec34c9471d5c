"""What two clusters have and do not have alike, but for a list of what is allowed to differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Allowed:
    """Differences with one reason.

    Attributes:
        patterns: each for the lines of `differences`, in which * stands for any text.
        since: the first minor version of Kubernetes that has them.
        before: the first that has them no more.
        by_chance: whether they may be missing.
    """

    reason: str
    patterns: tuple[str, ...]
    since: int = 0
    before: int = 1000
    by_chance: bool = False


def differences(stock: Any, ours: Any, path: str = "") -> Iterator[str]:
    """A line for each value that is not the same: `PLACE > FIELD > FIELD: STOCK -> OURS`."""
    if isinstance(stock, dict) and isinstance(ours, dict):
        for key in sorted({*stock, *ours}):
            below = f"{path} > {key}" if path else key
            yield from differences(stock.get(key, _ABSENT), ours.get(key, _ABSENT), below)
    elif stock != ours:
        yield f"{path}: {_shown(stock)} -> {_shown(ours)}"


def problems(stock: Any, ours: Any, allowed: Sequence[Allowed], minor: int) -> list[str]:
    """What differs and may not, and which pattern of the list no difference has any more.

    Args:
        minor: of the clusters' Kubernetes, 1.MINOR.
    """
    patterns = {
        pattern: each
        for each in allowed
        if each.since <= minor < each.before
        for pattern in each.patterns
    }
    found = list(differences(stock, ours))
    seen = {line: [each for each in patterns if _fits(each, line)] for line in found}
    used = {pattern for fitting in seen.values() for pattern in fitting}
    return [f"differs: {line}" for line in found if not seen[line]] + [
        f"no longer differs: {pattern} ({each.reason})"
        for pattern, each in patterns.items()
        if pattern not in used and not each.by_chance
    ]


def _fits(pattern: str, line: str) -> bool:
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), line, re.DOTALL))


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, sort_keys=True)
