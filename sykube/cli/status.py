"""sykube status and list"""

from __future__ import annotations

import click

from sykube.cli import context
from sykube.cluster import lifecycle
from sykube.cluster import status as cluster_status
from sykube.cluster.state import clusters
from sykube.host import preflight


@click.command()
@context.named
@context.output_option
@context.common
@click.pass_context
def status(ctx: click.Context, name: str, output: str) -> None:
    """Say how the cluster is: exit code 0 only when all of it is well."""
    preflight.check_identity()
    found = cluster_status.look(lifecycle.load(name, context.ui()))
    if output == "json":
        context.emit(found.to_dict())
    else:
        click.echo(f"cluster {name}: {found.summary}")
        for node in found.nodes:
            click.echo(f"  {node.name:8} {node.address:15} {node.summary}")
        for what, problem in (("API server", found.api), ("DNS", found.dns)):
            click.echo(f"  {what}: {problem or 'well'}")
    ctx.exit(found.exit_code)


@click.command("list")
@context.output_option
@context.common
def list_clusters(output: str) -> None:
    """Name the clusters on this host."""
    preflight.check_identity()
    if output == "json":
        context.emit(clusters())
        return
    for name in clusters():
        click.echo(name)
