"""What is asked of the outside, in order, and what of it fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sykube.errors import SykubeError


class Injected(SykubeError):
    """A failure that a test asked for."""


@dataclass(frozen=True)
class Call:
    """Something that was asked of the outside.

    Attributes:
        step: title of the step that was under way, or empty.
        kind: run, engine or api.
    """

    step: str
    kind: str
    words: tuple[str, ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What it has in common with the same call of another time: not temporary names."""
        return self.kind, self.words[:5]

    def __str__(self) -> str:
        return f"{self.kind}: {' '.join(self.words)}"[:160]


@dataclass
class Fault:
    """An error for the calls that match; `times` is how often, None for always."""

    matches: Callable[[Call], bool]
    error: Callable[[Call], BaseException]
    times: int | None = 1


class Calls:
    """Every call to the outside, in order, and the faults among them."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self.faults: list[Fault] = []
        self.step = ""
        self._lock = threading.Lock()

    def record(self, kind: str, *words: object) -> None:
        """Record a call; raise the error of the first fault that it meets."""
        with self._lock:
            call = Call(self.step, kind, tuple(map(str, words)))
            self.all.append(call)
            for fault in self.faults:
                if fault.times != 0 and fault.matches(call):
                    fault.times = None if fault.times is None else fault.times - 1
                    raise fault.error(call)

    def fail(
        self,
        matches: Callable[[Call], bool],
        error: Callable[[Call], BaseException] | None = None,
        times: int | None = 1,
    ) -> None:
        """Make calls fail, with `Injected` unless told otherwise."""
        self.faults.append(Fault(matches, error or (lambda call: Injected(str(call))), times))

    def fail_number(
        self, number: int, error: Callable[[Call], BaseException] | None = None
    ) -> None:
        """Make one call fail by its place in the order, from 0."""
        self.fail(lambda _: len(self.all) - 1 == number, error)

    def fail_one_of(
        self,
        before: Sequence[Call],
        number: int,
        error: Callable[[Call], BaseException] | None = None,
    ) -> None:
        """Make one call fail that was made before, by its place in the order then, from 0.

        Calls from several threads have another order each time: what counts is how often the same
        one came earlier.
        """
        wanted, earlier = before[number].key, before[:number]
        left = sum(each.key == wanted for each in earlier)
        counted = itertools.count()
        self.fail(lambda call: call.key == wanted and next(counted) == left, error)
