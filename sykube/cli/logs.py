"""sykube logs: what nodes log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from sykube.cli import completion, context
from sykube.cluster.model import lookup
from sykube.cluster.operations import logs as cluster_logs
from sykube.cluster.operations.logs import SERVICES, LogSource
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host import identity
from sykube.host.paths import ClusterPaths

_FOLLOWED_LINES = 10


@click.command()
@click.argument("node", required=False, shell_complete=completion.nodes)
@context.named
@click.option(
    "--service", type=click.Choice([*SERVICES, "all"]), default="all", show_default=True,
    help="Only the log of this program.",
)  # fmt: skip
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines until Ctrl-C.")
@click.option(
    "--tail", type=click.IntRange(0), metavar="N",
    help=f"Show the last N lines of each log. [default: all, {_FOLLOWED_LINES} with --follow]",
)  # fmt: skip
@click.option(
    "--export", "folder", type=click.Path(path_type=Path), metavar="DIR",
    help="Collect what a bug report needs, without secrets, in this folder.",
)  # fmt: skip
@context.common
@click.pass_context
def logs(
    ctx: click.Context,
    node: str | None,
    name: str,
    service: str,
    follow: bool,
    tail: int | None,
    folder: Path | None,
) -> None:
    """Show the logs of the programs in all nodes, or in one NODE: master, node1 …

    This works for stopped nodes, too. For the logs of pods: sykube kubectl logs.
    """
    identity.check(context.host())
    if folder:
        if node or follow or tail is not None or service != "all":
            raise UsageError(
                "--export writes all of the cluster: give it no node, service, --follow or --tail",
                resolution="sykube logs --export DIR",
            )
        # Not above: a report asks more of sykube than all the rest of this command.
        from sykube.cluster.commands import export as cluster_export

        missing = cluster_export.export(context.host(), name, folder.absolute(), context.ui())
        click.echo(folder)
        if missing:
            context.ui().warn(f"not all could be had: see {folder / cluster_export.MISSING}")
        return
    found = _sources(name, node, service)
    show = _printer(found, at_once=follow)
    try:
        if follow:
            cluster_logs.follow(found, _FOLLOWED_LINES if tail is None else tail, show)
        for source in found:
            for line in source.log.read(tail):
                show(source, line)
        sys.stdout.flush()
    except BrokenPipeError:
        # `sykube logs | head` has what it wanted; nothing is left to say at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        ctx.exit(ExitCode.INTERRUPTED)


def _sources(name: str, node: str | None, service: str) -> list[LogSource]:
    """The logs that are asked for.

    Raises:
        SykubeError: there is no such cluster (NO_SUCH_CLUSTER), or no log in it yet.
        UsageError: it has no such node.
    """
    nodes = cluster_logs.nodes(context.host(), name, context.ui())
    if not lookup.exists(context.host(), name):
        error = lookup.no_such_cluster(context.host(), name)
        failed = ClusterPaths(context.host(), name).node_logs
        if failed.is_dir():
            kept = f"Those of an init that failed are in {failed}."
            error.details = f"{error.details}\n{kept}".strip()
        raise error
    if node:
        wanted = node.removeprefix(f"{name}-")
        if wanted not in nodes:
            raise UsageError(
                f"the cluster {name} has no node {node!r}",
                resolution=f"Its nodes: {', '.join(nodes)}",
            )
        nodes = {wanted: nodes[wanted]}
    services = SERVICES if service == "all" else [service]
    found = cluster_logs.sources(nodes.values(), services)
    if not found:
        what = "no log" if service == "all" else f"no log of {service}"
        raise SykubeError(
            f"there is {what} in the cluster {name}",
            resolution=f"sykube status{'' if name == 'sykube' else f' --name {name}'}",
        )
    return found


def _printer(found: list[LogSource], *, at_once: bool) -> Callable[[LogSource, str], None]:
    """Prints lines; where several logs are shown, each with its own, as kubectl logs --prefix."""

    def show(source: LogSource, line: str) -> None:
        start = f"[{source.node}/{source.service}] " if len(found) > 1 else ""
        sys.stdout.write(f"{start}{line}\n")
        if at_once:
            sys.stdout.flush()

    return show
