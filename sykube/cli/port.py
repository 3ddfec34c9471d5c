"""sykube port add, delete and list"""

from __future__ import annotations

from dataclasses import asdict

import click

from sykube.cli import completion, context, logfile
from sykube.cluster import lookup
from sykube.cluster import ports as cluster_ports
from sykube.host import preflight
from sykube.network import ports


@click.group()
def port() -> None:
    """Map ports of this host to ports of the nodes."""


@port.command()
@context.named
@click.argument("text", metavar="[ADDRESS:]HOST:NODE[/udp][@NODE]")
@context.common
def add(name: str, text: str) -> None:
    """Map a port of this host to a port of the nodes, such as a Service's nodePort.

    It is only on loopback unless an ADDRESS is given; 0.0.0.0 stands for all.
    """
    wanted = ports.parse(text)
    logfile.open_for(name)
    done = cluster_ports.add(context.host(), name, wanted, context.ui())
    already = "" if done else " already"
    context.ui().say(
        f"{wanted.address}:{wanted.host_port} leads to port {wanted.node_port} of "
        f"{wanted.node or 'the nodes'}{already}."
    )


@port.command()
@context.named
@click.argument("host_port", metavar="PORT", shell_complete=completion.ports)
@context.common
def delete(name: str, host_port: str) -> None:
    """Remove a port mapping; PORT as `port list` shows it."""
    logfile.open_for(name)
    for gone in cluster_ports.remove(context.host(), name, host_port, context.ui()):
        context.ui().say(f"{gone.address}:{gone.host_port} leads to the cluster no more.")


@port.command("list")
@context.named
@context.output_option
@context.common
def list_ports(name: str, output: str) -> None:
    """List the port mappings."""
    preflight.check_identity(context.host())
    found = lookup.load(context.host(), name, context.ui()).state.ports
    context.show(output, [asdict(each) for each in found], map(str, found))
