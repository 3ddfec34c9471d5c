"""What sykube relies on in iptables and iptables-restore."""

from __future__ import annotations

from collections.abc import Callable

import pytest

# Runs iptables, or with a text iptables-restore; exit code, output, errors.
Run = Callable[..., tuple[int, str, str]]
RULE = ("-i", "br0", "-j", "ACCEPT")


class IptablesContract:
    """A subclass has the fixture `iptables`, with nothing but the chains that are built in."""

    @pytest.fixture
    def listed(self, iptables: Run) -> Callable[[], list[str]]:
        """The lines of the table filter."""
        return lambda: iptables("-w", "-t", "filter", "-S")[1].splitlines()

    @pytest.fixture
    def ask(self, iptables: Run) -> Callable[..., int]:
        """The exit code of a change of the table filter, which prints nothing."""

        def asked(*words: str) -> int:
            code, out, err = iptables("-w", "-t", "filter", *words)
            assert out == ""
            assert bool(err) is bool(code)
            return code

        return asked

    def test_its_version_names_its_kind(self, iptables: Run) -> None:
        code, out, _ = iptables("--version")
        assert code == 0
        assert out.startswith("iptables v1.")
        assert "(nf_tables)" in out or "(legacy)" in out

    def test_a_table_that_is_not_there(self, iptables: Run) -> None:
        assert iptables("-w", "-t", "absent", "-S")[0] == 3

    def test_chains_are_listed_before_rules(
        self, ask: Callable[..., int], listed: Callable[[], list[str]]
    ) -> None:
        built_in = ["-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-P OUTPUT ACCEPT"]
        assert listed() == built_in
        assert ask("-N", "OURS") == 0
        assert ask("-A", "OURS", *RULE) == 0
        assert ask("-I", "FORWARD", "1", "-j", "OURS") == 0
        assert listed() == [
            *built_in,
            "-N OURS",
            "-A FORWARD -j OURS",
            "-A OURS -i br0 -j ACCEPT",
        ]

    def test_a_rule_is_found_inserted_and_removed(
        self, ask: Callable[..., int], listed: Callable[[], list[str]]
    ) -> None:
        assert ask("-C", "FORWARD", *RULE) == 1
        assert ask("-D", "FORWARD", *RULE) == 1
        assert ask("-A", "FORWARD", *RULE) == 0
        assert ask("-I", "FORWARD", "1", "-j", "DROP") == 0
        assert ask("-C", "FORWARD", *RULE) == 0
        assert listed()[3:] == ["-A FORWARD -j DROP", "-A FORWARD -i br0 -j ACCEPT"]
        assert ask("-D", "FORWARD", *RULE) == 0
        assert listed()[3:] == ["-A FORWARD -j DROP"]

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("-A", "ABSENT", *RULE), 1),
            (("-I", "ABSENT", "1", *RULE), 1),
            (("-C", "ABSENT", *RULE), 1),
            (("-D", "ABSENT", *RULE), 1),
            (("-F", "ABSENT"), 1),
            (("-X", "ABSENT"), 1),
            (("-A", "FORWARD", "-j", "ABSENT"), 2),
            (("-I", "FORWARD", "1", "-j", "ABSENT"), 2),
            (("-N", "A" * 29), 2),
        ],
        ids=str,
    )
    def test_what_is_not_there_or_not_allowed(
        self,
        ask: Callable[..., int],
        listed: Callable[[], list[str]],
        words: tuple[str, ...],
        code: int,
    ) -> None:
        before = listed()
        assert ask(*words) == code
        assert listed() == before

    def test_a_chain_is_made_once(self, ask: Callable[..., int]) -> None:
        assert ask("-N", "A" * 28) == 0
        assert ask("-N", "A" * 28) == 1

    def test_a_chain_in_use_stays(
        self, ask: Callable[..., int], listed: Callable[[], list[str]]
    ) -> None:
        ask("-N", "OURS")
        ask("-A", "OURS", *RULE)
        # The kinds differ in the code.
        assert ask("-X", "OURS") != 0
        assert ask("-F", "OURS") == 0
        ask("-A", "FORWARD", "-j", "OURS")
        assert ask("-X", "OURS") != 0
        assert "-N OURS" in listed()
        assert ask("-D", "FORWARD", "-j", "OURS") == 0
        assert ask("-X", "OURS") == 0
        assert "-N OURS" not in listed()

    @pytest.mark.parametrize(
        ("comment", "shown"),
        [("sykube", "sykube"), ("sykube:lab", '"sykube:lab"'), ("a b", '"a b"')],
    )
    def test_comments(
        self,
        ask: Callable[..., int],
        listed: Callable[[], list[str]],
        comment: str,
        shown: str,
    ) -> None:
        match = ("-m", "comment", "--comment")
        assert ask("-A", "FORWARD", *match, comment, "-j", "DROP") == 0
        assert listed()[3:] == [f"-A FORWARD -m comment --comment {shown} -j DROP"]

    def test_restore_makes_chains_and_empties_those_that_are_there(
        self, iptables: Run, listed: Callable[[], list[str]]
    ) -> None:
        for interface in ("br0", "br1"):
            text = f"*filter\n:OURS - [0:0]\n-A OURS -i {interface} -j ACCEPT\nCOMMIT\n"
            assert iptables("-w", "--noflush", stdin=text) == (0, "", "")
            assert listed()[3:] == ["-N OURS", f"-A OURS -i {interface} -j ACCEPT"]

    @pytest.mark.parametrize("end", ["-A ABSENT -j ACCEPT\nCOMMIT\n", "-A OURS -j ACCEPT\n"])
    def test_restore_does_all_or_nothing(
        self,
        iptables: Run,
        ask: Callable[..., int],
        listed: Callable[[], list[str]],
        end: str,
    ) -> None:
        ask("-A", "FORWARD", *RULE)
        before = listed()
        text = f"*filter\n:OURS - [0:0]\n-A FORWARD -j OURS\n{end}"
        code, _, err = iptables("-w", "--noflush", stdin=text)
        assert code == 1
        assert "line 4" in err or "line 5" in err
        assert listed() == before
