"""A cluster's bridge on the host and the rules that go with it.

Every name is derived from the cluster's, so that delete finds all of it
without any record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from sykube.host.run import run
from sykube.network.ports import ANY, PortMap
from sykube.network.subnets import BRIDGE_PREFIX, Subnets

_INTERFACE_NAME_MAX = 15
# Forwarding, masquerading, the ways to a resolver on the host's loopback and to the nodes' ports.
_SUFFIXES = ("FWD", "POST", "PRE", "SNAT", "IN", "OUT")


def bridge_name(cluster: str) -> str:
    """sk-CLUSTER, or a digest where the kernel's 15 characters do not hold it."""
    name = f"{BRIDGE_PREFIX}{cluster}"
    if len(name) <= _INTERFACE_NAME_MAX:
        return name
    return f"{BRIDGE_PREFIX}{hashlib.sha256(cluster.encode()).hexdigest()[:10]}"


Rule = tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """A chain of ours and where the kernel's own chain jumps to it."""

    table: str
    parent: str
    name: str
    rules: tuple[Rule, ...]

    def is_whole(self, listed: Sequence[list[str]]) -> bool:
        """Whether it has all its rules and is reached, by what `iptables -S` lists."""
        own = [words for words in listed if words[:2] == ["-A", self.name]]
        jumps = [words for words in listed if words[1] == self.parent and words[-1] == self.name]
        return len(own) == len(self.rules) and bool(jumps)


@dataclass(frozen=True)
class Wiring:
    """What a bridge and its rules are made for.

    Attributes:
        resolver: the host's resolver where it listens on loopback, which nodes then reach at the
            gateway's address; empty otherwise.
        endpoint: the control plane's own address.
        ports: ports of the host, each with the address of the node that it leads to.
    """

    subnets: Subnets
    resolver: str
    endpoint: str
    ports: tuple[tuple[PortMap, str], ...] = ()

    @property
    def uses_loopback(self) -> bool:
        """Whether packets with addresses of loopback go over the bridge."""
        return bool(self.resolver) or any(port.is_loopback for port, _ in self.ports)


@dataclass(frozen=True)
class Bridge:
    """The network of one cluster on the host."""

    cluster: str

    @property
    def name(self) -> str:
        return bridge_name(self.cluster)

    def exists(self) -> bool:
        """Whether the bridge is there."""
        return Path("/sys/class/net", self.name).exists()

    def create(self, wiring: Wiring) -> None:
        """Make the bridge, its rules and its routes; what is there already is kept or replaced."""
        subnets = wiring.subnets
        if not self.exists():
            run(["ip", "link", "add", "name", self.name, "type", "bridge"])
        address = f"{subnets.gateway}/{subnets.nodes.prefixlen}"
        run(["ip", "address", "replace", address, "dev", self.name])
        run(["ip", "link", "set", "dev", self.name, "up"])
        on = int(wiring.uses_loopback)
        run(["sysctl", "-q", "-w", f"net.ipv4.conf.{self.name}.route_localnet={on}"])
        self.remove_rules()
        for chain in self._chains(wiring):
            _iptables(chain.table, "-N", chain.name)
            for rule in chain.rules:
                _iptables(chain.table, "-A", chain.name, *rule)
            _iptables(chain.table, "-I", chain.parent, "1", *self._comment(), "-j", chain.name)
        self._lead_to_services(wiring)

    def _lead_to_services(self, wiring: Wiring) -> None:
        """Let the host reach Services, by the node that has the control plane's address.

        Where another cluster has the same range (init --from), that one's route stays.
        """
        services = str(wiring.subnets.services)
        if not run(["ip", "route", "show", services]).stdout.strip():
            run(["ip", "route", "add", services, "via", wiring.endpoint, "dev", self.name])

    def missing_rules(self, wiring: Wiring) -> list[str]:
        """Rules of ours that are not there, as iptables would list them; whoever removed them."""
        missing = []
        for chain in self._chains(wiring):
            jump = (*self._comment(), "-j", chain.name)
            rules = [(chain.parent, jump), *((chain.name, rule) for rule in chain.rules)]
            missing += [
                f"-t {chain.table} -A {where} {' '.join(rule)}"
                for where, rule in rules
                if not run(
                    ["iptables", "-w", "-t", chain.table, "-C", where, *rule], check=False
                ).ok
            ]
        return missing

    @property
    def forward_chain(self) -> str:
        """The chain of ours that lets packets through."""
        return self._chain("FWD")

    def link_problem(self, index: str) -> str:
        """What is wrong with a node's link on the host, by its interface index; or nothing."""
        for link in Path("/sys/class/net").iterdir():
            with contextlib.suppress(OSError):
                if (link / "ifindex").read_text().strip() != index:
                    continue
                master = (link / "master").resolve().name if (link / "master").exists() else ""
                if master != self.name:
                    return f"its link {link.name} is {f'on {master}' if master else 'on no bridge'}"
                up = (link / "operstate").read_text().strip() == "up"
                return "" if up else f"its link {link.name} is down"
        return "its link is gone"

    def attach(self, index: int) -> bool:
        """Put a link of the host on the bridge; False where there is no link of that index."""
        for link in Path("/sys/class/net").iterdir():
            if _index(link) != index:
                continue
            if not (link / "master").exists():
                run(["ip", "link", "set", "dev", link.name, "master", self.name, "up"])
                # A node reaches itself by the endpoint's address.
                hairpin = ["type", "bridge_slave", "hairpin", "on"]
                run(["ip", "link", "set", "dev", link.name, *hairpin])
            return True
        return False

    def remove(self) -> None:
        """Remove the bridge and its rules; what is gone already is no error."""
        self.remove_rules()
        if self.exists():
            run(["ip", "link", "delete", "dev", self.name])

    def remove_rules(self) -> None:
        """Remove every chain of this cluster and the jumps to them."""
        for table in ("filter", "nat"):
            listed = _rules(table)
            ours = {self._chain(suffix) for suffix in _SUFFIXES}
            chains = [words[1] for words in listed if words[0] == "-N" and words[1] in ours]
            for words in listed:
                if words[0] == "-A" and words[-1] in chains and words[1] not in chains:
                    _iptables(table, "-D", words[1], *self._comment(), "-j", words[-1])
            for chain in chains:
                _iptables(table, "-F", chain)
                _iptables(table, "-X", chain)

    def problem(self, wiring: Wiring) -> str:
        """What is no longer as create left it, or nothing."""
        if not self.exists():
            return f"the bridge {self.name} is gone"
        subnets = wiring.subnets
        if f"{subnets.gateway}/{subnets.nodes.prefixlen}" not in self.addresses():
            return f"the bridge {self.name} has lost its address {subnets.gateway}"
        chains = self._chains(wiring)
        rules = {table: _rules(table) for table in {chain.table for chain in chains}}
        lacking = [chain.name for chain in chains if not chain.is_whole(rules[chain.table])]
        return f"rules are gone from {', '.join(lacking)}" if lacking else ""

    def addresses(self) -> list[str]:
        """Addresses of the bridge with their prefix lengths."""
        listed = run(["ip", "-j", "-4", "address", "show", "dev", self.name], check=False)
        return [
            f"{info['local']}/{info['prefixlen']}"
            for link in json.loads(listed.stdout or "[]")
            for info in link.get("addr_info", [])
        ]

    def _chain(self, suffix: str) -> str:
        return f"SYKUBE-{self.name.removeprefix('sk-')}-{suffix}"

    def _comment(self) -> tuple[str, ...]:
        return ("-m", "comment", "--comment", f"sykube:{self.cluster}")

    def _chains(self, wiring: Wiring) -> list[Chain]:
        pre, out = self._port_rules(wiring.ports)
        before, snat, accepted = self._resolver_rules(wiring)
        chains = [
            Chain("filter", "FORWARD", self._chain("FWD"), self._forwarding(wiring)),
            Chain("nat", "POSTROUTING", self._chain("POST"), self._masquerading(wiring)),
            Chain("nat", "PREROUTING", self._chain("PRE"), (*before, *pre)),
            Chain("nat", "INPUT", self._chain("SNAT"), snat),
            Chain("nat", "OUTPUT", self._chain("OUT"), out),
        ]
        if wiring.uses_loopback:
            # Loopback is reachable over the bridge then, for what was led there alone.
            led = ("-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT")
            closed = ("-i", self.name, "-d", "127.0.0.0/8", *led, "-j", "DROP")
            chains.append(Chain("filter", "INPUT", self._chain("IN"), (*accepted, closed)))
        return [chain for chain in chains if chain.rules]

    def _forwarding(self, wiring: Wiring) -> tuple[Rule, ...]:
        known = "RELATED,ESTABLISHED" + (",DNAT" if wiring.ports else "")
        return (
            # An address that the node's kube-proxy does not know yet. Whoever answers out there,
            # or another cluster, would keep the connection, also when it does.
            ("-i", self.name, "-d", str(wiring.subnets.services), "-j", "REJECT"),
            ("-i", self.name, "-j", "ACCEPT"),
            ("-o", self.name, "-m", "conntrack", "--ctstate", known, "-j", "ACCEPT"),
            # Forwarding is on for the nodes, not to open them to the host's neighbours.
            ("-o", self.name, "-j", "DROP"),
        )

    def _masquerading(self, wiring: Wiring) -> tuple[Rule, ...]:
        nodes = str(wiring.subnets.nodes)
        rules: tuple[Rule, ...] = (("-s", nodes, "!", "-o", self.name, "-j", "MASQUERADE"),)
        if wiring.ports:
            # What came from loopback or from a node itself would be answered past the host.
            led = ("-o", self.name, "-m", "conntrack", "--ctstate", "DNAT", "-j", "MASQUERADE")
            rules += (("-s", "127.0.0.0/8", *led), ("-s", nodes, *led))
        return rules

    def _port_rules(
        self, ports: Sequence[tuple[PortMap, str]]
    ) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
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
        self, wiring: Wiring
    ) -> tuple[tuple[Rule, ...], tuple[Rule, ...], tuple[Rule, ...]]:
        """The gateway's port 53 leads to the host's loopback resolver: DNAT, SNAT, and its leave.

        The source becomes loopback too: systemd-resolved's stub answers no other.
        """
        if not wiring.resolver:
            return (), (), ()
        resolver = str(IPv4Address(wiring.resolver))

        def asks(address: str) -> list[Rule]:
            protocols = ("udp", "tcp")
            return [("-i", self.name, "-d", address, "-p", p, "--dport", "53") for p in protocols]

        return (
            tuple(
                (*match, "-j", "DNAT", "--to-destination", resolver)
                for match in asks(wiring.subnets.gateway)
            ),
            tuple((*match, "-j", "SNAT", "--to-source", "127.0.0.1") for match in asks(resolver)),
            tuple((*match, "-j", "ACCEPT") for match in asks(resolver)),
        )


def _rules(table: str) -> list[list[str]]:
    """The lines of `iptables -S`, in words; nothing where there is no such table."""
    listed = run(["iptables", "-w", "-t", table, "-S"], check=False).stdout
    return [line.split() for line in listed.splitlines() if line]


def _index(link: Path) -> int:
    """The index of a link; -1 where there is none: it went, or is the file bonding_masters."""
    try:
        return int((link / "ifindex").read_text())
    except OSError:
        return -1


def _iptables(table: str, *arguments: str) -> None:
    run(["iptables", "-w", "-t", table, *arguments])
