"""Whatever goes wrong, an error says what to do next."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import sykube
from sykube.errors import ExitCode, SykubeError
from sykube.host.download import DownloadError
from sykube.host.lock import LockedError
from sykube.host.run import CommandError
from sykube.kubernetes.api import ApiError

ROOT = Path(sykube.__file__).parent
# These bring words of their own.
WITH_CURE: dict[str, SykubeError] = {
    "ApiError": ApiError("x", 0),
    "CommandError": CommandError("x", ["ls"], ""),
    "DownloadError": DownloadError("http://x/y", "why"),
    "LockedError": LockedError("x", "1"),
}
# Whoever pressed Ctrl-C knows best.
WITHOUT = {"SykubeError('interrupted', exit_code=ExitCode.INTERRUPTED)"}


def classes() -> set[str]:
    """SykubeError, and what is derived from it."""

    def below(kind: type[object]) -> Iterator[type[object]]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    return {kind.__name__ for kind in below(SykubeError) if kind.__module__.startswith("sykube.")}


def made(name_of: dict[str, SykubeError]) -> Iterator[tuple[str, ast.Call]]:
    """Each place of the source that makes an error without words of its own."""
    kinds = classes() - set(name_of)
    return ((place, call) for place, name, call in every_call() if name in kinds)


@functools.cache
def every_call() -> list[tuple[str, str, ast.Call]]:
    """Each call of the source, with what is called."""
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        # Programs in pods have no user at a terminal, and errors of their own.
        if "incluster" in file.parts:
            continue
        found += [
            (f"{file.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        ]
    return found


def test_every_error_says_what_to_do_next() -> None:
    calls = list(made(WITH_CURE))
    assert len(calls) > 50, "the walk finds the errors"
    silent = [
        f"{place}: {ast.unparse(call)}"
        for place, call in calls
        if not any(
            each.arg == "resolution" and ast.unparse(each.value) != "''" for each in call.keywords
        )
        and ast.unparse(call) not in WITHOUT
    ]
    assert silent == []


def test_errors_of_commands_and_servers_bring_words_of_their_own() -> None:
    assert set(WITH_CURE) <= classes()
    for error in (*WITH_CURE.values(), ApiError("x", 403)):
        assert error.resolution, type(error)
    assert "sykube start" in ApiError("x", 0).resolution
    assert "sykube start" not in ApiError("x", 403).resolution
    assert CommandError("x", ["ls"], "", "Install it.").resolution == "Install it."


def test_an_interruption_is_the_only_one_without() -> None:
    found = {ast.unparse(call) for _, call in made(WITH_CURE)} & WITHOUT
    assert found == WITHOUT
    assert int(ExitCode.INTERRUPTED) == 130
