"""What the rules of a cluster's bridge say: iptables' words, and no more than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from sykube.network.ports import ANY, PortMap
from sykube.network.subnets import BRIDGE_PREFIX, Subnets

# Forwarding, masquerading, the ways to a resolver on the host's loopback and to the nodes' ports.
SUFFIXES = ("FWD", "POST", "PRE", "SNAT", "IN", "OUT")
Rule = tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """A chain of ours and where the kernel's own chain jumps to it."""

    table: str
    parent: str
    name: str
    rules: tuple[Rule, ...]

    def is_whole(self, listed: Sequence[list[str]]) -> bool:
        """Whether it has all its rules and is reached, by what `iptables -S` lists.

        Those of segment sizes are not asked for: a cluster that runs since before sykube had them
        gets them when it starts again, and is healthy meanwhile.
        """
        own = [words for words in listed if words[:2] == ["-A", self.name] and not _clamps(words)]
        needed = [rule for rule in self.rules if not _clamps(rule)]
        jumps = [words for words in listed if words[1] == self.parent and words[-1] == self.name]
        return len(own) == len(needed) and bool(jumps)


@dataclass(frozen=True)
class Wiring:
    """What a bridge and its rules are made for.

    Attributes:
        resolver: the host's resolver where it listens on loopback, which nodes then reach at the
            gateway's address; empty otherwise.
        endpoint: the control plane's own address.
        ports: ports of the host, each with the address of the node that it leads to.
        published: protocol, address and number of those that others reach; see Network.publish.
    """

    subnets: Subnets
    resolver: str
    endpoint: str
    ports: tuple[tuple[PortMap, str], ...] = ()
    published: tuple[tuple[str, str, int], ...] = ()

    @property
    def uses_loopback(self) -> bool:
        """Whether packets with addresses of loopback go over the bridge."""
        return bool(self.resolver) or any(port.is_loopback for port, _ in self.ports)


def chain_name(bridge: str, suffix: str) -> str:
    return f"SYKUBE-{bridge.removeprefix(BRIDGE_PREFIX)}-{suffix}"


def chains(bridge: str, wiring: Wiring) -> list[Chain]:
    """The chains of a cluster, those without a rule left out."""
    pre, out = _port_rules(wiring.ports)
    before, snat, accepted = _resolver_rules(bridge, wiring)
    chains = [
        Chain("filter", "FORWARD", chain_name(bridge, "FWD"), _forwarding(bridge, wiring)),
        Chain("nat", "POSTROUTING", chain_name(bridge, "POST"), _masquerading(bridge, wiring)),
        Chain("nat", "PREROUTING", chain_name(bridge, "PRE"), (*before, *pre)),
        Chain("nat", "INPUT", chain_name(bridge, "SNAT"), snat),
        Chain("nat", "OUTPUT", chain_name(bridge, "OUT"), out),
    ]
    if wiring.uses_loopback:
        # Loopback is reachable over the bridge then, but only for what was forwarded there.
        led = ("-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT")
        closed = ("-i", bridge, "-d", "127.0.0.0/8", *led, "-j", "DROP")
        chains.append(Chain("filter", "INPUT", chain_name(bridge, "IN"), (*accepted, closed)))
    return [chain for chain in chains if chain.rules]


# Behind an uplink with a smaller MTU, such as a VPN's, peers would send pods segments that do not
# get through, and many a firewall drops the ICMP messages that say so. The kernel takes the smaller
# MTU of both directions: xt_TCPMSS, tcpmss_reverse_mtu.
_CLAMP = ("-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS", "--clamp-mss-to-pmtu")


def _clamps(words: Sequence[str]) -> bool:
    return "TCPMSS" in words


def _forwarding(bridge: str, wiring: Wiring) -> tuple[Rule, ...]:
    known = "RELATED,ESTABLISHED" + (",DNAT" if wiring.ports else "")
    return (
        ("-i", bridge, "!", "-o", bridge, *_CLAMP),
        ("!", "-i", bridge, "-o", bridge, *_CLAMP),
        # An address that the node's kube-proxy does not know yet. Whoever answers out there,
        # or another cluster, would keep the connection, also when it does.
        ("-i", bridge, "-d", str(wiring.subnets.services), "-j", "REJECT"),
        ("-i", bridge, "-j", "ACCEPT"),
        ("-o", bridge, "-m", "conntrack", "--ctstate", known, "-j", "ACCEPT"),
        # Forwarding is on for the nodes, not to open them to the host's neighbours.
        ("-o", bridge, "-j", "DROP"),
    )


def _masquerading(bridge: str, wiring: Wiring) -> tuple[Rule, ...]:
    nodes = str(wiring.subnets.nodes)
    rules: tuple[Rule, ...] = (("-s", nodes, "!", "-o", bridge, "-j", "MASQUERADE"),)
    if wiring.ports:
        # What came from loopback or from a node itself would be answered past the host.
        led = ("-o", bridge, "-m", "conntrack", "--ctstate", "DNAT", "-j", "MASQUERADE")
        rules += (("-s", "127.0.0.0/8", *led), ("-s", nodes, *led))
    return rules


def _port_rules(ports: Sequence[tuple[PortMap, str]]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Rules for packets from elsewhere, and for those of the host's own programs."""
    everybody, own = [], []
    for port, node in ports:
        local = ("-m", "addrtype", "--dst-type", "LOCAL")
        here = local if port.address == ANY else ("-d", f"{port.address}/32")
        match = ("-p", port.protocol, *here, "--dport", str(port.host_port))
        rule = (*match, "-j", "DNAT", "--to-destination", f"{node}:{port.node_port}")
        own.append(rule)
        if not port.is_loopback:
            everybody.append(rule)
    return tuple(everybody), tuple(own)


def _resolver_rules(
    bridge: str, wiring: Wiring
) -> tuple[tuple[Rule, ...], tuple[Rule, ...], tuple[Rule, ...]]:
    """The gateway's port 53 leads to the host's loopback resolver: DNAT, SNAT, and its leave.

    The source becomes loopback too: systemd-resolved's stub answers no other.
    """
    if not wiring.resolver:
        return (), (), ()
    resolver = str(IPv4Address(wiring.resolver))

    def asks(address: str) -> list[Rule]:
        protocols = ("udp", "tcp")
        return [("-i", bridge, "-d", address, "-p", p, "--dport", "53") for p in protocols]

    return (
        tuple(
            (*match, "-j", "DNAT", "--to-destination", resolver)
            for match in asks(wiring.subnets.gateway)
        ),
        tuple((*match, "-j", "SNAT", "--to-source", "127.0.0.1") for match in asks(resolver)),
        tuple((*match, "-j", "ACCEPT") for match in asks(resolver)),
    )
