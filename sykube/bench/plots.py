"""Plots of what was measured: SVG and PNG by matplotlib, which is the extra `plots`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from sykube.bench.results import Curves

# A median, and the ends of its 95 % interval.
Estimate = tuple[float, float, float]

# Texts stay texts, and the same figures give the same file.
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "sykube"}
_COLUMNS = 2
_DPI = 150
# Inches.
_WIDTH, _HEAD, _BAR = 8.0, 0.6, 0.24


def panels(
    titles: Mapping[str, tuple[str, str]],
    estimates: Mapping[str, Mapping[str, Estimate | None]],
) -> Figure:
    """A panel for each figure, with the median of each place and its 95 % interval.

    Args:
        titles: of each figure, with its unit.
        estimates: of each place, by figure; None where it has none.
    """
    rows = -(-len(titles) // _COLUMNS)
    height = _HEAD + _BAR * max(3, len(estimates))
    figure = Figure(figsize=(_WIDTH, height * rows), layout="constrained")
    panels = [*figure.subplots(rows, _COLUMNS, squeeze=False).flat]
    names = [*estimates][::-1]
    for panel in panels:
        panel.set_visible(False)
    for panel, (what, (title, unit)) in zip(panels, titles.items(), strict=False):
        panel.set_visible(True)
        for place, name in enumerate(names):
            if found := estimates[name][what]:
                median, low, high = found
                panel.barh(place, median, height=0.6, color="#9ab8d8")
                panel.errorbar(
                    median, place, xerr=[[median - low], [high - median]], color="#1b2a3a",
                    capsize=3,
                )  # fmt: skip
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{title}, {unit}", fontsize=9, loc="left")
        panel.set_xlim(left=0)
        # Large numbers would run into each other.
        panel.locator_params(axis="x", nbins=5)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def lines(curves: Curves) -> Figure:
    """One panel with a line for each place."""
    figure = Figure(figsize=(_WIDTH, _WIDTH / 2), layout="constrained")
    panel = figure.subplots()
    for number, (place, line) in enumerate(curves.lines.items()):
        # The colours are ten.
        style = ("-", "--", ":")[number // 10 % 3]
        panel.plot(line.x, line.y, style, color=f"C{number % 10}", linewidth=1.2, label=place)
    if curves.scale == "x":
        panel.set_xscale("log")
    else:
        panel.set_yscale("log")
    panel.set_xlabel(curves.x, fontsize=9)
    panel.set_ylabel(curves.y, fontsize=9)
    panel.set_title(curves.title, fontsize=9, loc="left")
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def svg(figure: Figure) -> str:
    """A figure as the text of an SVG file."""
    return _saved(figure, "svg", metadata={"Date": None}).decode("utf-8")


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    return _saved(figure, "png", dpi=_DPI)


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    made = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(made, format=kind, **options)
    return made.getvalue()
