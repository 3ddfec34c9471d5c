"""What `sykube slurm image` and `sykube bench image` have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sykube.cli import context
from sykube.cluster.operations import debian_image
from sykube.host import identity
from sykube.host.files import require_place
from sykube.image.debian_image import Recipe

MIRROR = click.option(
    "--mirror", default="", metavar="URL",
    help="Debian mirror. [default: SYKUBE_MIRROR, or apt's own]",
)  # fmt: skip
YES = click.option(
    "--yes", "-y", is_flag=True, help="Install missing Debian packages without asking."
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what `show` takes."""
    force = click.option(
        "--force", is_flag=True, help="Build it again with Debian's newest packages."
    )
    return force(MIRROR(YES(context.output_option(context.common(command)))))


def show(
    recipe: Recipe,
    *,
    force: bool,
    mirror: str,
    yes: bool,
    output: str,
    archive: Path | None = None,
) -> None:
    """Build an image, unless it is cached, and print its file.

    Args:
        archive: a file that is written for clusters that run no SIF.
    """
    identity.check(context.host())
    if archive:
        require_place(archive)
    host, ui = context.host(), context.ui()
    found = debian_image.obtain(
        host, recipe, mirror, lambda question: yes or context.ask(question), ui, force=force
    )
    described = {
        "image": found.name,
        "file": str(found.archive),
        "bytes": found.archive.stat().st_size,
    }
    if archive:
        with debian_image.converted(host, found, ui) as made:
            context.give_back_umask()
            debian_image.save(host, made, archive)
        described["archive"] = str(archive)
        ui.say(f"{archive} is {found.name}, as `kind load image-archive` and others take it.")
    context.show(output, described, [str(found.archive)])
