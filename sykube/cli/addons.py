"""sykube addons list, enable and disable"""

from __future__ import annotations

from dataclasses import asdict

import click

from sykube.cli import completion, context, logfile
from sykube.cluster.commands import addons as cluster_addons
from sykube.cluster.model import lookup

_ADDON = click.argument("addon", metavar="ADD-ON", shell_complete=completion.addons)


@click.group()
def addons() -> None:
    """Optional parts of a cluster: metrics, a registry …"""


@addons.command("list")
@context.named
@context.output_option
@context.common
def list_addons(name: str, output: str) -> None:
    """List add-ons and whether they are enabled."""
    found = cluster_addons.listing(lookup.load(context.host(), name, context.ui()))
    lines = (f"{e.name:15} {'on' if e.enabled else 'off':4} {e.summary}" for e in found)
    context.show(output, [asdict(each) for each in found], lines)


@addons.command()
@context.named
@_ADDON
@context.common
def enable(name: str, addon: str) -> None:
    """Enable an add-on and wait until it works."""
    logfile.open_for(name)
    done = cluster_addons.enable(context.host(), name, addon, context.ui())
    context.ui().say(f"{addon} is on." if done else f"{addon} is on already.")


@addons.command()
@context.named
@_ADDON
@context.common
def disable(name: str, addon: str) -> None:
    """Disable an add-on; users' data is kept."""
    logfile.open_for(name)
    done = cluster_addons.disable(context.host(), name, addon, context.ui())
    context.ui().say(f"{addon} is off." if done else f"{addon} is off already.")
