"""sykube kubectl, exec, shell and config: ways into a cluster."""

from __future__ import annotations

import os
import sys

import click

from sykube.cli import completion, context
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.errors import ExitCode, SykubeError, UsageError

# What follows the command's own options belongs to the other program, untouched.
_PASS_THROUGH = {
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}


@click.command(context_settings=_PASS_THROUGH)
@context.named
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=completion.files)
def kubectl(name: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl against the cluster in the current folder, with kubectl's exit code."""
    # What it listens on, as `kubectl port-forward` does, is to be reached.
    machine = context.outside(lambda: _require_running(name))
    cluster = lookup.load(machine, name, context.ui())
    environment = cluster.environment(os.environ)
    context.give_back_umask()
    machine.replace_process([cluster.image.kubectl, *arguments], environment)


def _require_running(name: str) -> None:
    cluster = load_finished(name)
    if not cluster.bridge.exists():
        raise SykubeError(
            f"the cluster {name} does not run",
            resolution=f"sykube start{cluster.name_option}",
            exit_code=ExitCode.STOPPED,
        )


@click.command("exec", context_settings=_PASS_THROUGH)
@context.named
@click.argument("node", shell_complete=completion.nodes)
@click.argument(
    "command", nargs=-1, type=click.UNPROCESSED, required=True, shell_complete=completion.files
)
def exec_(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command in a node (master, node1 …), with the command's exit code."""
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise UsageError("there is no command to run", resolution="sykube exec NODE COMMAND…")
    _enter(name, node, words)


@click.command()
@context.named
@click.argument("node", default="master", shell_complete=completion.nodes)
@context.common
def shell(name: str, node: str) -> None:
    """Open a shell in a node: master, node1 …"""
    _enter(name, node, ("bash", "-l"))


@click.command()
@context.named
@context.common
def config(name: str) -> None:
    """Print the cluster's kubeconfig."""
    # As it is in the file, whatever the locale.
    sys.stdout.buffer.write(load_finished(name).paths.kubeconfig.read_bytes())


def load_finished(name: str) -> Cluster:
    """The cluster of that name, which has a kubeconfig.

    Raises:
        SykubeError: the caller is not root, there is no such cluster, or init did not come so far.
    """
    cluster = lookup.load(context.host(), name, context.ui())
    if not cluster.paths.kubeconfig.exists():
        raise SykubeError(
            f"the cluster {name} has no control plane yet",
            resolution="Finish it with `sykube init`, or remove it with `sykube delete`.",
            exit_code=ExitCode.DEGRADED,
        )
    return cluster


def _enter(name: str, node_name: str, command: tuple[str, ...]) -> None:
    cluster = lookup.load(context.host(), name, context.ui())
    nodes = {node.name: node for node in cluster.nodes}
    nodes |= {node.instance: node for node in cluster.nodes}
    if node_name not in nodes:
        raise UsageError(
            f"the cluster {name} has no node {node_name!r}",
            resolution=f"Its nodes: {', '.join(node.name for node in cluster.nodes)}",
        )
    node = nodes[node_name]
    if not node.is_running():
        raise SykubeError(
            f"the node {node_name} does not run",
            resolution=f"sykube start{cluster.name_option}",
            exit_code=ExitCode.STOPPED,
        )
    node.exec(command)
