"""A user interface that keeps what it said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from sykube.ui import Ui
from tests.fakes.calls import Calls


class RecordingUi(Ui):
    """A user interface that keeps what it said, and tells `Calls` which step is under way."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(quiet=True, stream=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        self.calls = calls
        self.said: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[str] = []
        # Told the title of a step that comes to its end.
        self.at_end: Callable[[str], None] = lambda _: None

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        outer = self.calls.step
        self.calls.step = title
        self.steps.append(title)
        try:
            with super().step(title):
                yield
                self.at_end(title)
        finally:
            self.calls.step = outer
