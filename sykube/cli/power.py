"""sykube stop, start, restart, pause and unpause"""

from __future__ import annotations

import click

from sykube.cli import context, logfile
from sykube.cluster.commands import power
from sykube.cluster.commands.power import StopOptions

_grace = click.option(
    "--grace", type=click.IntRange(0, 3600), default=10, show_default=True, metavar="SECONDS",
    help="Time that pods get to end by themselves.",
)  # fmt: skip


@click.command()
@context.named
@_grace
@click.option("--drain", is_flag=True, help="Evict the workers' pods first (kubectl drain).")
@click.option(
    "--drain-timeout", type=click.IntRange(1), default=120, show_default=True, metavar="SECONDS",
    help="Time limit for draining each worker.",
)  # fmt: skip
@context.common
def stop(name: str, grace: int, drain: bool, drain_timeout: int) -> None:
    """Stop all nodes cleanly; `start` brings everything back."""
    logfile.open_for(name)
    stopped = power.stop(
        context.host(), name, StopOptions(grace, drain, drain_timeout), context.ui()
    )
    context.ui().say(f"The cluster {name} {'is stopped' if stopped else 'was stopped already'}.")


@click.command()
@context.named
@context.timings_option
@context.common
def start(name: str, timings: bool) -> None:
    """Start or repair a stopped, rebooted or damaged cluster; wait until it is healthy."""
    logfile.open_for(name)
    with context.timed(shown=timings) as host:
        started = power.start(host, name, context.ui())
    context.ui().say(f"The cluster {name} is up{'' if started else ', as it was'}.")


@click.command()
@context.named
@_grace
@context.common
def restart(name: str, grace: int) -> None:
    """Stop the cluster and start it again."""
    logfile.open_for(name)
    power.stop(context.host(), name, StopOptions(grace, restart=True), context.ui())
    power.start(context.host(), name, context.ui())
    context.ui().say(f"The cluster {name} is up.")


@click.command()
@context.named
@context.common
def pause(name: str) -> None:
    """Freeze all processes of the cluster: they keep their memory but use no CPU."""
    logfile.open_for(name)
    power.pause(context.host(), name, context.ui())
    context.ui().say(f"The cluster {name} is paused.")


@click.command()
@context.named
@context.common
def unpause(name: str) -> None:
    """Resume a paused cluster."""
    logfile.open_for(name)
    power.unpause(context.host(), name, context.ui())
    context.ui().say(f"The cluster {name} goes on.")
