"""The programs iptables and iptables-restore of a fake host."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from tests.fakes.answers import Answer
from tests.fakes.kernel import Kernel


@dataclass
class Iptables:
    """The packet filter of a kernel by its command line."""

    kernel: Kernel

    def __call__(self, words: list[str]) -> Answer:
        assert words[:2] == ["-w", "-t"], words
        chains = self.kernel.tables[words[2]]
        built_in = Kernel.BUILT_IN[words[2]]
        jumped_to = {rule[-1] for rules in chains.values() for rule in rules}
        missing = (1, "", "iptables: No chain/target/match by that name.")
        match words[3:]:
            case ["-S"]:
                lines = [f"-P {name} ACCEPT" for name in built_in]
                lines += [f"-N {name}" for name in chains if name not in built_in]
                lines += [
                    " ".join(("-A", name, *(f'"{word}"' if ":" in word else word for word in rule)))
                    for name, rules in chains.items()
                    for rule in rules
                ]
                return 0, "\n".join(lines) + "\n", ""
            case ["-C", name, *rule]:
                return (0, "", "") if tuple(rule) in chains.get(name, []) else missing
            case ["-N", name]:
                assert len(name) <= 28, f"iptables takes no chain name {name!r}"
                if name in chains:
                    return 1, "", "iptables: Chain already exists."
                chains[name] = []
            case ["-A", name, *rule]:
                if name not in chains:
                    return missing
                chains[name].append(tuple(rule))
            case ["-I", name, "1", *rule]:
                if name not in chains or rule[-1] not in {*chains, "ACCEPT", "DROP"}:
                    return missing
                chains[name].insert(0, tuple(rule))
            case ["-D", name, *rule]:
                if name not in chains or tuple(rule) not in chains[name]:
                    return 1, "", "iptables: Bad rule (does a matching rule exist in that chain?)."
                chains[name].remove(tuple(rule))
            case ["-F", name]:
                if name not in chains:
                    return missing
                chains[name].clear()
            case ["-X", name]:
                if name not in chains:
                    return missing
                if chains[name] or name in jumped_to:
                    return 1, "", "iptables: Too many links."
                del chains[name]
            case unknown:
                raise AssertionError(f"the fake iptables does not know: {unknown}")
        return 0, "", ""

    def restore(self, words: list[str], stdin: str) -> Answer:
        """What is said of a table is done at its COMMIT, or not at all."""
        assert words == ["-w", "--noflush"], words
        table, before = "", {}
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
            code, _, stderr = self(["-w", "-t", table, *change])
            if code:
                self.kernel.tables[table] = before
                return code, "", f"{stderr}\nError occurred at line: {number}"
        assert table == "", "nothing is done without COMMIT"
        return 0, "", ""
