"""The programs iptables and iptables-restore of a fake host.

What they answer is what the real ones do: tests/contracts/iptables.py.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tests.fakes.answers import Answer
from tests.fakes.kernel import Kernel

_VERSION = "iptables v1.8.9 (nf_tables)"
_TARGETS = (
    *("ACCEPT", "DROP", "REJECT", "RETURN"),
    *("DNAT", "MARK", "MASQUERADE", "SNAT", "TCPMSS"),
)
_MISSING = (1, "", "iptables: No chain/target/match by that name.")
_NO_RULE = (1, "", "iptables: Bad rule (does a matching rule exist in that chain?).")


@dataclass
class Iptables:
    """The packet filter of a kernel by its command line."""

    kernel: Kernel

    def __call__(self, words: list[str]) -> Answer:
        match words:
            case ["--version"]:
                return 0, f"{_VERSION}\n", ""
            case ["-w", "-t", table, *change]:
                if table not in self.kernel.tables:
                    return 3, "", f"{_VERSION}: table '{table}' does not exist"
                return self._change(table, change)
        raise AssertionError(f"the fake iptables does not know: {words}")

    def _change(self, table: str, change: list[str]) -> Answer:
        chains = self.kernel.tables[table]
        match change:
            case ["-S"]:
                return 0, self._listed(table), ""
            case ["-C", name, *rule]:
                return (0, "", "") if tuple(rule) in chains.get(name, []) else _NO_RULE
            case ["-N", name]:
                if len(name) > 28:
                    return 2, "", f"{_VERSION}: chain name `{name}' too long"
                if name in chains:
                    return 1, "", "iptables: Chain already exists."
                chains[name] = []
            case ["-A", name, *rule]:
                if refused := self._refused(table, name, rule):
                    return refused
                chains[name].append(tuple(rule))
            case ["-I", name, "1", *rule]:
                if refused := self._refused(table, name, rule):
                    return refused
                chains[name].insert(0, tuple(rule))
            case ["-D", name, *rule]:
                if name not in chains or tuple(rule) not in chains[name]:
                    return _NO_RULE
                chains[name].remove(tuple(rule))
            case ["-F", name]:
                if name not in chains:
                    return _MISSING
                chains[name].clear()
            case ["-X", name]:
                if name not in chains:
                    return _MISSING
                jumped_to = {_target(rule) for rules in chains.values() for rule in rules}
                if chains[name] or name in jumped_to:
                    busy = f"CHAIN_DEL failed (Device or resource busy): chain {name}"
                    return 4, "", f"{_VERSION}:  {busy}"
                del chains[name]
            case unknown:
                raise AssertionError(f"the fake iptables does not know: {unknown}")
        return 0, "", ""

    def _refused(self, table: str, name: str, rule: list[str]) -> Answer | None:
        chains = self.kernel.tables[table]
        target = _target(tuple(rule))
        if target not in {"", *_TARGETS, *chains}:
            return 2, "", f"{_VERSION}: Chain '{target}' does not exist"
        return None if name in chains else _MISSING

    def _listed(self, table: str) -> str:
        built_in, chains = Kernel.BUILT_IN[table], self.kernel.tables[table]
        lines = [f"-P {name} ACCEPT" for name in built_in]
        lines += [f"-N {name}" for name in chains if name not in built_in]
        for name, rules in chains.items():
            lines += [" ".join(("-A", name, *_quoted(rule))) for rule in rules]
        return "\n".join(lines) + "\n"

    def restore(self, words: list[str], stdin: str) -> Answer:
        """What is said of a table is done at its COMMIT, or not at all."""
        assert words == ["-w", "--noflush"], words
        table, number = "", 0
        before: dict[str, list[tuple[str, ...]]] = {}
        for number, line in enumerate(stdin.splitlines(), 1):
            match shlex.split(line):
                case ["COMMIT"]:
                    table = ""
                    continue
                case [name] if name.startswith("*"):
                    table = name.removeprefix("*")
                    chains = self.kernel.tables[table]
                    before = {name: list(rules) for name, rules in chains.items()}
                    continue
                case [name, "-", "[0:0]"] if name.startswith(":"):
                    chain = name.removeprefix(":")
                    change = ["-F" if chain in self.kernel.tables[table] else "-N", chain]
                case change:
                    pass
            code, _, stderr = self._change(table, change)
            if code:
                self.kernel.tables[table] = before
                return code, "", f"iptables-restore: line {number} failed: {stderr}"
        if table:
            self.kernel.tables[table] = before
            return 1, "", f"iptables-restore: COMMIT expected at line {number + 1}"
        return 0, "", ""


def _target(rule: tuple[str, ...]) -> str:
    return rule[rule.index("-j") + 1] if "-j" in rule else ""


def _quoted(rule: tuple[str, ...]) -> list[str]:
    """Comments are quoted where they are more than a word."""
    return [
        f'"{word}"' if before == "--comment" and re.search(r"[^\w-]", word) else word
        for before, word in zip(("", *rule), rule, strict=False)
    ]
