"""sykube bench: what runs cost on this machine."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sykube.bench.messages import BROKERS, SMALLEST
from sykube.cli import completion, context, debian_image, extras, logfile
from sykube.errors import UsageError
from sykube.host.files import require_place
from sykube.image import hpcc as image_of_hpcc
from sykube.image import stream as image_of_stream

if TYPE_CHECKING:
    from sykube.bench.hpcc_input import Shape
    from sykube.bench.results import Result

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%?", re.ASCII)


def _margin(_ctx: click.Context, _parameter: click.Parameter, value: str) -> float:
    match = _PERCENT.fullmatch(value)
    if not match or not 0 < float(match[1]) <= 50:
        raise click.BadParameter(f"{value!r} is no part between 0 and 50 %, such as 2%")
    return float(match[1]) / 100


_MARGIN = click.option(
    "--margin", default="2%", show_default=True, callback=_margin, metavar="PERCENT",
    help="What counts as equal.",
)  # fmt: skip


@click.group()
def bench() -> None:
    """Measure what containers and pods cost on this machine, with statistics that hold."""


def _measured(command: Callable[..., Result]) -> click.Command:
    """A command that measures in a cluster, and shows and keeps what it has found."""

    @bench.command()
    @context.named
    @click.option(
        "--runs",
        type=click.IntRange(3, 1000),
        default=10,
        show_default=True,
        metavar="N",
        help="Number of blocks, in each of which every place has its turn.",
    )
    @_MARGIN
    @click.option(
        "--save",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        shell_complete=completion.files,
        help="Write all figures: .json or .csv. May be repeated.",
    )
    @click.option(
        "--html",
        type=click.Path(path_type=Path),
        metavar="FILE",
        shell_complete=completion.files,
        help="Write a page with plots, which works without a network.",
    )
    @click.option(
        "--plots",
        "plots_folder",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        metavar="DIR",
        help="Write the plots into this folder, as SVG and as PNG.",
    )
    @click.option("--anyway", is_flag=True, help="Measure also while the machine is busy.")
    @context.output_option
    @context.common
    @functools.wraps(command)
    def wrapper(
        *,
        name: str,
        save: tuple[Path, ...],
        html: Path | None,
        plots_folder: Path | None,
        output: str,
        **asked: Any,
    ) -> None:
        _require_installed()
        for file in save:
            if file.suffix.lower() not in (".json", ".csv"):
                named = "Name it .json or .csv."
                raise UsageError(f"{file}: figures are JSON or CSV", resolution=named)
            require_place(file)
        if html:
            _require_page(html)
        if html or plots_folder:
            extras.require("sykube.bench.plots", "plots", "matplotlib")
        # What it needs may not be installed.
        from sykube.bench import results
        from sykube.cli import figures

        logfile.open_for(name)
        result = command(name=name, **asked)
        context.give_back_umask()
        for file in save:
            results.write(result, file)
        if html or plots_folder:
            # An extra: whoever only wants figures needs no matplotlib.
            from sykube.cli import figures_page

            if html:
                results.keep(figures_page.page(result), html)
            if plots_folder:
                figures_page.write_plots(result, plots_folder)
        context.show(output, result.described(), figures.lines(result))

    return wrapper


@_measured
@click.option("--runtime", "places", multiple=True, metavar="RUNTIME",
              help="RuntimeClass to measure; the first is what others are compared to. "
              "May be repeated. [default: all]")  # fmt: skip
@click.option("--pods", type=click.IntRange(1, 200), default=10, show_default=True, metavar="N",
              help="Number of pods that are started at once.")  # fmt: skip
def start(name: str, **asked: Any) -> Result:
    """Measure how fast pods start and stop under each container runtime."""
    # What it needs may not be installed.
    from sykube.cluster.commands.bench import start as measuring

    return measuring.measure(context.host(), name, context.ui(), **asked)


@_measured
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.5, show_default=True,
              metavar="S", help="Seconds of each measurement of throughput.")  # fmt: skip
@click.option("--context", "others", multiple=True, metavar="NAME",
              help="Measure pods of this cluster of your kubeconfig, too. "
              "May be repeated.")  # fmt: skip
@click.option("--image", default="", metavar="REFERENCE",
              help="Image of the pods of --context, with python3, which their clusters have or can "
              "pull. [default: that of `sykube bench image stream`]")  # fmt: skip
def network(name: str, **asked: Any) -> Result:
    """Measure how fast pods talk to each other, beside two processes of this host."""
    # What it needs may not be installed.
    from sykube.cluster.commands.bench import network as measuring

    return measuring.measure(context.host(), name, context.ui(), **asked)


def _shapes(
    _ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Shape, ...]:
    # Above, it would be imported by commands that need none.
    from sykube.bench.hpcc_input import Shape

    try:
        return tuple(map(Shape.parse, values))
    except ValueError as error:
        example = "such as 4x1: four processes of one thread each"
        raise click.BadParameter(f"{str(error)!r} is no PROCESSESxTHREADS, {example}") from error


@_measured
@click.option("--place", "places", multiple=True, metavar="PLACE",
              help="Where to run it: host, exec (apptainer exec), or pods of a RuntimeClass; the "
              "first is what others are compared to. May be repeated. [default: all]")  # fmt: skip
@click.option("--shape", "shapes", multiple=True, callback=_shapes, metavar="PROCESSESxTHREADS",
              help="How many processes run, with how many threads each. May be repeated. "
              "[default: by the cores]")  # fmt: skip
@click.option("--size", "order", type=click.IntRange(100, 10_000_000), metavar="N",
              help="Order of HPL's matrix, from which other sizes follow; 2000 makes a short run. "
              "[default: a fifth of the free memory]")  # fmt: skip
@click.option("--input", "file", type=click.Path(path_type=Path), metavar="FILE",
              shell_complete=completion.files,
              help="Take this hpccinf.txt instead of one that is written.")  # fmt: skip
@debian_image.MIRROR
@debian_image.YES
def hpcc(
    name: str,
    places: tuple[str, ...],
    shapes: tuple[Shape, ...],
    order: int | None,
    file: Path | None,
    mirror: str,
    yes: bool,
    **asked: Any,
) -> Result:
    """Run HPC Challenge on this host, by apptainer exec, and in pods of each runtime."""
    # What it needs may not be installed.
    from sykube.cluster.commands.bench import hpcc as measuring

    wanted = measuring.Wanted(places, shapes, order or 0, file, mirror)

    def agrees(question: str) -> bool:
        return yes or context.ask(question)

    return measuring.measure(context.host(), name, context.ui(), agrees, wanted=wanted, **asked)


@_measured
@click.option("--place", "places", multiple=True, metavar="PLACE",
              help="Where to do it: host, exec (apptainer exec), or RUNTIME:pod, RUNTIME:node and "
              "RUNTIME:nodes for pods of a RuntimeClass; RUNTIME for all three. The first is what "
              "others are compared to. May be repeated. [default: all]")  # fmt: skip
@click.option("--messages", type=click.IntRange(10, 100_000_000), default=1000, show_default=True,
              metavar="N", help="Number of messages of each run.")  # fmt: skip
@click.option("--warm-up", type=click.IntRange(1, 100_000_000), default=200, show_default=True,
              metavar="N", help="Number of messages before them, shown apart.")  # fmt: skip
@click.option("--rate", type=click.IntRange(1, 1_000_000), default=100, show_default=True,
              metavar="N", help="Messages a second.")  # fmt: skip
@click.option("--size", type=click.IntRange(SMALLEST, 1_000_000), default=1024, show_default=True,
              metavar="BYTES", help="Bytes of each message.")  # fmt: skip
@click.option("--broker", type=click.Choice(BROKERS), default=BROKERS[0], show_default=True,
              help="What messages go through.")  # fmt: skip
@click.option("--fsync", is_flag=True,
              help="Have each message on the disk before the broker hands it on.")  # fmt: skip
@click.option("--sweep", is_flag=True,
              help="Look for the rate at which the consumer falls behind, too.")  # fmt: skip
@click.option("--context", "contexts", multiple=True, metavar="NAME",
              help="Measure pods of this cluster of your kubeconfig, too: NAME:pod, NAME:node and "
              "NAME:nodes. May be repeated.")  # fmt: skip
@click.option("--image", default="", metavar="REFERENCE",
              help="Image of the pods of --context, which their clusters have or can pull. "
              "[default: the name that the SIF has in nodes]")  # fmt: skip
@debian_image.MIRROR
@debian_image.YES
def stream(
    name: str,
    places: tuple[str, ...],
    messages: int,
    warm_up: int,
    rate: int,
    size: int,
    broker: str,
    fsync: bool,
    sweep: bool,
    contexts: tuple[str, ...],
    image: str,
    mirror: str,
    yes: bool,
    **asked: Any,
) -> Result:
    """Measure how long messages take through a broker, on this host and in containers."""
    # What it needs may not be installed.
    from sykube.cluster.commands.bench import stream as measuring
    from sykube.cluster.commands.bench.stream_wanted import Wanted

    wanted = Wanted(
        places, messages, warm_up, rate, size, broker, fsync, sweep, mirror, contexts, image
    )

    def agrees(question: str) -> bool:
        return yes or context.ask(question)

    return measuring.measure(context.host(), name, context.ui(), agrees, wanted=wanted, **asked)


_RECIPES = {"hpcc": image_of_hpcc.RECIPE, "stream": image_of_stream.RECIPE}


@bench.command()
@click.argument("what", type=click.Choice([*_RECIPES]), default="hpcc")
@click.option("--archive", type=click.Path(path_type=Path), metavar="FILE",
              shell_complete=completion.files,
              help="Write it as an OCI archive, too, for other clusters.")  # fmt: skip
@debian_image.options
def image(what: str, **asked: Any) -> None:
    """Build the image of HPC Challenge or of a message broker, and print its file, a SIF.

    One that is cached is not built again. WHAT is hpcc, which is the default, or stream.
    """
    debian_image.show(_RECIPES[what], **asked)


@bench.command()
@click.argument("before", type=click.Path(path_type=Path), shell_complete=completion.files)
@click.argument("after", type=click.Path(path_type=Path), shell_complete=completion.files)
@_MARGIN
@context.common
def compare(before: Path, after: Path, margin: float) -> None:
    """Compare two results that --save has written: of two machines, versions, or days."""
    _require_installed()
    # What it needs may not be installed.
    from sykube.bench import results
    from sykube.cli import figures

    for line in figures.beside(results.read(before), results.read(after), margin):
        click.echo(line)


def _require_page(file: Path) -> None:
    """Refuse what no page could be written to.

    Raises:
        UsageError: the file has another ending, or no folder.
    """
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{file}: pages are HTML", resolution="Name it .html.")
    require_place(file)


def _require_installed() -> None:
    """Refuse to measure what could not be judged.

    Raises:
        HostError: numpy or scipy is not there.
    """
    extras.require("sykube.bench.judging", "figures", "numpy", "scipy")
