"""Plots of benchmarks: SVG by matplotlib, which is the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.intervals import Estimate

# Texts stay texts, and the same figures give the same file.
mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "sykube"}


def draw(
    file: Path,
    titles: Mapping[str, tuple[str, str]],
    estimates: Mapping[str, Mapping[str, Estimate | None]],
) -> None:
    """A panel for each figure, with the median of each runtime and its 95 % interval.

    Args:
        titles: of each figure, with its unit.
        estimates: of each runtime, by figure.
    """
    columns = 2
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(8, 1.3 * rows), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    names = [*estimates][::-1]
    for panel in panels:
        panel.set_visible(False)
    for panel, (what, (title, unit)) in zip(panels, titles.items(), strict=False):
        panel.set_visible(True)
        for place, name in enumerate(names):
            found = estimates[name][what]
            if found:
                below, above = found.median - found.low, found.high - found.median
                panel.barh(place, found.median, height=0.6, color="#9ab8d8")
                panel.errorbar(
                    found.median, place, xerr=[[below], [above]], color="#1b2a3a", capsize=3
                )
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{title}, {unit}", fontsize=9, loc="left")
        panel.set_xlim(left=0)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, format="svg", metadata={"Date": None})
