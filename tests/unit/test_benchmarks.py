"""What benchmarks make of their figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import in_pod, measure, runtimes
from benchmarks.intervals import Estimate, cell, estimate
from sykube.errors import ExitCode


def test_an_interval_holds_its_median_and_is_the_same_each_time() -> None:
    values = [10.0, 12.0, 11.0, 13.0, 90.0, 12.5, 11.5, 10.5, 12.0, 11.0]
    found = estimate(values)
    assert found == estimate(values)
    assert found
    assert 10 <= found.low < found.median < found.high < 90
    assert found.median == 11.75


def test_nothing_measured_is_no_estimate() -> None:
    assert estimate([]) is None
    assert estimate([3.0]) == Estimate(3.0, 3.0, 3.0)
    assert cell(None) == "-"


def test_more_measurements_are_surer() -> None:
    few, many = [estimate([*range(10)] * times) for times in (1, 40)]
    assert few
    assert many
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(
    ("median", "text"),
    [
        (123.4, "123 (99 to 140)"),
        (12.34, "12.3 (99.0 to 140.0)"),
        (0.01234, "0.0123 (99.0000 to 140.0000)"),
        (0.0, "0.00 (99.00 to 140.00)"),
    ],
)
def test_figures_have_as_many_digits_as_are_worth_it(median: float, text: str) -> None:
    assert cell(Estimate(median, 99.0, 140.0)) == text


LOG = r"""
time="2026-11-29T18:00:00.100000000Z" level=info msg="CreateContainer within sandbox \"f\" returns container id \"ab12\""
time="2026-11-29T18:00:00.250000000Z" level=info msg="StartContainer for \"ab12\""
time="2026-11-29T18:00:00.260000000Z" level=info msg="StartContainer for \"cd34\""
time="2026-11-29T18:00:00.300000000Z" level=info msg="StartContainer for \"cd34\" returns successfully"
time="2026-11-29T18:00:00.400000001Z" level=info msg="StartContainer for \"ab12\" returns successfully"
"""


def test_containerds_log_says_how_long_a_container_took() -> None:
    class Node:
        def read(self, path: str) -> str:
            assert path == "/var/log/sykube/containerd.log"
            return LOG

    node: Any = Node()
    assert runtimes.start_ms(node, "ab12") == pytest.approx(150)
    assert runtimes.start_ms(node, "cd34") == pytest.approx(40)


def test_runs_are_compared_one_by_one() -> None:
    found = {"runc": {"start_ms": [10.0, 20.0]}, "apptainer": {"start_ms": [110.0, 130.0]}}
    assert runtimes.differences(found, "start_ms") == [100.0, 110.0]
    assert runtimes.differences({"runc": {"start_ms": [10.0]}}, "start_ms") == []


def test_what_runs_in_a_pod_says_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    # Some blocks do.
    monkeypatch.setattr(in_pod, "_HASHED", 1 << 20)
    monkeypatch.setattr(in_pod, "_COUNTED", 1000)
    compile(in_pod.program(), "program", "exec")
    assert 0 < in_pod.processor_s() < 60


def test_a_plot_has_each_runtime_and_its_interval() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    from sykube.bench import plots

    figures = dict.fromkeys(runtimes.TITLES, Estimate(5.0, 4.0, 7.0))
    nothing: dict[str, Estimate | None] = dict.fromkeys(runtimes.TITLES)
    text, again = (
        plots.svg(plots.panels(runtimes.TITLES, {"runc": figures, "crun": nothing}))
        for _ in range(2)
    )
    assert text == again
    for title, unit in runtimes.TITLES.values():
        assert f"{title}, {unit}" in text
    assert text.count(">runc<") == len(runtimes.TITLES)


def test_a_plot_that_cannot_be_drawn_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "sykube.bench.plots", raising=False)
    assert measure.drawing(None) is None
    with pytest.raises(SystemExit) as caught:
        measure.drawing(Path("plot.svg"))
    assert caught.value.code == ExitCode.HOST_NOT_READY
    said = capsys.readouterr().err
    assert "plots need matplotlib" in said
    assert "pip install matplotlib" in said
