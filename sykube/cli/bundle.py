"""sykube bundle"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from sykube.cli import completion, context, options
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.operations import preparation, site_network
from sykube.cluster.operations.kubernetes_release import choose
from sykube.errors import UsageError
from sykube.host import engines, identity
from sykube.host.files import require_place, write_atomically
from sykube.image import bundle as bundles
from sykube.image import signature
from sykube.image.build import Builder
from sykube.image.signature import SigningKey


@click.group()
def bundle() -> None:
    """Pack everything that init needs into one signed file, for air-gapped machines."""


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completion.files)
@context.signing_key
@click.option(
    "--export-key", type=click.Path(path_type=Path), metavar="FILE",
    help="Also write the public key to this file, for `init --public-key FILE`.",
)  # fmt: skip
@click.option("--unsigned", is_flag=True, help="Sign it later: sykube node-image sign FILE")
@options.of_cluster("mirror", *options.KUBERNETES, *options.SITE)
@click.option("--yes", "-y", is_flag=True, help="Install missing Debian packages without asking.")
@context.output_option
@context.common
def save(
    file: Path, key: str, export_key: Path | None, unsigned: bool, yes: bool, output: str,
    **flags: Any,
) -> None:  # fmt: skip
    """Write a bundle; build the node image first if it is not cached."""
    if unsigned and (key or export_key):
        raise UsageError(
            "--unsigned goes with neither --key nor --export-key",
            resolution="Leave out the one or the other.",
        )
    identity.check(context.host())
    require_place(file)
    ui = context.ui()
    ui.open_log(context.host().logs / "node-image.log")
    spec = make_spec(context.host(), None, flags)
    release = choose(
        context.host(), spec, ui, authorities=site_network.authorities(spec.ca_certificates)
    )
    ui.say(release.choice.introduction)
    building = release.cached_image() is None
    preparation.prepare_host(
        context.host(),
        spec,
        lambda question: yes or context.ask(question),
        ui,
        building=building,
        starting=False,
    )
    engine = preparation.find_engine(context.host(), spec, ui)
    builder = Builder(engine.binary, engine.environment)
    # Before an image is built for minutes.
    chosen = None if unsigned else signature.signing_key(context.host(), key, builder)
    image = preparation.node_image(context.host(), spec, engine, release, ui)
    ui.say(f"Writing {file}")
    bundles.save(context.host(), image, file.absolute(), chosen, builder)
    if chosen and export_key:
        write_atomically(export_key.absolute(), chosen.public)
    command = _init_command(file, chosen, export_key)
    if output == "json":
        context.emit(
            {
                "file": str(file.absolute()),
                "fingerprint": chosen.fingerprint if chosen else None,
                "versions": image.versions(),
                "init": command,
            }
        )
        return
    click.echo(file)
    ui.say(f"Signed by {chosen.fingerprint}" if chosen else "Not signed.")
    ui.say(f"On the other machine, as root:\n  {command}")
    if chosen and not export_key:
        ui.say(_how_to_export(engine, chosen))


def _init_command(file: Path, key: SigningKey | None, public: Path | None) -> str:
    words = ["sykube", "init", "--local-image", file.name]
    words += ["--fingerprint", key.fingerprint] if key else ["--no-verify"]
    words += ["--public-key", public.name] if public else []
    return shlex.join(words)


def _how_to_export(engine: engines.FoundEngine, key: SigningKey) -> str:
    if key.is_pem:
        return (
            "It needs the public key, too: --export-key FILE writes it, --public-key FILE takes it."
        )
    return (
        "Its key ring must have the public key; write it here with --export-key FILE, and there:\n"
        f"  {engine.binary.name} key import FILE"
    )
