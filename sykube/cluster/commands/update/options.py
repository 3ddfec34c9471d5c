"""How an update goes about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class UpdateOptions:
    """How an update goes about it.

    Attributes:
        drain_timeout: seconds that emptying a node may take.
        grace: seconds that the pods which stay on a node have to end by themselves.
        yes: install missing packages without asking.
        ask: puts a question to the user.
    """

    drain_timeout: int = 300
    grace: int = 10
    yes: bool = False
    ask: Callable[[str], bool] = lambda _question: False
