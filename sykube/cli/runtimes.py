"""sykube runtimes"""

from __future__ import annotations

from dataclasses import asdict

import click

from sykube.cli import context
from sykube.cluster.commands import runtimes as cluster_runtimes
from sykube.cluster.commands.runtimes import Listed
from sykube.cluster.model import lookup


@click.command()
@context.named
@context.output_option
@context.common
def runtimes(name: str, output: str) -> None:
    """List what pods can run in, with versions, and why some cannot be had."""
    found = cluster_runtimes.listing(lookup.load(context.host(), name, context.ui()))
    context.show(output, [asdict(each) for each in found], map(_line, found))


def _line(each: Listed) -> str:
    if each.lacking:
        state = f"not here: {each.lacking}"
    else:
        state = f"since {each.since}" if each.since else "since when is not known: no answer"
    if each.options:
        state += f"; pods may ask for {', '.join(each.options)}"
    mark = "default" if each.default else ""
    return f"{each.name:10} {each.version or '-':20} {mark:8} {each.summary}; {state}"
