"""What a run has measured, and its file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sykube.bench.machine import Machine
from sykube.errors import UsageError
from sykube.host.files import unreadable

# What this sykube writes and reads; another number is another shape.
_FORMAT = 1


@dataclass(frozen=True)
class Measure:
    """One thing that was measured in some places.

    Attributes:
        values: of each place, one for each block: those at the same position are of the same block.
    """

    title: str
    unit: str
    values: Mapping[str, list[float]]


@dataclass(frozen=True)
class Line:
    """The points of a place in a plot."""

    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Curves:
    """A line for each place.

    Attributes:
        x, y: what its axes have, with units.
        scale: `x` or `y`, the axis that is logarithmic.
    """

    title: str
    x: str
    y: str
    scale: str
    lines: Mapping[str, Line]


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        kind: what was measured, as the command names it.
        base: the place that the others are compared to.
        margin: what counts as equal, as a part of 1.
        asked: options that figures depend on.
        versions: of sykube, Kubernetes and what the places are.
        disturbances: what made the machine less than quiet, also where that was overridden.
        pinned: which cores processes ran on, for people; empty where nothing was pinned.
        curves: what is drawn beside the measures.
    """

    kind: str
    base: str
    margin: float
    asked: Mapping[str, float]
    versions: Mapping[str, str]
    machine: Machine
    disturbances: tuple[str, ...]
    measures: Mapping[str, Measure]
    pinned: str = ""
    curves: Mapping[str, Curves] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """All of it, for programs; `read` takes it."""
        return {"format": _FORMAT, **asdict(self)}

    def table(self) -> str:
        """All values as CSV: a line for each measure, place and block."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("measure", "unit", "place", "block", "value"))
        for name, measure in self.measures.items():
            for place, values in measure.values.items():
                for block, value in enumerate(values, start=1):
                    lines.writerow((name, measure.unit, place, block, value))
        return text.getvalue()


def write(result: Result, file: Path) -> None:
    """Write a run: as CSV where the file is called so, else as JSON.

    Raises:
        UsageError: the file cannot be written.
    """
    text = (
        result.table()
        if file.suffix.lower() == ".csv"
        else f"{json.dumps(result.described(), indent=1)}\n"
    )
    keep(text, file)


def keep(content: str | bytes, file: Path) -> None:
    """Write what a user has named a file for; a text as UTF-8.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {error.strerror or error}",
            resolution="Give a file that you can write.",
        ) from error


def read(file: Path) -> Result:
    """A run that `write` has written as JSON.

    Raises:
        UsageError: the file cannot be read, or holds no such thing.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise _no_result(file, str(error)) from error
    try:
        found = json.loads(text)
        if found.pop("format") != _FORMAT:
            raise _no_result(file, "it is of another version of sykube")
        measures = {
            name: Measure(
                str(each["title"]),
                str(each["unit"]),
                {
                    place: [float(value) for value in values]
                    for place, values in each["values"].items()
                },
            )
            for name, each in found.pop("measures").items()
        }
        machine = Machine(**found.pop("machine"))
        disturbances = tuple(found.pop("disturbances"))
        curves = {name: _curves(each) for name, each in found.pop("curves", {}).items()}
        result = Result(
            **found, machine=machine, disturbances=disturbances, measures=measures, curves=curves
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_result(file, f"{type(error).__name__}: {error}") from error
    if not _is_whole(result):
        raise _no_result(file, "it has no value above 0 for each block")
    return result


def _curves(found: dict[str, Any]) -> Curves:
    lines = {
        place: Line(*([float(value) for value in line[axis]] for axis in ("x", "y")))
        for place, line in found.pop("lines").items()
    }
    return Curves(**found, lines=lines)


def _is_whole(result: Result) -> bool:
    return all(
        values and all(value > 0 for value in values)
        for measure in result.measures.values()
        for values in measure.values.values()
    )


def _no_result(file: Path, why: str) -> UsageError:
    return UsageError(
        f"{file} is no result of `sykube bench`",
        details=why,
        resolution="Make one: sykube bench start --save FILE.json",
    )
