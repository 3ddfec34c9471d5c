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
from sykube.network.subnets import Subnets

_INTERFACE_NAME_MAX = 15
# Forwarding, masquerading, and the way to a resolver on the host's loopback.
_SUFFIXES = ("FWD", "POST", "PRE", "SNAT", "IN")


def bridge_name(cluster: str) -> str:
    """sk-CLUSTER, or a digest where the kernel's 15 characters do not hold it."""
    name = f"sk-{cluster}"
    if len(name) <= _INTERFACE_NAME_MAX:
        return name
    return f"sk-{hashlib.sha256(cluster.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Chain:
    """A chain of ours and where the kernel's own chain jumps to it."""

    table: str
    parent: str
    name: str
    rules: tuple[tuple[str, ...], ...]

    def is_whole(self, listed: Sequence[list[str]]) -> bool:
        """Whether it has all its rules and is reached, by what `iptables -S` lists."""
        own = [words for words in listed if words[:2] == ["-A", self.name]]
        jumps = [words for words in listed if words[1] == self.parent and words[-1] == self.name]
        return len(own) == len(self.rules) and bool(jumps)


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

    def create(self, subnets: Subnets, loopback_resolver: str) -> None:
        """Make the bridge and its rules; what is there already is kept or replaced.

        Args:
            loopback_resolver: the host's resolver where it listens on loopback, which nodes
                then reach at the gateway's address; empty otherwise.
        """
        if not self.exists():
            run(["ip", "link", "add", "name", self.name, "type", "bridge"])
        address = f"{subnets.gateway}/{subnets.nodes.prefixlen}"
        run(["ip", "address", "replace", address, "dev", self.name])
        run(["ip", "link", "set", "dev", self.name, "up"])
        if loopback_resolver:
            run(["sysctl", "-q", "-w", f"net.ipv4.conf.{self.name}.route_localnet=1"])
        self.remove_rules()
        for chain in self._chains(subnets, loopback_resolver):
            _iptables(chain.table, "-N", chain.name)
            for rule in chain.rules:
                _iptables(chain.table, "-A", chain.name, *rule)
            _iptables(chain.table, "-I", chain.parent, "1", *self._comment(), "-j", chain.name)

    def missing_rules(self, subnets: Subnets, loopback_resolver: str) -> list[str]:
        """Rules of ours that are not there, as iptables would list them; whoever removed them."""
        missing = []
        for chain in self._chains(subnets, loopback_resolver):
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

    def problem(self, subnets: Subnets, loopback_resolver: str) -> str:
        """What is no longer as create left it, or nothing."""
        if not self.exists():
            return f"the bridge {self.name} is gone"
        if f"{subnets.gateway}/{subnets.nodes.prefixlen}" not in self.addresses():
            return f"the bridge {self.name} has lost its address {subnets.gateway}"
        chains = self._chains(subnets, loopback_resolver)
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

    def _chains(self, subnets: Subnets, loopback_resolver: str) -> list[Chain]:
        nodes, bridge = str(subnets.nodes), self.name
        chains = [
            Chain(
                "filter",
                "FORWARD",
                self._chain("FWD"),
                (
                    ("-i", bridge, "-j", "ACCEPT"),
                    (
                        "-o",
                        bridge,
                        "-m",
                        "conntrack",
                        "--ctstate",
                        "RELATED,ESTABLISHED",
                        "-j",
                        "ACCEPT",
                    ),
                    # Forwarding is on for the nodes, not to open them to the host's neighbours.
                    ("-o", bridge, "-j", "DROP"),
                ),
            ),
            Chain(
                "nat",
                "POSTROUTING",
                self._chain("POST"),
                (("-s", nodes, "!", "-o", bridge, "-j", "MASQUERADE"),),
            ),
        ]
        if loopback_resolver:
            IPv4Address(loopback_resolver)
            chains += self._resolver_chains(subnets.gateway, loopback_resolver)
        return chains

    def _resolver_chains(self, gateway: str, resolver: str) -> list[Chain]:
        """The gateway's port 53 leads to the host's loopback resolver.

        The source becomes loopback too: systemd-resolved's stub answers no other.
        """
        to_gateway = tuple(
            ("-i", self.name, "-d", gateway, "-p", protocol, "--dport", "53")
            for protocol in ("udp", "tcp")
        )
        from_nodes = tuple(
            ("-i", self.name, "-d", resolver, "-p", protocol, "--dport", "53")
            for protocol in ("udp", "tcp")
        )
        return [
            Chain(
                "nat",
                "PREROUTING",
                self._chain("PRE"),
                tuple((*match, "-j", "DNAT", "--to-destination", resolver) for match in to_gateway),
            ),
            Chain(
                "nat",
                "INPUT",
                self._chain("SNAT"),
                tuple((*match, "-j", "SNAT", "--to-source", "127.0.0.1") for match in from_nodes),
            ),
            Chain(
                "filter",
                "INPUT",
                self._chain("IN"),
                tuple((*match, "-j", "ACCEPT") for match in from_nodes),
            ),
        ]


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
