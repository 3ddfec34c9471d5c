"""sykube node-image"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from sykube.cli import context
from sykube.cluster import archive, lifecycle
from sykube.cluster.lifecycle import InitOptions
from sykube.cluster.spec_reader import make_spec
from sykube.cluster.state import State, clusters
from sykube.host import preflight
from sykube.host.paths import LOGS, ClusterPaths
from sykube.image import build as image_build
from sykube.image.node_image import NodeImage


@click.group("node-image")
def node_image() -> None:
    """Build and keep the images that nodes are started from."""


@node_image.command()
@click.option("--force", is_flag=True, help="Build anew, with Debian's newest packages.")
@click.option(
    "--output-file",
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also copy the image there, for `init --local-image FILE` elsewhere.",
)
@click.option("--mirror", metavar="URL", help="Debian mirror, instead of the host's own.")
@click.option("--yes", "-y", is_flag=True, help="Install missing Debian packages without asking.")
@context.output_option
@context.common
def build(force: bool, file: Path | None, mirror: str | None, yes: bool, output: str) -> None:
    """Build the node image; nothing is done where it is in the cache."""
    preflight.check_identity()
    ui = context.ui()
    ui.open_log(LOGS / "node-image.log")
    spec = make_spec(None, {"mirror": mirror})
    lifecycle.prepare_host(spec, InitOptions(yes=yes, ask=context.ask), ui, building=True)
    engine = lifecycle.find_engine(spec, ui)
    image = lifecycle.node_image(spec, engine, ui, force=force)
    if file:
        with ui.step(f"Copying it to {file}"):
            shutil.copyfile(image.sif, file)
    if output == "json":
        context.emit(_describe(image))
    else:
        click.echo(image.sif)


@node_image.command("list")
@context.output_option
@context.common
def list_images(output: str) -> None:
    """List the node images in the cache."""
    images = image_build.list_images()
    if output == "json":
        context.emit([_describe(image) for image in images])
        return
    for image in images:
        size = image.size // 1_000_000
        click.echo(f"{image.fingerprint}  {image.versions()['kubernetes']}  {size} MB  {image.sif}")


@node_image.command()
@click.option("--all", "everything", is_flag=True, help="Also the newest one.")
@context.common
def prune(everything: bool) -> None:
    """Remove images that no cluster and no snapshot uses, but for the newest one."""
    preflight.check_identity()
    states = [State.load(ClusterPaths(name).state) for name in clusters()]
    used = {state.image for state in states if state} | archive.images()
    newest = set() if everything else {image.fingerprint for image in image_build.list_images()[:1]}
    for path in image_build.prune(frozenset(used | newest)):
        click.echo(path)


def _describe(image: NodeImage) -> dict[str, object]:
    return {
        "fingerprint": image.fingerprint,
        "file": str(image.sif),
        "bytes": image.size,
        "versions": image.versions(),
        "containerImages": image.container_images(),
    }
