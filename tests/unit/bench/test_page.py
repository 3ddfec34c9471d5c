"""The page of a result."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sykube.bench.results import Curves, Line, Measure
from sykube.cli.bench import bench
from sykube.errors import HostError, UsageError
from tests.unit.bench.test_results import BASE, RESULT


def test_it_has_plots_and_ratios_and_asks_for_nothing() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    from sykube.cli.figures_page import page

    twice = {"runc": BASE, "a <b>crun</b>": [2 * value for value in BASE]}
    text = page(replace(RESULT, measures={"running": Measure("until <i>it</i> runs", "s", twice)}))
    assert text.count("<svg") == 1
    # In the plot and in the table.
    assert text.count("until &lt;i&gt;it&lt;/i&gt; runs, s") == 2
    assert text.count("a &lt;b&gt;crun&lt;/b&gt;") >= 2
    assert "<b>crun" not in text
    assert '<td>2.000</td>\n<td>2.000 to 2.000</td><td class="different">different</td>' in text
    assert "<p>disturbed: somebody sings</p>" in text
    # Nothing is fetched, nothing runs.
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(\s*[\"']?http", text)
    assert {each[0] for each in re.findall(r'href="([^"]+)"', text)} <= {"#"}


def test_a_place_that_lacks_a_measure_is_left_out_there() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    from sykube.cli.figures_page import page

    measures = {**RESULT.measures, "one": Measure("of one", "s", {"runc": BASE})}
    assert "of one, s" in page(replace(RESULT, measures=measures))


def test_curves_are_drawn_beside_the_measures() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    from sykube.cli.figures_page import page

    lines = {f"<i>{number}</i>": Line([1, 2, 3], [5, 7, 6]) for number in range(12)}
    curves = {
        "course": Curves("over <b>messages</b>", "message", "µs", "y", lines),
        "spread": Curves("spread", "µs", "%", "x", lines),
    }
    text = page(replace(RESULT, curves=curves))
    assert text.count("<svg") == 3
    assert "over &lt;b&gt;messages&lt;/b&gt;" in text
    # A legend each.
    assert text.count("&lt;i&gt;11&lt;/i&gt;") == 2


def test_plots_are_files_of_their_own_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    from sykube.cli.figures_page import write_plots

    curves = {
        "course": Curves("over messages", "message", "µs", "y", {"host": Line([1, 2], [5, 7])})
    }
    files = write_plots(replace(RESULT, curves=curves), tmp_path, "a-")
    names = [f"a-{name}.{kind}" for name in ("medians", "course") for kind in ("svg", "png")]
    assert [file.name for file in files] == names
    assert "until a pod runs, s" in files[0].read_text(encoding="utf-8")
    # A picture of some thousand points: eight bytes of a signature, then its size.
    for file in files[1::2]:
        head = file.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(head[16:20]) == 1200


def test_a_folder_of_plots_is_there_before_anything_is_measured(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench, ["start", "--plots", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "does not exist" in done.output


@pytest.mark.parametrize(
    ("name", "said"), [("page.pdf", "pages are HTML"), ("none/page.html", "no such folder")]
)
def test_what_no_page_can_be_is_refused_at_once(tmp_path: Path, name: str, said: str) -> None:
    done = CliRunner().invoke(bench, ["start", "--html", str(tmp_path / name)])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


@pytest.mark.parametrize("asked", [["--html", "page.html"], ["--plots", "."]])
def test_without_matplotlib_it_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "sykube.bench.plots", raising=False)
    done = CliRunner().invoke(bench, ["start", *asked])
    assert isinstance(done.exception, HostError)
    assert done.exception.resolution.endswith("-m pip install matplotlib")
