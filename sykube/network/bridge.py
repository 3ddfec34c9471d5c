"""A cluster's bridge on the host and the rules that go with it.

All names are derived from the cluster's, so delete finds everything without a record.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host
from sykube.network import rules
from sykube.network.rules import Chain, Wiring
from sykube.network.subnets import BRIDGE_PREFIX

log = logging.getLogger("sykube.bridge")

_INTERFACE_NAME_MAX = 15


def bridge_name(cluster: str) -> str:
    """sk-CLUSTER, or a digest where the kernel's 15 characters do not hold it."""
    name = f"{BRIDGE_PREFIX}{cluster}"
    if len(name) <= _INTERFACE_NAME_MAX:
        return name
    # Not above: it loads OpenSSL, and most names are short.
    import hashlib

    return f"{BRIDGE_PREFIX}{hashlib.sha256(cluster.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Bridge:
    """The network of one cluster on the host."""

    host: Host
    cluster: str

    @property
    def name(self) -> str:
        return bridge_name(self.cluster)

    def exists(self) -> bool:
        return (self.host.class_net / self.name).exists()

    def create(self, wiring: Wiring) -> None:
        """Make the bridge, its rules and its routes; what is there already is kept or replaced."""
        subnets = wiring.subnets
        if not self.exists():
            self.host.run(["ip", "link", "add", "name", self.name, "type", "bridge"])
        address = f"{subnets.gateway}/{subnets.nodes.prefixlen}"
        self.host.run(["ip", "address", "replace", address, "dev", self.name])
        self.host.run(["ip", "link", "set", "dev", self.name, "up"])
        on = int(wiring.uses_loopback)
        self.host.run(["sysctl", "-q", "-w", f"net.ipv4.conf.{self.name}.route_localnet={on}"])
        self._replace_rules(rules.chains(self.name, wiring))
        self._lead_to_services(wiring)
        self.host.network.publish(self.cluster, wiring.published)

    def _lead_to_services(self, wiring: Wiring) -> None:
        """Let the host reach Services, by the node that has the control plane's address.

        Where another cluster has the same range (init --from), that one's route stays.
        """
        services = str(wiring.subnets.services)
        if not self.host.run(["ip", "route", "show", services]).stdout.strip():
            self.host.run(
                ["ip", "route", "add", services, "via", wiring.endpoint, "dev", self.name]
            )

    def missing_rules(self, wiring: Wiring) -> list[str]:
        """Rules of ours that are not there, as iptables would list them; whoever removed them."""
        missing = []
        for chain in rules.chains(self.name, wiring):
            wanted = [
                (chain.parent, self._jump(chain)),
                *((chain.name, rule) for rule in chain.rules),
            ]
            missing += [
                f"-t {chain.table} -A {where} {' '.join(rule)}"
                for where, rule in wanted
                if not self.host.run(
                    ["iptables", "-w", "-t", chain.table, "-C", where, *rule], check=False
                ).ok
            ]
        return missing

    @property
    def forward_chain(self) -> str:
        """The chain of ours that lets packets through."""
        return rules.chain_name(self.name, "FWD")

    def link_problem(self, index: str) -> str:
        """What is wrong with a node's link on the host, by its interface index; or nothing."""
        with contextlib.suppress(OSError):
            if link := self._link(int(index or 0)):
                master = (link / "master").resolve().name if (link / "master").exists() else ""
                if master != self.name:
                    return f"its link {link.name} is {f'on {master}' if master else 'on no bridge'}"
                up = (link / "operstate").read_text(encoding="utf-8").strip() == "up"
                return "" if up else f"its link {link.name} is down"
        return "its link is gone"

    def attach(self, index: int) -> bool:
        """Put a link of the host on the bridge; False where there is no link of that index."""
        link = self._link(index)
        if link and not (link / "master").exists():
            self.host.run(["ip", "link", "set", "dev", link.name, "master", self.name, "up"])
            # A node reaches itself by the endpoint's address.
            hairpin = ["type", "bridge_slave", "hairpin", "on"]
            self.host.run(["ip", "link", "set", "dev", link.name, *hairpin])
        return link is not None

    def _link(self, index: int) -> Path | None:
        return next((link for link in self.host.class_net.iterdir() if _index(link) == index), None)

    def remove(self) -> None:
        """Remove the bridge and its rules; what is gone already is no error."""
        self.host.network.publish(self.cluster, ())
        self.remove_rules()
        if self.exists():
            self.host.run(["ip", "link", "delete", "dev", self.name])

    def remove_rules(self) -> None:
        """Remove every chain of this cluster and the jumps to them."""
        self._replace_rules([])

    def _replace_rules(self, chains: Sequence[Chain]) -> None:
        """Let these be the chains of this cluster, each table at once: no packet meets half of it.

        Raises:
            CommandError: a table stays as it was; the tables before it may be changed.
        """
        ours = {rules.chain_name(self.name, suffix) for suffix in rules.SUFFIXES}
        lines: list[str] = []
        for table in ("filter", "nat"):
            wanted = [chain for chain in chains if chain.table == table]
            listed = _listed(self.host, table)
            there = [words[1] for words in listed if words[0] == "-N" and words[1] in ours]
            added = [words[1:] for words in listed if words[0] == "-A"]
            jumps = [words for words in added if words[-1] in ours and words[0] not in ours]
            if not (wanted or there):
                continue
            names = [chain.name for chain in wanted]
            lines += [f"*{table}"]
            # One that is there is emptied: iptables-restore(8), --noflush.
            lines += [f":{name} - [0:0]" for name in dict.fromkeys((*there, *names))]
            lines += [" ".join(("-D", *words)) for words in jumps]
            for chain in wanted:
                lines += [" ".join(("-A", chain.name, *rule)) for rule in chain.rules]
                lines += [" ".join(("-I", chain.parent, "1", *self._jump(chain)))]
            lines += [f"-X {name}" for name in there if name not in names]
            lines += ["COMMIT"]
        if lines:
            text = "\n".join(lines) + "\n"
            log.debug("rules:\n%s", text)
            self.host.run(["iptables-restore", "-w", "--noflush"], stdin=text)

    def problem(self, wiring: Wiring) -> str:
        """What is no longer as create left it, or nothing."""
        if not self.exists():
            return f"the bridge {self.name} is gone"
        subnets = wiring.subnets
        if f"{subnets.gateway}/{subnets.nodes.prefixlen}" not in self.addresses():
            return f"the bridge {self.name} has lost its address {subnets.gateway}"
        chains = rules.chains(self.name, wiring)
        there = {table: _listed(self.host, table) for table in {chain.table for chain in chains}}
        lacking = [chain.name for chain in chains if not chain.is_whole(there[chain.table])]
        return f"rules are gone from {', '.join(lacking)}" if lacking else ""

    def addresses(self) -> list[str]:
        listed = self.host.run(["ip", "-j", "-4", "address", "show", "dev", self.name], check=False)
        return [
            f"{info['local']}/{info['prefixlen']}"
            for link in json.loads(listed.stdout or "[]")
            for info in link.get("addr_info", [])
        ]

    def _jump(self, chain: Chain) -> tuple[str, ...]:
        return ("-m", "comment", "--comment", f"sykube:{self.cluster}", "-j", chain.name)


def _listed(host: Host, table: str) -> list[list[str]]:
    """The lines of `iptables -S`, in words; nothing where there is no such table."""
    listed = host.run(["iptables", "-w", "-t", table, "-S"], check=False).stdout
    return [line.split() for line in listed.splitlines() if line]


def _index(link: Path) -> int:
    """The index of a link; -1 where there is none: it went, or is the file bonding_masters."""
    try:
        return int((link / "ifindex").read_text(encoding="utf-8"))
    except OSError:
        return -1
