"""The page of `sykube bench --html` in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import chromium, console
from tests.unit.bench.test_results import RESULT

_FETCHED = "return performance.getEntriesByType('resource').map(each => each.name)"
_PLOT = "return document.querySelector('svg').getBoundingClientRect().toJSON()"


def test_it_shows_plots_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    from sykube.cli.figures_page import page

    file = tmp_path / "page.html"
    file.write_text(page(RESULT), encoding="utf-8")
    with chromium(tmp_path) as browser:
        browser.get(file.as_uri())
        assert browser.title == "sykube bench start"
        assert browser.execute_script(_FETCHED) == []
        assert not console(browser)
        plot = browser.execute_script(_PLOT)
        width = browser.execute_script("return document.body.clientWidth")
        assert 300 < plot["width"] <= width
        shown = browser.find_element("tag name", "table").text
        assert "crun 2.00 2.000 2.000 to 2.000 different" in shown
