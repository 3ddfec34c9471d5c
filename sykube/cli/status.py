"""sykube status and list"""

from __future__ import annotations

from dataclasses import asdict

import click

from sykube.cli import context
from sykube.cluster.commands import status as cluster_status
from sykube.cluster.commands.status import Status
from sykube.cluster.model import lookup
from sykube.errors import ExitCode
from sykube.host import identity


@click.command()
@context.named
@context.output_option
@context.common
@click.pass_context
def status(ctx: click.Context, name: str, output: str) -> None:
    """Show the state of the cluster; exit code 0 only when everything is healthy."""
    found = cluster_status.collect(lookup.load(context.host(), name, context.ui()))
    if output == "json":
        context.emit(found.to_dict())
    else:
        _show(found)
    ctx.exit(found.exit_code)


def _show(found: Status) -> None:
    click.echo(f"cluster {found.name}: {found.summary} (Kubernetes {found.kubernetes})")
    for node in found.nodes:
        services = ", ".join(
            f"{name} {state.lower()}" for name, state in sorted(node.services.items())
        )
        size = f"{node.disk_mb:6} MB"
        click.echo(f"  {node.name:8} {node.address:15} {size}  {node.version:8}  {node.summary}")
        if services:
            click.echo(f"  {'':8} {services}")
    if found.exit_code is not ExitCode.STOPPED:
        for what, problem in found.parts.items():
            click.echo(f"  {what}: {problem or 'healthy'}")
    if found.update:
        click.echo(f"  update: {found.update}")
    if found.job:
        click.echo(f"  job: {found.job}")
    if found.stops:
        click.echo(f"  stops by itself: {found.stops}")
    if found.policies:
        click.echo(f"  network policies: {found.policies}")
    if found.certificates:
        context.ui().warn(found.certificates)


@click.command("list")
@context.output_option
@context.common
def list_clusters(output: str) -> None:
    """List the clusters on this host."""
    identity.check(context.host())
    found = cluster_status.glances(context.host(), context.ui())
    lines = (f"{e.name:20} {e.state:10} {e.nodes:3} nodes  {e.kubernetes}" for e in found)
    context.show(output, [asdict(each) for each in found], lines)
