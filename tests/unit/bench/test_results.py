"""Files of `sykube bench`, and what is shown of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sykube.bench import results
from sykube.bench.machine import Machine
from sykube.bench.results import Curves, Line, Measure, Result
from sykube.cli import figures
from sykube.cli.bench import bench
from sykube.errors import HostError, UsageError

MACHINE = Machine("Quick 1", 2, "6.12.1", 0.04, 0.0, "", None, 0)
BASE = [1.0, 1.01, 0.99, 1.0, 1.02]
RESULT = Result(
    kind="start",
    base="runc",
    margin=0.02,
    asked={"runs": 5, "pods": 10},
    versions={"kubernetes": "1.36.2"},
    machine=MACHINE,
    disturbances=("somebody sings",),
    measures={
        "running": Measure("until a pod runs", "s", {"runc": BASE, "crun": [2 * v for v in BASE]})
    },
)


def saved(result: Result, file: Path) -> str:
    results.write(result, file)
    return str(file)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    results.write(RESULT, tmp_path / "a.json")
    assert results.read(tmp_path / "a.json") == RESULT


def test_curves_are_read_again(tmp_path: Path) -> None:
    curves = {"course": Curves("over time", "message", "µs", "y", {"host": Line([1, 2], [3, 4])})}
    result = replace(RESULT, curves=curves)
    results.write(result, tmp_path / "a.json")
    assert results.read(tmp_path / "a.json") == result


def test_as_csv_each_value_has_a_line(tmp_path: Path) -> None:
    results.write(RESULT, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[:3] == [
        "measure,unit,place,block,value",
        "running,s,runc,1,1.0",
        "running,s,runc,2,1.01",
    ]
    assert len(lines) == 1 + 2 * len(BASE)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "{}", '{"format": 2}', "\x00",
        json.dumps(RESULT.described() | {"machine": {"cores": 2}}),
        json.dumps(RESULT.described() | {"measures": {"running": {"title": "a"}}}),
        json.dumps(
            RESULT.described()
            | {"measures": {"running": {"title": "a", "unit": "s", "values": {"runc": [0.0]}}}}
        ),
    ],
)  # fmt: skip
def test_what_is_none_is_one_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="is no result"):
        results.read(file)


def test_a_file_that_cannot_be_had_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        results.read(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot write"):
        results.write(RESULT, tmp_path / "none/a.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="is no result"):
        results.read(tmp_path / "b.json")


def test_two_results_stand_beside_each_other(tmp_path: Path) -> None:
    twice = {"running": Measure("until a pod runs", "s", {"runc": [3 * value for value in BASE]})}
    later = replace(RESULT, measures=twice, asked={"runs": 5, "pods": 20})
    files = [saved(RESULT, tmp_path / "a.json"), saved(later, tmp_path / "b.json")]
    done = CliRunner().invoke(bench, ["compare", *files])
    assert done.exit_code == 0, done.output
    first, line, *rest = done.stdout.splitlines()
    assert first.split() == ["before", "after", "ratio", "(95", "%", "interval)"]
    assert line.startswith("until a pod runs, s, runc    1.00   3.00  3.000 (")
    assert line.endswith("different")
    assert any("asked for differently" in each for each in rest)
    assert "before, disturbed: somebody sings" in rest


def test_what_only_one_of_two_results_has_is_left_out(tmp_path: Path) -> None:
    more = {**RESULT.measures, "stopped": Measure("pods stopped", "a second", {"runc": BASE})}
    for first, second in ((RESULT.measures, more), (more, RESULT.measures)):
        files = [
            saved(replace(RESULT, measures=measures), tmp_path / f"{number}.json")
            for number, measures in enumerate((first, second))
        ]
        done = CliRunner().invoke(bench, ["compare", *files])
        assert done.exit_code == 0, done.output
        assert "until a pod runs" in done.stdout
        assert "pods stopped" not in done.stdout


def test_a_result_says_what_it_is_worth() -> None:
    title, base, other, empty, *notes = figures.lines(RESULT)
    assert title == "until a pod runs, s"
    assert base == "  runc  1.00"
    assert other == "  crun  2.00  2.000 (2.000 to 2.000)  different"
    assert empty == ""
    assert notes[0] == "5 runs, 10 pods; medians, and ratios to runc with their 95 % intervals"
    assert "2 cores Quick 1, Linux 6.12.1; nothing is pinned" in notes
    assert notes[-1] == "disturbed: somebody sings"


def test_results_with_nothing_in_common_are_one_error(tmp_path: Path) -> None:
    files = [
        saved(RESULT, tmp_path / "a.json"),
        saved(replace(RESULT, kind="network"), tmp_path / "b.json"),
    ]
    done = CliRunner().invoke(bench, ["compare", *files])
    assert isinstance(done.exception, UsageError)
    assert "nothing in common" in str(done.exception)


def test_without_numpy_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sykube.bench.judging")
    monkeypatch.setitem(sys.modules, "numpy", None)
    done = CliRunner().invoke(bench, ["compare", "a.json", "b.json"])
    assert isinstance(done.exception, HostError)
    assert done.exception.resolution.endswith("-m pip install numpy scipy")


@pytest.mark.parametrize("margin", ["0", "51%", "-1", "two", "nan", ""])
def test_a_margin_is_a_part(tmp_path: Path, margin: str) -> None:
    done = CliRunner().invoke(bench, ["compare", "--margin", margin, "a", "b"])
    assert done.exit_code == 2
    assert "--margin" in done.output
