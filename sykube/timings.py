"""Where the time of a command goes: its steps, and the programs and waits within them."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sykube.host.host import Host
from sykube.host.run import Completed

STEP, WAIT, PROGRAM = "step", "wait", "program"
_OUTSIDE = "(outside of steps)"
# What the engine's command line has before the name of an instance (node/engine.py).
_INSTANCE = "instance://"
_SUBCOMMAND = re.compile(r"[a-z][a-z-]*")
_ASSIGNMENT = re.compile(r"\w+=")
# What takes fewer seconds is not named to people.
_SMALL_S = 0.1


@dataclass(eq=False)
class Span:
    """A part of a command's time, in seconds since the command began.

    Attributes:
        kind: step, wait or program.
        name: a step's title, what was waited for, or a program with its subcommand.
        node: the instance that a program ran in or started; empty for one of the host.
        parent: the step that it is a part of; None outside of steps.
        end: as its start until it has ended.
    """

    kind: str
    name: str
    node: str
    parent: Span | None
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def shown(self) -> str:
        """Its name for people."""
        if self.kind == WAIT:
            return f"waiting for {self.name}"
        return f"{self.node}: {self.name}" if self.node else self.name


class Timings:
    """Records the steps of a command (`Ui.step`), and what a watched host runs and waits for.

    A program or wait is of the step that began last and goes on, whichever thread it is in. Of a
    wait within a wait, as for each request that looks whether it is over, only the outer counts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._steps: list[Span] = []
        self._thread = threading.local()
        self.spans: list[Span] = []

    def watch(self, host: Host) -> Host:
        """The same machine, of which the programs and waits are recorded."""

        def run(argv: Sequence[str | Path], **options: Any) -> Completed:
            with self.span(PROGRAM, *_named([str(word) for word in argv])):
                return host.run(argv, **options)

        return replace(host, run=run, waiting=self._wait)

    @contextlib.contextmanager
    def span(self, kind: str, name: str, node: str = "") -> Iterator[Span]:
        """Record what happens inside, also if it fails."""
        now = self._now()
        span = Span(kind, name, node, self._steps[-1] if self._steps else None, now, now)
        self.spans.append(span)
        try:
            yield span
        finally:
            span.end = self._now()

    @contextlib.contextmanager
    def _wait(self, what: str) -> Iterator[None]:
        if getattr(self._thread, "waits", False):
            yield
            return
        self._thread.waits = True
        try:
            with self.span(WAIT, what):
                yield
        finally:
            self._thread.waits = False

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Span]:
        """Record a step, and that what is inside is a part of it."""
        with self.span(STEP, title) as span:
            self._steps.append(span)
            try:
                yield span
            finally:
                self._steps.remove(span)

    def seconds(self) -> dict[str, float]:
        """Seconds of each step, by its title; those of one title together."""
        found: dict[str, float] = {}
        for step in self._of(STEP):
            found[step.name] = round(found.get(step.name, 0.0) + step.seconds, 2)
        return found

    def chain(self) -> list[Span]:
        """The waits and programs, one after the other, that the command's time went into.

        From the end backwards: what ended last, then what ended last before that began. Of things
        at the same time it is the one that the others waited for; of a wait and a program that
        looks whether it is over, the wait.
        """
        found: list[Span] = []
        for span in sorted(self._of(WAIT, PROGRAM), key=lambda each: (-each.end, each.start)):
            if not found or span.end <= found[-1].start:
                found.append(span)
        return found[::-1]

    def to_dict(self) -> dict[str, Any]:
        """For programs: each step with all that it ran and waited for, and the chain; seconds."""
        total = self._now()
        return {
            "seconds": round(total, 2),
            "steps": [
                {
                    "step": title,
                    "seconds": round(seconds, 2),
                    "itself": round(seconds - _covered(inner), 2),
                    "waits": [_described(each) for each in inner if each.kind == WAIT],
                    "programs": [_described(each) for each in inner if each.kind == PROGRAM],
                }
                for title, seconds, inner in self._rows(total)
            ],
            "chain": [{"kind": each.kind, **_described(each)} for each in self.chain()],
        }

    def lines(self) -> list[str]:
        """For people: what took 0.1 s and more, as it began; all that is smaller together."""
        total = self._now()
        found = []
        for title, seconds, inner in self._rows(total):
            found.append(f"{seconds:7.2f} s  {title}")
            parts = {"in sykube itself": seconds - _covered(inner)}
            for each in inner:
                parts[each.shown] = parts.get(each.shown, 0.0) + each.seconds
            found += [f"{took:13.2f} s  {part}" for part, took in parts.items() if took >= _SMALL_S]
            small = sum(took for took in parts.values() if took < _SMALL_S)
            found += [f"{small:13.2f} s  others"] if small >= _SMALL_S else []
        found.append("longest chain of waits and programs:")
        chain = self.chain()
        found += [f"{e.seconds:7.2f} s  {e.shown}" for e in chain if e.seconds >= _SMALL_S]
        held = sum(each.seconds for each in chain)
        return [*found, f"{held:7.2f} s  of {total:.2f} s; the rest is in sykube itself"]

    def _rows(self, total: float) -> Iterator[tuple[str, float, list[Span]]]:
        """Each step and what is outside of them: title, seconds, parts."""
        for step in self._of(STEP):
            yield step.name, step.seconds, [each for each in self.spans if each.parent is step]
        outside = [each for each in self.spans if each.parent is None]
        between = total - _covered(each for each in outside if each.kind == STEP)
        yield _OUTSIDE, between, [each for each in outside if each.kind != STEP]

    def _of(self, *kinds: str) -> list[Span]:
        return [each for each in self.spans if each.kind in kinds]

    def _now(self) -> float:
        return self._clock() - self._began


def _covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of them goes on."""
    covered = end = 0.0
    for span in sorted(spans, key=lambda each: each.start):
        covered += max(span.end - max(span.start, end), 0.0)
        end = max(end, span.end)
    return covered


def _described(span: Span) -> dict[str, Any]:
    node = {"node": span.node} if span.kind == PROGRAM else {}
    return {
        **node,
        "name": span.name,
        "start": round(span.start, 2),
        "seconds": round(span.seconds, 2),
    }


def _named(words: list[str]) -> tuple[str, str]:
    """What a command line runs, and the instance that it does so in or starts; empty for none."""
    node = ""
    for at, word in enumerate(words):
        if word.startswith(_INSTANCE):
            node, words = word.removeprefix(_INSTANCE), words[at + 1 :]
            break
        if word == "instance" and words[at + 1 : at + 2] in (["start"], ["stop"]):
            return f"{Path(words[0]).name} instance {words[at + 1]}", words[-1]
    if words[:1] == ["env"]:
        words = [word for word in words[1:] if not _ASSIGNMENT.match(word)]
    if words[:2] == ["sh", "-c"]:
        # A script, and then its name where it has one (resources.script).
        words = words[3:4] or ["sh"]
    subcommand = words[1:2] if words[1:2] and _SUBCOMMAND.fullmatch(words[1]) else []
    return " ".join([Path(words[0]).name, *subcommand]) if words else "", node
