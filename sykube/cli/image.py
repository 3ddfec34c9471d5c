"""sykube image load, list and delete"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sykube.cli import context, logfile
from sykube.cluster.commands import images
from sykube.cluster.commands.images import Listed

_NODE = click.option(
    "--node", "nodes", multiple=True, metavar="NODE",
    help="Only this node; may be repeated. [default: all]",
)  # fmt: skip
_STDIN = Path("/dev/stdin")


@click.group()
def image() -> None:
    """Manage container images in the nodes."""


@image.command()
@context.named
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE..."
)
@_NODE
@click.option(
    "--as", "wanted", default="", metavar="NAME:TAG",
    help="Name for the image, instead of the one in the file.",
)  # fmt: skip
@context.output_option
@context.common
def load(
    name: str, sources: tuple[Path, ...], nodes: tuple[str, ...], wanted: str, output: str
) -> None:
    """Load images from Docker archives, OCI archives, OCI layouts or SIF files (- is stdin)."""
    logfile.open_for(name)
    files = [_STDIN if str(each) == "-" else each.absolute() for each in sources]
    found = images.load(context.host(), name, files, nodes, wanted, context.ui())
    if output == "json":
        context.emit([_described(each, loaded=each.loaded, present=each.present) for each in found])
        return
    for each in found:
        if each.loaded:
            context.ui().say(f"{', '.join(each.loaded)}: {each.name} is loaded.")
        if each.name.endswith(":latest"):
            context.ui().say(
                f"Pods that run {each.name} need imagePullPolicy: IfNotPresent, "
                "as its tag is latest."
            )


@image.command("list")
@context.named
@context.output_option
@context.common
def list_images(name: str, output: str) -> None:
    """List the images in the nodes."""
    found = images.listing(context.host(), name, context.ui())
    width = max((len(each.name) for each in found), default=0)
    lines = (
        f"{each.name or '-':{width}}  {each.id.removeprefix('sha256:')[:12]}  "
        f"{each.size / 1_000_000:8.1f} MB  {', '.join(each.nodes)}"
        for each in found
    )
    context.show(output, [_described(each, nodes=each.nodes) for each in found], lines)


@image.command()
@context.named
@click.argument("wanted", metavar="IMAGE")
@_NODE
@context.output_option
@context.common
def delete(name: str, wanted: str, nodes: tuple[str, ...], output: str) -> None:
    """Delete an image by its name or ID (sha256:…)."""
    logfile.open_for(name)
    had = images.delete(context.host(), name, wanted, nodes, context.ui())
    if output == "json":
        context.emit(had)
        return
    context.ui().say(f"{', '.join(had)}: {wanted} is removed.")


def _described(each: images.Loaded | Listed, **nodes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "image": each.name,
        "id": each.id,
        "digest": each.digest,
        "bytes": each.size,
        **{key: list(value) for key, value in nodes.items()},
    }
