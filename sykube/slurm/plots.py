"""The two figures of the paper (see efficiency.py), by matplotlib, which is the extra `plots`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sykube.slurm.efficiency import Survey

# Texts stay texts, and the same jobs give the same file.
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "sykube"}
_INK, _FILL, _MEAN = "#1b2a3a", "#9ab8d8", "#c4500f"
_LABEL = "CPU efficiency of a job (%)"
# More points than these are one picture in an SVG, which no program could show otherwise.
_MOST_POINTS = 5000
_PNG_DPI = 150
# How many of the jobs with the most impact have their number beside them.
_NAMED = 3


def box_plot(surveys: Sequence[Survey]) -> Figure:
    """Figure 1: the efficiencies of each cluster's jobs."""
    figure = Figure(figsize=(max(4.0, 1.5 + 1.5 * len(surveys)), 4.5), layout="constrained")
    axes: Axes = figure.subplots()
    drawn = axes.boxplot(
        [[job.percent for job in each.jobs] for each in surveys],
        tick_labels=[f"{each.name}\n{_jobs(len(each.jobs))}" for each in surveys],
        widths=0.5,
        patch_artist=True,
        showmeans=True,
        boxprops={"facecolor": _FILL, "edgecolor": _INK},
        medianprops={"color": _INK, "linewidth": 2},
        meanprops={"marker": "D", "markerfacecolor": _MEAN, "markeredgecolor": "white"},
        flierprops={
            "marker": ".", "markersize": 4, "markeredgecolor": _INK, "alpha": 0.5,
            "rasterized": _is_crowded(surveys),
        },
    )  # fmt: skip
    axes.legend(
        [drawn["medians"][0], drawn["means"][0]],
        ["median", "average"],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
    )
    axes.set_ylabel(_LABEL)
    axes.set_ylim(-3, _top(surveys))
    _clear(axes)
    return figure


def scatter_plot(surveys: Sequence[Survey]) -> Figure:
    """Figure 2: each job's efficiency, by its impact on the cluster."""
    columns = min(2, len(surveys))
    rows = -(-len(surveys) // columns)
    figure = Figure(figsize=(5.5 * columns, 4 * rows), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for panel in panels[len(surveys) :]:
        panel.set_visible(False)
    for panel, each in zip(panels, surveys, strict=False):
        panel.scatter(
            [job.impact_percent for job in each.jobs],
            [job.percent for job in each.jobs],
            s=14,
            color=_INK,
            alpha=0.45,
            linewidths=0,
            # Most jobs waste next to nothing, and are on the axis.
            clip_on=False,
            zorder=3,
            rasterized=_is_crowded(surveys),
        )
        worst = [job for job in each.worst(_NAMED) if job.impact_percent > 0]
        for job in worst:
            panel.annotate(
                job.job, (job.impact_percent, job.percent), (5, 4), textcoords="offset points",
                fontsize=8,
            )  # fmt: skip
        panel.set_title(f"{each.name}: {_jobs(len(each.jobs))}", loc="left", fontsize=10)
        panel.set_xlabel("CPU time that the job wasted, of all that was allocated (%)")
        panel.set_ylabel(_LABEL)
        panel.set_ylim(-3, _top(surveys))
        # Room for the numbers of jobs, and something to see where nobody wasted anything.
        panel.set_xlim(left=0, right=max([1.15 * job.impact_percent for job in worst], default=1))
        _clear(panel)
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a figure as its file's name says: .svg or .png.

    Raises:
        OSError: it cannot be written.
    """
    kind, made = file.suffix.lower().removeprefix("."), io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(
            made, format=kind, dpi=_PNG_DPI, metadata={"Date": None} if kind == "svg" else None
        )
    file.write_bytes(made.getvalue())


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _is_crowded(surveys: Sequence[Survey]) -> bool:
    return max(len(each.jobs) for each in surveys) > _MOST_POINTS


def _top(surveys: Sequence[Survey]) -> float:
    return max(103.0, *(1.03 * job.percent for each in surveys for job in each.jobs))


def _clear(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
