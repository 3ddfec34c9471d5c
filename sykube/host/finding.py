"""What a check finds, with its fix."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Level(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """One thing about the host.

    Attributes:
        cure: the fix: a command, or what to ask the administrator for; empty when healthy.
        packages: packages of this host's distribution that fix it.
    """

    what: str
    level: Level
    detail: str
    cure: str = ""
    packages: tuple[str, ...] = ()


def ok(what: str, detail: str) -> Finding:
    return Finding(what, Level.OK, detail)


def warning(what: str, detail: str, cure: str) -> Finding:
    return Finding(what, Level.WARNING, detail, cure)


def failure(what: str, detail: str, cure: str, packages: Iterable[str] = ()) -> Finding:
    return Finding(what, Level.FAILURE, detail, cure, tuple(packages))
