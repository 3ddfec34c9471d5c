"""The page of what a container costs, written of figures that are there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import conclusions, container_cost, container_cost_page, goals
from benchmarks.conclusions import Decision, Rule
from benchmarks.container_cost import PLACES, Asked
from benchmarks.container_cost_page import TITLES, Told
from benchmarks.costs import Word
from sykube.bench import hpcc_output, results
from sykube.bench.results import Measure, Result
from sykube.cli.bench import bench
from tests.unit.bench.test_results import BASE, RESULT

TOLD = Told("2026-11-30", {"network": "`sykube bench network` ended with 1"})


def about(value: float) -> list[float]:
    """Values of some blocks that are almost the same."""
    return [value * part for part in BASE]


def hpcc(**factors: float) -> Result:
    """HPC Challenge on a host, and in a container where figures are these times the host's.

    Args:
        factors: by keys of figures; 1 of those that are not named.
    """
    shapes = (("2x1", 1.0), ("4x1", 0.5))
    measures = {
        f"{key}-{shape}": Measure(
            f"{figure.title} ({shape})",
            figure.unit,
            {"host": about(speed), "exec": about(speed * factors.get(key, 1))},
        )
        for shape, speed in shapes
        for key, figure in hpcc_output.FIGURES.items()
    }
    return replace(RESULT, kind="hpcc", base="host", measures=measures)


def stream(**delays: float) -> Result:
    """Messages whose median is so many microseconds in these places; the first take twice as long."""
    places = {place.replace("_", ":"): about(delay) for place, delay in delays.items()}
    first = {place: [2 * value for value in values] for place, values in places.items()}
    measures = {"warm_up": Measure("first", "µs", first), "p50": Measure("median", "µs", places)}
    return replace(RESULT, kind="stream", base="host", measures=measures)


THESIS = stream(host=100, exec=100, runc_node=150, runc_pod=150, apptainer_pod=200)


def words(found: Mapping[str, Result]) -> dict[str, Word]:
    return {each.conclusion.text: each.word for each in conclusions.decided(found)}


def ended(decisions: Sequence[Decision], text: str) -> Word:
    return next(each.word for each in decisions if text in each.conclusion.text)


def test_equal_figures_are_what_the_thesis_concluded() -> None:
    found = words({"hpcc": hpcc()})
    for text, word in found.items():
        if "costs" in text and ":" not in text:
            assert word == Word.HOLDS, text
    assert found["which number of processes is best is the same in containers"] == Word.HOLDS


@pytest.mark.parametrize(
    ("factors", "text", "word"),
    [
        # Fewer flops are a cost, a shorter run is none.
        ({"hpl": 0.9}, "costs Linpack nothing", Word.FAILS),
        ({"hpl": 1.1}, "costs Linpack nothing", Word.HOLDS),
        ({"seconds": 1.1}, "costs the whole run nothing", Word.FAILS),
        ({"seconds": 0.9}, "costs the whole run nothing", Word.HOLDS),
        ({"ring_latency": 1.1}, "ring's latency and bandwidth", Word.FAILS),
        ({"ring_bandwidth": 0.9}, "ring's latency and bandwidth", Word.FAILS),
        ({"fft": 0.9}, "more threads than cores", Word.FAILS),
        ({"fft": 0.9}, "costs PTRANS nothing", Word.HOLDS),
    ],
)
def test_what_a_container_costs_is_told_by_what_is_spent(
    factors: dict[str, float], text: str, word: Word
) -> None:
    assert ended(conclusions.decided({"hpcc": hpcc(**factors)}), text) == word


def test_another_best_number_of_processes_in_a_container_fails() -> None:
    found = hpcc()
    measures = dict(found.measures)
    turned = {"host": about(0.5), "exec": about(2)}
    measures["hpl-4x1"] = replace(measures["hpl-4x1"], values=turned)
    decisions = conclusions.decided({"hpcc": replace(found, measures=measures)})
    assert ended(decisions, "which number of processes") == Word.FAILS


def test_messages_are_compared_as_the_figures_of_the_thesis() -> None:
    found = words({"stream-nats": THESIS})
    of_nats = [word for text, word in found.items() if text.startswith("NATS")]
    assert of_nats == [Word.HOLDS] * 5
    assert {word for text, word in found.items() if text.startswith("Valkey")} == {Word.UNMEASURED}


@pytest.mark.parametrize(("delay", "word"), [(150, Word.FAILS), (140, Word.FAILS)])
def test_equal_or_shorter_delays_are_none_that_are_longer(delay: float, word: Word) -> None:
    found = stream(host=100, exec=100, runc_node=150, runc_pod=150, apptainer_pod=delay)
    decisions = conclusions.decided({"stream-valkey": found})
    assert ended(decisions, "Valkey: in a pod of Kubernetes") == word


def test_what_scatters_is_undecided() -> None:
    scattered = [100.0, 300, 120, 90, 150]
    values = {"exec": about(150), "runc:pod": about(150), "apptainer:pod": scattered}
    found = replace(THESIS, measures={"p50": Measure("median", "µs", values)})
    decisions = conclusions.decided({"stream-nats": found})
    assert ended(decisions, "NATS: in a pod of Kubernetes") == Word.UNDECIDED
    # Where one part is not there, no other part decides.
    assert ended(decisions, "NATS: the first messages") == Word.UNMEASURED


def test_nothing_measured_is_nothing_decided() -> None:
    assert {each.word for each in conclusions.decided({"start": RESULT})} == {Word.UNMEASURED}


@pytest.mark.parametrize(
    ("factor", "word"), [(1.0, Word.HOLDS), (0.99, Word.HOLDS), (0.96, Word.FAILS)]
)
def test_pods_are_asked_for_almost_all_of_the_hosts_speed(factor: float, word: Word) -> None:
    found = hpcc(ptrans=factor, seconds=9)
    measures = {
        what: replace(each, values={"host": each.values["host"], "crun": each.values["exec"]})
        for what, each in found.measures.items()
    }
    ((goal, said, compared),) = goals.goals({"hpcc": replace(found, measures=measures)})
    assert goal.text.startswith("HPC Challenge in pods of crun")
    # The seven figures of its six tests, with no more processes than cores.
    assert (said, len(compared)) == (word, 7)


@pytest.mark.parametrize(
    ("delay", "word"), [(104, Word.HOLDS), (50, Word.HOLDS), (106, Word.FAILS)]
)
def test_apptainers_pods_are_asked_for_delays_like_runcs(delay: float, word: Word) -> None:
    found = stream(host=1, runc_nodes=100, apptainer_nodes=delay)
    found = replace(found, measures={**found.measures, "p99": found.measures["p50"]})
    ((goal, said, _),) = goals.goals({"stream-valkey": found})
    assert (goal.text, said) == (
        "Valkey: delay in apptainer:nodes 1.05 times that in runc:nodes at most", word,
    )  # fmt: skip


def test_an_interval_that_reaches_beyond_what_is_asked_is_undecided() -> None:
    values = {"runc:pod": about(100), "apptainer:pod": [90.0, 100, 150, 104, 160]}
    delays = Measure("median", "µs", values)
    found = replace(THESIS, measures={"p50": delays, "p99": delays})
    assert [word for _, word, _ in goals.goals({"stream-nats": found})] == [Word.UNDECIDED]


def test_the_page_has_what_was_measured_and_what_disturbed() -> None:
    found = {"hpcc": hpcc(), "stream-nats": THESIS, "start": RESULT}
    pictures = {"start": [Path("container-cost/start-medians.svg")]}
    text = container_cost_page.page(found, TOLD, pictures)
    assert "on 2026-11-30, not by hand" in text
    assert "- 2 cores Quick 1; Linux 6.12.1" in text
    assert "4% of its time taken by others just before" in text
    assert "somebody sings" in text
    assert "## The network of pods\n\nNot measured: `sykube bench network` ended with 1" in text
    assert "Valkey: the first messages take longest | **not measured** | B |" in text
    assert "## Messages through Valkey" not in text
    assert "\n![Pods that start and stop: start-medians](container-cost/start-medians.svg)" in text
    assert (
        "until a pod runs, s | 1.00 (0.99 to 1.02) | 2.00, × 2.000 (2.000 to 2.000) different |"
        in text
    )
    for rule in Rule:
        assert f"\n- {rule.letter}: holds where" in text
    # Rows of a table have as many cells as its head.
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_place_that_lacks_a_figure_has_an_empty_cell() -> None:
    measures = {**RESULT.measures, "one": Measure("of one", "s", {"runc": BASE})}
    rows = [*container_cost_page.table(replace(RESULT, measures=measures))]
    assert rows[-1] == "| of one, s | 1.00 (0.99 to 1.02) |  |"


ASKED = Asked(6, 1000, 1000, 200, 0.5, 5, False)


@pytest.mark.parametrize("asked", [ASKED, container_cost._LEAST])
def test_what_sykube_is_asked_for_is_what_it_takes(asked: Asked) -> None:
    found = container_cost.commands(asked, 2)
    assert [*found] == [*TITLES]
    for what, *options in found.values():
        command: Any = bench.commands[what]
        with command.make_context(what, options) as context:
            assert context.params["runs"] == (3 if asked.few else 6)
            assert context.params["anyway"] == asked.few


def test_the_shapes_are_of_the_cores_and_of_twice_as_many_processes() -> None:
    words = container_cost.commands(ASKED, 8)["hpcc"]
    assert [word for word in words if word.startswith("--shape")] == ["--shape=8x1", "--shape=16x1"]


def test_every_place_that_a_conclusion_is_of_is_measured() -> None:
    asked = container_cost.commands(ASKED, 2)
    needed = [
        cost
        for each in conclusions.conclusions({"hpcc": hpcc()})
        for pair in each.pairs
        for cost in (pair.one, pair.other)
    ]
    assert len({cost.run for cost in needed}) == 3
    for cost in needed:
        if cost.run in PLACES:
            assert f"--place={cost.place}" in asked[cost.run]
    assert "--broker=valkey" in asked["stream-valkey"]


def test_one_that_fails_is_named_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sykube(*words: str, timeout: float) -> None:
        if words[1] == "network":
            raise subprocess.CalledProcessError(6, words)
        file = next(word for word in words if word.startswith("--save="))
        results.write(RESULT, Path(file.removeprefix("--save=")))

    monkeypatch.setattr(container_cost, "sykube", sykube)
    wanted = {"network": ["network"], "start": ["start"]}
    found, told = container_cost.measure(wanted, "bench", tmp_path)
    assert found == {"start": RESULT}
    assert told.failed == {"network": "`sykube bench network` ended with 6"}
    assert container_cost.read_told(tmp_path) == told


def ran(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """Its exit code."""
    monkeypatch.setattr(sys, "argv", ["container_cost", *words])
    try:
        return container_cost.main()
    except SystemExit as end:
        return end.code


def test_the_page_is_written_again_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    source, page = tmp_path / "figures", tmp_path / "container-cost.md"
    source.mkdir()
    container_cost.keep({"start": RESULT}, TOLD, source)
    # Something could not be measured.
    assert ran(monkeypatch, "--from", str(source), "--page", str(page)) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["runs"]["start"]["running"]["runc"] == pytest.approx([1.0, 0.99, 1.02])
    folder = tmp_path / "container-cost"
    assert {file.name for file in folder.iterdir()} == {
        "run.json", "start.json", "start-medians.svg",
    }  # fmt: skip
    assert "(container-cost/start-medians.svg)" in page.read_text()
    assert results.read(folder / "start.json") == RESULT
    # Of its own figures it is the same.
    before = page.read_text(), (folder / "start-medians.svg").read_text()
    ran(monkeypatch, "--from", str(folder), "--page", str(page))
    assert (page.read_text(), (folder / "start-medians.svg").read_text()) == before


def test_without_a_page_it_is_printed_before_the_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    container_cost.keep({"start": RESULT}, Told("2026-11-30", {}), tmp_path)
    assert ran(monkeypatch, "--from", str(tmp_path)) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert "## Pods that start and stop" in lines
    assert json.loads(last)["failed"] == {}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--page", "page.html"], 2, "name it .md"),
        (["--runs", "2"], 2, "--runs is 3 or more, or 0"),
        (["--from", "/nowhere"], 1, "No such file or directory: '/nowhere/run.json'"),
    ],
)
def test_what_cannot_be_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str], code: int, said: str,
) -> None:  # fmt: skip
    assert ran(monkeypatch, *options) == code
    assert said in capsys.readouterr().err
