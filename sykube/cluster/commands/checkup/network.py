"""A cluster's network on the host and in its nodes."""

from __future__ import annotations

from collections.abc import Iterator

from sykube import resources
from sykube.cluster.commands.checkup.context import CheckContext, failure, ok, warning
from sykube.host.finding import Finding
from sykube.host.records import read_sysctl
from sykube.kubernetes import readiness
from sykube.network import firewall


def bridge(context: CheckContext) -> Iterator[Finding]:
    """The bridge and its address."""
    bridge, subnets = context.cluster.bridge, context.cluster.state.subnets
    start = context.command("start")
    address = f"{subnets.gateway}/{subnets.nodes.prefixlen}"
    if not bridge.exists():
        yield failure("bridge", f"{bridge.name} is gone", start)
    elif address not in bridge.addresses():
        yield failure("bridge", f"{bridge.name} has lost its address {address}", start)
    else:
        yield ok("bridge", f"{bridge.name} with {address}")


def rules(context: CheckContext) -> Iterator[Finding]:
    """Forwarding, and the cluster's own rules: others flush or reload the host's firewall."""
    bridge = context.cluster.bridge
    wanted = ["net/ipv4/ip_forward"]
    wanted += (
        [f"net/ipv4/conf/{bridge.name}/route_localnet"]
        if context.cluster.wiring.uses_loopback
        else []
    )
    for key in wanted:
        if read_sysctl(context.cluster.host, key) == "0":
            name = key.replace("/", ".")
            yield failure("forwarding", f"{name} is 0", f"sysctl -w {name}=1")
    missing = bridge.missing_rules(context.cluster.wiring)
    if missing:
        detail = f"{len(missing)} rules of the cluster are gone, such as: iptables {missing[0]}"
        yield failure("iptables", detail, context.command("start"))
    else:
        yield ok("iptables", "all rules of the cluster are there")


def firewalls(context: CheckContext) -> Iterator[Finding]:
    """What else on the host drops forwarded packets."""
    bridge = context.cluster.bridge
    dropping = firewall.dropping_rules(context.cluster.host, bridge.forward_chain, bridge.name)
    for rule in dropping:
        yield failure(
            "firewall",
            f"a rule before the cluster's own drops what nodes send: iptables {rule}",
            f"{context.command('start')} puts its own first; or: "
            f"iptables -D{rule.removeprefix('-A')}",
        )
    for chain in firewall.nftables_chains(context.cluster.host, bridge.name):
        insert = f"nft insert rule {chain}"
        yield warning(
            "firewall",
            f"nftables: {chain} drops forwarded packets and does not name {bridge.name}",
            f"{insert} iifname {bridge.name} accept && "
            f"{insert} oifname {bridge.name} ct state established,related accept",
        )
    yield from firewall.check_firewalld(context.cluster.host, bridge.name)


def links(context: CheckContext) -> Iterator[Finding]:
    """The host's end of each node's link: udev or a network manager may take it."""
    for node in context.running:
        problem = context.cluster.bridge.link_problem(node.link())
        if problem:
            yield failure(f"node {node.name}", problem, context.command("start"))


def node_networks(context: CheckContext) -> Iterator[Finding]:
    """Addresses, routes and rules within the nodes."""
    for node in context.awake:
        script = resources.script("check-network", node.address)
        for problem in node.run(script, check=False).stdout.splitlines():
            # Only a start gives an instance its address and the route to its gateway.
            again = "eth0" in problem or "default route" in problem
            cure = context.command("restart" if again else "start")
            yield failure(f"node {node.name}", problem, cure)


def resolvers(context: CheckContext) -> Iterator[Finding]:
    """The cluster works without them; names of the outside do not."""
    for address in context.cluster.state.resolvers if context.awake else ():
        node = context.awake[0]
        problem = readiness.resolver_answers(node.exchange, address)
        local = context.cluster.state.loopback_resolver
        shown = (
            f"{local} of the host" if address == context.cluster.state.subnets.gateway else address
        )
        if problem:
            cure = (
                f"Repair the resolver {shown}. Where the host has others by now, make the "
                f"cluster again: {context.command('delete')}, then init, with --dns ADDRESS"
            )
            detail = f"{shown} does not answer {node.name}, which forwards to it: {problem}"
            yield warning("resolver", detail, cure)
        else:
            yield ok("resolver", f"{shown} answers {node.name}")
