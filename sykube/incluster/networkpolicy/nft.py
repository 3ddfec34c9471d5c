"""nftables: what to tell `nft` so that the kernel holds a set of rules.

Each script is one transaction of the kernel: no packet meets a part of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator

from .rules import ADDRESS, ADDRESS_PORT, EGRESS, INGRESS, PAIR, SELF, Ruleset, Set

TABLE = "sykube-policies"
_TIMEOUT_S = 60.0
# Elements in a line: a netlink message has 64 KiB.
_AT_ONCE = 500
_FAMILIES = ("ip", "bridge")
# How the program ends where the node's kernel has no nftables, or none that it may use.
UNSUPPORTED = 3


class NftError(Exception):
    """nftables did not take a script, and holds what it held before."""


def run(script: str) -> None:
    """Let nftables take a script, all of it or nothing.

    Raises:
        NftError: it did not, or there is no nft.
    """
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=script,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftError(f"nft cannot be run: {error}") from error
    if done.returncode != 0:
        raise NftError(" ".join(done.stderr.split())[:1000])


def probe() -> str:
    """A script that uses what the others need, and leaves nothing."""
    table = "sykube-probe"
    example = Ruleset(
        sets={"ports": Set(ADDRESS_PORT, frozenset({"192.0.2.1 . 80"}))},
        chains={"example": ("ip daddr . tcp dport @ports accept", "sctp dport { 1-2 } drop")},
        maps={INGRESS: {"192.0.2.1": "goto example"}, EGRESS: {}},
    )
    return whole(example, "sykube-probe", table) + _lines(
        f"delete table {family} {table}" for family in _FAMILIES
    )


def whole(rules: Ruleset, bridge: str, table: str = TABLE) -> str:
    """A script for all of it, whatever the kernel holds now.

    Args:
        bridge: the link that the node's pods are on.
    """
    return nothing(table) + _base(bridge, table) + change(Ruleset(), rules, table)


def nothing(table: str = TABLE) -> str:
    """A script after which every packet passes."""
    # To delete one that is not there would be an error.
    return _lines(
        f"{verb} table {family} {table}" for family in _FAMILIES for verb in ("add", "delete")
    )


def change(old: Ruleset, new: Ruleset, table: str = TABLE) -> str:
    """A script for what is different; empty where nothing is."""
    return _lines(_changes(old, new, f"ip {table}"))


def _base(bridge: str, table: str) -> str:
    """What never changes.

    Pods have no addresses of IPv6 from the pod network. But those of a node share a link, on which
    each gives itself one (fe80::), by which they would reach each other past every policy.
    """
    return f"""table bridge {table} {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ether type ip6 drop
    }}
}}
table ip {table} {{
    set {SELF} {{ type {PAIR}; }}
    map {INGRESS} {{ type {ADDRESS} : verdict; }}
    map {EGRESS} {{ type {ADDRESS} : verdict; }}
    chain arriving {{
        oifname != "{bridge}" accept
        ip daddr vmap @{INGRESS}
        drop
    }}
    chain leaving {{
        ip saddr vmap @{EGRESS}
        drop
    }}
    chain forward {{
        type filter hook forward priority filter - 5; policy accept;
        ct state established,related accept
        iifname "{bridge}" oifname "{bridge}" ip saddr . ip daddr @{SELF} accept
        iifname "{bridge}" goto leaving
        goto arriving
    }}
}}
"""


def _changes(old: Ruleset, new: Ruleset, table: str) -> Iterator[str]:
    """What is new comes before what uses it, what is gone after."""
    for name, each in new.sets.items():
        before = old.sets.get(name, Set(each.kind, frozenset()))
        if name not in old.sets:
            yield f"add set {table} {name} {{ type {each.kind}; }}"
        yield from _elements("add", table, name, each.elements - before.elements)
        yield from _elements("delete", table, name, before.elements - each.elements)
    for name in new.chains.keys() - old.chains.keys():
        yield f"add chain {table} {name}"
        yield from (f"add rule {table} {name} {rule}" for rule in new.chains[name])
    for name in (INGRESS, EGRESS):
        wanted, there = {*new.maps[name].items()}, {*old.maps[name].items()}
        yield from _elements("delete", table, name, (key for key, _ in there - wanted))
        yield from _elements("add", table, name, (f"{k} : {v}" for k, v in wanted - there))
    for name in old.chains.keys() - new.chains.keys():
        yield f"flush chain {table} {name}"
        yield f"delete chain {table} {name}"
    for name in old.sets.keys() - new.sets.keys():
        yield f"delete set {table} {name}"


def _elements(verb: str, table: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    listed = sorted(elements)
    for start in range(0, len(listed), _AT_ONCE):
        yield f"{verb} element {table} {name} {{ {', '.join(listed[start : start + _AT_ONCE])} }}"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
