"""sykube update"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from sykube.cli import context, logfile, options
from sykube.cluster.commands.update.nodes import UpdateOptions
from sykube.cluster.commands.update.update import update as update_cluster
from sykube.cluster.model.spec_reader import make_spec


@click.command()
@context.named
@options.of_cluster(*options.KUBERNETES, "allow_cgroup_v1", *options.SITE, "mirror", *options.IMAGE)
@click.option(
    "--drain-timeout", type=click.IntRange(1), default=300, show_default=True, metavar="SECONDS",
    help="Time limit for draining each node.",
)  # fmt: skip
@click.option("--yes", "-y", is_flag=True, help="Install missing packages without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@context.output_option
@context.common
def update(
    name: str, drain_timeout: int, yes: bool, dry_run: bool, output: str, **flags: Any
) -> None:
    """Update the cluster to a newer Kubernetes, or to a newer build of its node image.

    Without --kubernetes-version, it is the newest patch release of the cluster's minor version, or,
    with Debian's Kubernetes, what this sykube builds. Control planes are updated first, then
    workers, one by one; each is drained before it restarts. Run it again to resume an update.
    """
    ui = context.ui()
    if not dry_run:
        logfile.open_for(name)
    wish = make_spec(context.host(), None, {**flags, "name": name})
    how = UpdateOptions(drain_timeout=drain_timeout, yes=yes, ask=context.ask)
    found = update_cluster(context.host(), name, wish, how, ui, dry_run=dry_run)
    if output == "json":
        context.emit({"name": name, **asdict(found), "seconds": ui.timings.seconds()})
        return
    if dry_run and found.changed:
        click.echo(f"{found.before} → {found.after}")
        for line in found.steps:
            click.echo(f"  {line}")
    elif found.changed:
        ui.say(f"The cluster {name} runs Kubernetes {found.after}.")
    else:
        ui.say(f"The cluster {name} is up to date: Kubernetes {found.after}.")
