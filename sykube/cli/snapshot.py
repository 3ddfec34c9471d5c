"""sykube snapshot"""

from __future__ import annotations

import click

from sykube.cli import completion, context, logfile
from sykube.cluster.commands import snapshots
from sykube.cluster.operations import archive
from sykube.errors import SykubeError
from sykube.host import identity


@click.group()
def snapshot() -> None:
    """Save stopped clusters, and restore them."""


@snapshot.command()
@click.argument("snapshot_name", metavar="[SNAPSHOT]", default="")
@context.named
@context.output_option
@context.common
def save(snapshot_name: str, name: str, output: str) -> None:
    """Save a stopped cluster with everything in it."""
    logfile.open_for(name)
    saved = snapshots.save(context.host(), name, snapshot_name, context.ui())
    context.show(output, _describe(saved), [saved.name])


@snapshot.command("list")
@context.output_option
@context.common
def list_snapshots(output: str) -> None:
    """List the snapshots on this host."""
    identity.check(context.host())
    found = []
    for name in archive.names(context.host()):
        try:
            found.append(archive.find(context.host(), name))
        except SykubeError as error:
            context.ui().warn(f"{error.brief}: {error.details}")
    lines = (
        f"{e.name}  {e.cluster}  {e.created}  {e.size / 1_000_000:.1f} MB  {e.kubernetes}"
        for e in found
    )
    context.show(output, [_describe(each) for each in found], lines)


@snapshot.command()
@click.argument("snapshot_name", metavar="SNAPSHOT", shell_complete=completion.snapshots)
@click.option("--yes", "-y", is_flag=True, help="Replace the existing cluster without asking.")
@context.common
def restore(snapshot_name: str, yes: bool) -> None:
    """Restore a cluster as it was, with its names and addresses, even if it was deleted."""
    identity.check(context.host())
    context.open_log(archive.find(context.host(), snapshot_name).cluster)
    cluster = snapshots.restore(
        context.host(), snapshot_name, lambda question: yes or context.ask(question), context.ui()
    )
    context.ui().say(
        f"The cluster {cluster.name} is restored. Start it: sykube start{cluster.name_option}"
    )


@snapshot.command()
@click.argument("snapshot_name", metavar="SNAPSHOT", shell_complete=completion.snapshots)
@context.common
def delete(snapshot_name: str) -> None:
    """Delete a snapshot; its cluster is kept."""
    identity.check(context.host())
    archive.remove(context.host(), snapshot_name)
    context.ui().say(f"The snapshot {snapshot_name} is deleted.")


def _describe(found: archive.Snapshot) -> dict[str, object]:
    return {
        "name": found.name,
        "cluster": found.cluster,
        "created": found.created,
        "bytes": found.size,
        "kubernetes": found.kubernetes,
    }
