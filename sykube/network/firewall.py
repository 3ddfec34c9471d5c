"""Other firewall rules of the host that drop a cluster's packets, as far as they are certain to."""

from __future__ import annotations

import json
import shlex

from sykube.host.finding import Finding, Level
from sykube.host.host import Host
from sykube.host.run import CommandError

_DROPS = ("DROP", "REJECT")
# iptables-nft keeps its own tables among those of nftables; they are read by way of iptables.
_OF_IPTABLES = frozenset((family, name) for family in ("ip", "ip6") for name in ("filter", "nat"))


def dropping_rules(host: Host, our_chain: str, bridge: str) -> list[str]:
    """Rules of iptables that drop every forwarded packet of a bridge before our chain sees it."""
    listed = host.run(["iptables", "-w", "-t", "filter", "-S"], check=False).stdout
    chains: dict[str, list[list[str]]] = {}
    for line in listed.splitlines():
        words = shlex.split(line)
        if words[:1] == ["-A"]:
            chains.setdefault(words[1], []).append(words)
    return _dropping(chains, "FORWARD", our_chain, bridge, 0)[0]


def nftables_chains(host: Host, bridge: str) -> list[str]:
    """Other base chains that drop what they do not accept and do not name our bridge.

    What one base chain accepts, the next can still drop: `man nft`, "verdict statements".
    """
    try:
        listed = host.run(["nft", "--json", "list", "chains"], check=False).stdout
    except CommandError:
        # There is no nft: nobody sets such rules by it.
        return []
    chains = [entry.get("chain", {}) for entry in json.loads(listed or "{}").get("nftables", [])]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["family"] in ("ip", "inet")
        and (chain["family"], chain["table"]) not in _OF_IPTABLES
        and not _names(host, chain, bridge)
    ]


def firewalld_zone(host: Host, bridge: str) -> str:
    """The zone of firewalld that a bridge is in where that is not "trusted"; empty without it."""
    try:
        done = host.run(["firewall-cmd", f"--get-zone-of-interface={bridge}"], check=False)
    except CommandError:
        return ""
    # firewall-cmd(1): 252 is NOT_RUNNING; "no zone" goes with an exit code of 2.
    if done.code == 252:
        return ""
    zone = done.stdout.strip() if done.ok else "the default one"
    return "" if zone == "trusted" else zone


def check_firewalld(host: Host, bridge: str) -> list[Finding]:
    """What is to be done about firewalld, for a bridge that is there or is to come.

    In any other zone what nodes send to this host, such as questions for its resolver, is refused,
    and what they send elsewhere where the zone has no `forward`: firewalld.zone(5). The bridges of
    a user's clusters are in a network of their own, which it does not know.
    """
    if host.grants.rootless:
        return []
    zone = firewalld_zone(host, bridge)
    if not zone:
        return []
    command = f"firewall-cmd --zone=trusted --change-interface={bridge}"
    detail = f"firewalld has {bridge} in the zone {zone}, and may drop what nodes send"
    cure = f"{command} && {command} --permanent"
    return [Finding("firewall", Level.WARNING, detail, cure)]


def _dropping(
    chains: dict[str, list[list[str]]], chain: str, our_chain: str, bridge: str, depth: int
) -> tuple[list[str], bool]:
    """Rules of a chain that drop, and whether what follows it is not reached any more."""
    found: list[str] = []
    for words in chains.get(chain, []):
        target = words[words.index("-j") + 1] if "-j" in words else ""
        if target == our_chain:
            return found, True
        if not _meets_all(words, bridge):
            continue
        if target in _DROPS:
            return [*found, shlex.join(words)], True
        if target in ("ACCEPT", "RETURN"):
            return found, target == "ACCEPT"
        if target in chains and depth < 10:
            inner, ended = _dropping(chains, target, our_chain, bridge, depth + 1)
            found += inner
            if ended:
                return found, True
    return found, False


def _meets_all(words: list[str], bridge: str) -> bool:
    """Whether a rule has no condition, or only that the packet comes from or goes to our bridge."""
    if "-j" not in words:
        return False
    conditions = words[2 : words.index("-j")]
    if conditions[-3:-1] == ["comment", "--comment"]:
        conditions = conditions[:-4]
    return conditions in ([], ["-i", bridge], ["-o", bridge])


def _names(host: Host, chain: dict[str, str], bridge: str) -> bool:
    place = (chain["family"], chain["table"], chain["name"])
    return bridge in host.run(["nft", "list", "chain", *place], check=False).stdout
