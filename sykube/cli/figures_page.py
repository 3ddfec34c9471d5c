"""A result of `sykube bench` as one HTML file, which works without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
import markupsafe
from matplotlib.figure import Figure

from sykube import bench
from sykube.bench import judging, plots
from sykube.bench.results import Result, keep
from sykube.cli import figures


def page(result: Result) -> str:
    """The page: a panel for each measure, its curves, the table, what they depend on."""
    compared = figures.compared(result)
    tables = [
        (
            f"{measure.title}, {measure.unit}",
            [
                (place, figures.shown(values), compared.get((what, place)))
                for place, values in measure.values.items()
            ],
        )
        for what, measure in result.measures.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(bench.__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
    )
    return environment.get_template("page.html.j2").render(
        kind=result.kind,
        base=result.base,
        pictures=[_picture(plots.svg(figure)) for figure in drawn(result).values()],
        tables=tables,
        notes=[*figures.notes(result)],
    )


def drawn(result: Result) -> dict[str, Figure]:
    """What is drawn of a result: `medians`, a panel for each measure, and each of its curves."""
    places = [*dict.fromkeys(place for each in result.measures.values() for place in each.values)]
    titles = {what: (measure.title, measure.unit) for what, measure in result.measures.items()}
    estimates = {
        place: {
            what: judging.estimate(measure.values[place]) if place in measure.values else None
            for what, measure in result.measures.items()
        }
        for place in places
    }
    curves = {name: plots.lines(each) for name, each in result.curves.items()}
    return {"medians": plots.panels(titles, estimates), **curves}


def write_plots(
    result: Result, folder: Path, prefix: str = "", kinds: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write what is drawn of a result into a folder, as these kinds of files, which it returns.

    Raises:
        UsageError: a file cannot be written.
    """
    files = []
    for name, figure in drawn(result).items():
        for kind in kinds:
            file = folder / f"{prefix}{name}.{kind}"
            keep(plots.png(figure) if kind == "png" else plots.svg(figure), file)
            files.append(file)
    return files


def _picture(svg: str) -> markupsafe.Markup:
    # Without what an SVG file begins with, of which HTML has no use.
    return markupsafe.Markup(svg[svg.index("<svg") :])
