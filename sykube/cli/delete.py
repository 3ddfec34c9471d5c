"""sykube delete and uninstall"""

from __future__ import annotations

import contextlib
import shutil
import sys

import click

from sykube.cli import context
from sykube.cluster.commands import removal
from sykube.cluster.model import lookup
from sykube.cluster.model.state import clusters
from sykube.cluster.operations import archive
from sykube.errors import ExitCode, SykubeError
from sykube.host import belonging, identity


@click.command()
@context.named
@click.option("--all", "every", is_flag=True, help="Delete all clusters on this host.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@context.common
def delete(name: str, every: bool, yes: bool) -> None:
    """Delete a cluster and leave the host as it was; only logs are kept."""
    identity.check(context.host())
    if every:
        problems = _delete_all(yes)
    else:
        if lookup.exists(context.host(), name):
            context.open_log(name)
        problems = removal.delete(context.host(), name, context.ui())
    kept = [each for each in clusters(context.host()) if every or each == name]
    if problems and kept:
        raise SykubeError(
            f"not deleted: {', '.join(kept)}; what could not be removed is listed",
            details="\n".join(problems),
            resolution="End what is listed, or reboot the host, then run delete again: "
            "what is left of it stays known until then.",
        )
    if problems:
        what = "the clusters were" if every else f"the cluster {name} was"
        raise SykubeError(
            f"{what} deleted, but not all is as it was before",
            details="\n".join(problems),
            resolution="Put back by hand what is listed; run delete again if it names a process.",
            exit_code=ExitCode.FAILED,
        )


def _delete_all(yes: bool) -> list[str]:
    if not clusters(context.host()):
        context.ui().say("There is no cluster.")
        return []
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {', '.join(clusters(context.host()))}?", abort=True, err=True)
    context.open_log("all")
    return removal.delete_all(context.host(), context.ui())


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@context.common
def uninstall(yes: bool) -> None:
    """Remove caches, logs, snapshots and the private Apptainer. Delete all clusters first."""
    identity.check(context.host())
    if clusters(context.host()):
        raise SykubeError(
            f"there are still clusters: {', '.join(clusters(context.host()))}",
            resolution="Delete them first: sykube delete --name CLUSTER",
        )
    belonging.require_no_others(context.host(), "what would be removed")
    folders = [
        folder
        for folder in (context.host().cache, context.host().logs, context.host().snapshots)
        if folder.exists()
    ]
    if folders and not yes:
        kept = archive.names(context.host())
        loss = f" The snapshots {', '.join(kept)} are lost with it." if kept else ""
        click.confirm(f"Remove {' and '.join(map(str, folders))}?{loss}", abort=True, err=True)
    for folder in folders:
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        context.host().data.rmdir()
    context.ui().say("Caches, logs, snapshots and the private Apptainer are gone.")
