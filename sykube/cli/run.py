"""sykube run"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from sykube.cli import context, deadline
from sykube.cli.init import of_new_cluster, read_spec
from sykube.cluster.commands import temporary
from sykube.cluster.commands.deadline import before_end
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.cluster import Cluster
from sykube.errors import UsageError
from sykube.host import identity


# What follows the command is the command's.
@click.command(context_settings={"allow_interspersed_args": False})
@of_new_cluster
@deadline.options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@context.common
def run(
    file: Path | None,
    yes: bool,
    stop_before: str,
    snapshot_name: str,
    command: tuple[str, ...],
    **flags: Any,
) -> int:
    """Create a cluster, run COMMAND with it, delete it, and end with the command's exit code.

    The command finds the cluster by KUBECONFIG, and for sykube by SYKUBE_CLUSTER. Where there is
    no kubectl, it has the cluster's own. Signals that sykube gets go to the command, and SIGTERM at
    the time of --stop-before.
    """
    # Each cluster brings its own kubectl.
    if command[0] != "kubectl" and not shutil.which(command[0]):
        raise UsageError(
            f"could not find the program {command[0]}",
            resolution="Give the command after --: sykube run [OPTIONS] -- COMMAND…",
        )
    spec = read_spec(file, flags)
    identity.check(context.host())
    ends = before_end(context.host(), stop_before, snapshot_name)
    context.open_log(spec.name)

    def use(cluster: Cluster) -> int:
        environment = cluster.environment(os.environ)
        environment |= context.host().variables
        search = (environment.get("PATH"), str(cluster.image.kubectl.parent))
        environment["PATH"] = os.pathsep.join(filter(None, search))
        context.give_back_umask()
        try:
            return context.host().run_attached(command, environment, ends.at or None)
        finally:
            context.own_umask()

    options = InitOptions(yes=yes)
    return temporary.run(context.host(), spec, options, use, context.ui(), snapshot_name)
