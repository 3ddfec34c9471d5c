"""sykube version"""

from __future__ import annotations

from importlib.metadata import version as installed_version

import click

from sykube.cli import context
from sykube.image import versions


@click.command()
@context.output_option
@context.common
def version(output: str) -> None:
    """Print the versions of sykube and of its default Kubernetes."""
    found = {
        "sykube": installed_version("sykube"),
        "kubernetes": versions.DEBIAN.kubernetes_version,
    }
    context.show(output, found, (f"{what} {text}" for what, text in found.items()))
