"""sykube node-image"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from sykube.cli import completion, context, options
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.model.state import State, clusters
from sykube.cluster.operations import archive, preparation, site_network
from sykube.cluster.operations.kubernetes_release import choose
from sykube.errors import UsageError
from sykube.host import belonging, engines, identity
from sykube.host.paths import ClusterPaths
from sykube.image import build as image_build
from sykube.image import bundle, downloads, local, signature
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.rootless import unpacked


@click.group("node-image")
def node_image() -> None:
    """Build, sign and verify the images that nodes are started from."""


@node_image.command()
@click.option("--force", is_flag=True, help="Rebuild it with Debian's newest packages.")
@click.option(
    "--output-file", "--file", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="Also copy the image to this file, for `init --local-image FILE` elsewhere.",
)  # fmt: skip
@options.of_cluster("mirror", *options.KUBERNETES, *options.SITE)
@click.option("--yes", "-y", is_flag=True, help="Install missing Debian packages without asking.")
@context.output_option
@context.common
def build(force: bool, file: Path | None, yes: bool, output: str, **flags: Any) -> None:
    """Build the node image, unless it is cached."""
    identity.check(context.host())
    ui = context.ui()
    ui.open_log(context.host().logs / "node-image.log")
    spec = make_spec(context.host(), None, flags)
    release = choose(
        context.host(), spec, ui, authorities=site_network.authorities(spec.ca_certificates)
    )
    ui.say(release.choice.introduction)
    preparation.prepare_host(
        context.host(),
        spec,
        lambda question: yes or context.ask(question),
        ui,
        building=True,
        starting=False,
    )
    engine = preparation.find_engine(context.host(), spec, ui)
    image = preparation.node_image(context.host(), spec, engine, release, ui, force=force)
    if file:
        with ui.step(f"Copying it to {file}"):
            shutil.copyfile(image.sif, file)
    context.show(output, _describe(image), [str(image.sif)])


@node_image.command()
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completion.files)
@context.signing_key
@context.common
def sign(file: Path, key: str) -> None:
    """Sign an image file with your own key."""
    local.require_trust(context.host(), file, trusted=True)
    if context.host().cache.resolve() in file.resolve().parents:
        raise UsageError(
            f"{file} is in sykube's cache, where images stay as they are",
            resolution="Make a signed copy: sykube bundle save FILE",
        )
    engine = engines.find_for_files(context.host())
    builder = Builder(engine.binary, engine.environment)
    chosen = signature.signing_key(context.host(), key, builder)
    bundle.sign(context.host(), file.resolve(), chosen, builder)
    click.echo(chosen.fingerprint)


@node_image.command()
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completion.files)
@options.option("fingerprint", required=True)
@options.option("public_key")
@context.common
def verify(file: Path, **flags: str | None) -> None:
    """Verify that all of an image file is signed by a key that you trust."""
    local.require_trust(context.host(), file, trusted=True)
    trust = make_spec(context.host(), None, flags).trust
    if trust is None:
        raise UsageError("--fingerprint is empty", resolution="Name the key that you trust.")
    engine = engines.find_for_files(context.host())
    signature.verify(
        context.host(), file.absolute(), trust, Builder(engine.binary, engine.environment)
    )
    click.echo(f"{file}: signed by {trust.fingerprint}")


@node_image.command("list")
@context.output_option
@context.common
def list_images(output: str) -> None:
    """List cached node images."""
    images = image_build.list_images(context.host())
    lines = (
        f"{each.fingerprint}  {each.versions()['kubernetes']}  {each.size // 1_000_000} MB  "
        f"{each.sif}"
        for each in images
    )
    context.show(output, [_describe(image) for image in images], lines)


@node_image.command()
@click.option("--all", "everything", is_flag=True, help="Remove the newest one, too.")
@context.common
def prune(everything: bool) -> None:
    """Remove downloads, and images that no cluster or snapshot uses, except the newest."""
    identity.check(context.host())
    host = context.host()
    belonging.require_no_others(host, "these images")
    states = [State.load(ClusterPaths(host, name).state) for name in clusters(host)]
    kept = {image for state in states if state for image in state.images} | archive.images(host)
    if not everything:
        kept |= {image.fingerprint for image in image_build.list_images(host)[:1]}
    removed = image_build.prune(host, frozenset(kept)) + unpacked.prune(host, frozenset(kept))
    for path in removed + downloads.prune(host):
        click.echo(path)


def _describe(image: NodeImage) -> dict[str, object]:
    return {
        "fingerprint": image.fingerprint,
        "file": str(image.sif),
        "bytes": image.size,
        "source": image.source,
        "versions": image.versions(),
        "containerImages": image.container_images(),
    }
