"""sykube version"""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Any

import click

from sykube.cli import context
from sykube.cluster.model.state import State
from sykube.host.paths import ClusterPaths
from sykube.image import versions


@click.command()
@context.named
@context.output_option
@context.common
def version(name: str, output: str) -> None:
    """Print the versions of sykube, of its default Kubernetes, and of a cluster's programs."""
    found: dict[str, Any] = {
        "sykube": installed_version("sykube"),
        "kubernetes": versions.DEBIAN.kubernetes_version,
    }
    lines = [f"{what} {text}" for what, text in found.items()]
    state = State.load(ClusterPaths(context.host(), name).state)
    if state:
        found["cluster"] = {"name": name, "versions": state.versions}
        lines += [f"cluster {name}: {what} {text}" for what, text in state.versions.items()]
    context.show(output, found, lines)
