"""A cluster's network on the host and in its nodes."""

from __future__ import annotations

from collections.abc import Iterator

from sykube import resources
from sykube.cluster.checkup.look import Look, failure, ok, warning
from sykube.host.preflight import Finding
from sykube.host.records import read_sysctl
from sykube.kubernetes import readiness
from sykube.network import firewall


def bridge(look: Look) -> Iterator[Finding]:
    """The bridge and its address."""
    bridge, subnets = look.cluster.bridge, look.cluster.state.subnets
    start = look.command("start")
    address = f"{subnets.gateway}/{subnets.nodes.prefixlen}"
    if not bridge.exists():
        yield failure("bridge", f"{bridge.name} is gone", start)
    elif address not in bridge.addresses():
        yield failure("bridge", f"{bridge.name} has lost its address {address}", start)
    else:
        yield ok("bridge", f"{bridge.name} with {address}")


def rules(look: Look) -> Iterator[Finding]:
    """Forwarding, and the cluster's own rules: others flush or reload the host's firewall."""
    bridge = look.cluster.bridge
    wanted = ["net/ipv4/ip_forward"]
    wanted += (
        [f"net/ipv4/conf/{bridge.name}/route_localnet"] if look.cluster.wiring.uses_loopback else []
    )
    for key in wanted:
        if read_sysctl(look.cluster.host, key) == "0":
            name = key.replace("/", ".")
            yield failure("forwarding", f"{name} is 0", f"sysctl -w {name}=1")
    missing = bridge.missing_rules(look.cluster.wiring)
    if missing:
        detail = f"{len(missing)} rules of the cluster are gone, such as: iptables {missing[0]}"
        yield failure("iptables", detail, look.command("start"))
    else:
        yield ok("iptables", "all rules of the cluster are there")


def firewalls(look: Look) -> Iterator[Finding]:
    """What else on the host drops forwarded packets."""
    bridge = look.cluster.bridge
    dropping = firewall.dropping_rules(look.cluster.host, bridge.forward_chain, bridge.name)
    for rule in dropping:
        yield failure(
            "firewall",
            f"a rule before the cluster's own drops what nodes send: iptables {rule}",
            f"{look.command('start')} puts its own first; or: iptables -D{rule.removeprefix('-A')}",
        )
    for chain in firewall.nftables_chains(look.cluster.host, bridge.name):
        insert = f"nft insert rule {chain}"
        yield warning(
            "firewall",
            f"nftables: {chain} drops forwarded packets and does not name {bridge.name}",
            f"{insert} iifname {bridge.name} accept && "
            f"{insert} oifname {bridge.name} ct state established,related accept",
        )
    yield from firewall.examine_firewalld(look.cluster.host, bridge.name)


def links(look: Look) -> Iterator[Finding]:
    """The host's end of each node's link: udev or a network manager may take it."""
    for node in look.running:
        link = look.cluster.host.proc / str(look.pid(node)) / "root/sys/class/net/eth0/iflink"
        index = link.read_text(encoding="utf-8").strip() if link.exists() else ""
        problem = look.cluster.bridge.link_problem(index)
        if problem:
            yield failure(f"node {node.name}", problem, look.command("start"))


def node_networks(look: Look) -> Iterator[Finding]:
    """Addresses, routes and rules within the nodes."""
    for node in look.awake:
        script = resources.script("check-network", node.address)
        for problem in node.run(script, check=False).stdout.splitlines():
            # Only a start gives an instance its address and the route to its gateway.
            again = "eth0" in problem or "default route" in problem
            cure = look.command("restart" if again else "start")
            yield failure(f"node {node.name}", problem, cure)


def resolvers(look: Look) -> Iterator[Finding]:
    """The cluster works without them; names of the outside do not."""
    for address in look.cluster.state.resolvers if look.awake else ():
        node = look.awake[0]
        problem = readiness.resolver_answers(look.cluster.host, look.pid(node), address)
        local = look.cluster.state.loopback_resolver
        shown = f"{local} of the host" if address == look.cluster.state.subnets.gateway else address
        if problem:
            cure = (
                f"Repair the resolver {shown}. Where the host has others by now, make the "
                f"cluster again: {look.command('delete')}, then init, with --dns ADDRESS"
            )
            detail = f"{shown} does not answer {node.name}, which forwards to it: {problem}"
            yield warning("resolver", detail, cure)
        else:
            yield ok("resolver", f"{shown} answers {node.name}")
