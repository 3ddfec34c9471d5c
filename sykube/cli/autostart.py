"""sykube autostart enable and disable"""

from __future__ import annotations

import click

from sykube.cli import context, logfile
from sykube.cluster.commands import autostart as unit


@click.group()
def autostart() -> None:
    """Start the cluster at boot and stop it cleanly at shutdown, by systemd."""


@autostart.command()
@context.named
@context.common
def enable(name: str) -> None:
    """Start the cluster whenever the host boots."""
    logfile.open_for(name)
    booted = unit.enable(context.host(), name, context.ui())
    context.ui().say(
        f"The cluster {name} starts with the host: {unit.unit_of(context.host(), name)}"
    )
    logout = context.host().grants.logout
    if logout and not logout.lingers:
        context.ui().warn(f"you do not linger: it starts at your first login. {logout.cure}")
    if not booted:
        context.ui().warn("systemd does not run here; the unit has its effect where it does")


@autostart.command()
@context.named
@context.common
def disable(name: str) -> None:
    """Do not start the cluster when the host boots."""
    logfile.open_for(name)
    was = unit.disable(context.host(), name, context.ui())
    context.ui().say(
        f"The cluster {name} {'no longer starts' if was else 'did not start'} with the host."
    )
