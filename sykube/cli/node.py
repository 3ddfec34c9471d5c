"""sykube node add, delete and list"""

from __future__ import annotations

import click

from sykube.cli import completion, context, logfile
from sykube.cluster.commands import scaling
from sykube.cluster.commands import status as cluster_status
from sykube.cluster.commands.scaling import RemovalOptions
from sykube.cluster.model import gpus as model
from sykube.cluster.model import lookup


def _gpus(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if problem := model.problem(value):
        raise click.BadParameter(problem)
    return value


@click.group()
def node() -> None:
    """Add workers to a running cluster, or remove them."""


@node.command()
@context.named
@click.option(
    "--count", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Number of workers to add.",
)  # fmt: skip
@click.option(
    "--gpus", default="", metavar="all|N", callback=_gpus,
    help="GPUs of NVIDIA for each: so many, or all that no node has.",
)  # fmt: skip
@context.timings_option
@context.output_option
@context.common
def add(name: str, count: int, gpus: str, timings: bool, output: str) -> None:
    """Add workers to a running cluster."""
    logfile.open_for(name)
    with context.timed(shown=timings) as host:
        added = scaling.add(host, name, count, context.ui(), gpus)
    if output == "json":
        context.emit(added)
        return
    context.ui().say(f"{', '.join(added)} joined the cluster {name}.")


@node.command()
@context.named
@click.argument("node_name", metavar="NODE", shell_complete=completion.workers)
@click.option("--force", is_flag=True, help="Remove the node even if its pods cannot be evicted.")
@click.option(
    "--timeout", type=click.IntRange(1), default=120, show_default=True, metavar="SECONDS",
    help="Time limit for evicting its pods.",
)  # fmt: skip
@context.common
def delete(name: str, node_name: str, force: bool, timeout: int) -> None:
    """Evict a worker's pods, then remove the worker: node1 …"""
    logfile.open_for(name)
    scaling.remove_node(
        context.host(), name, node_name, RemovalOptions(force, timeout), context.ui()
    )
    context.ui().say(f"{node_name} left the cluster {name}.")


@node.command("list")
@context.named
@context.output_option
@context.common
def list_nodes(name: str, output: str) -> None:
    """List the nodes with their addresses and states."""
    found = cluster_status.collect(lookup.load(context.host(), name, context.ui()))
    lines = (f"{e.name:8} {e.address:15} {e.disk_mb:6} MB  {e.summary}" for e in found.nodes)
    context.show(output, found.to_dict()["nodes"], lines)
