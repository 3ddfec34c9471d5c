"""Which resolvers nodes forward names to."""

from __future__ import annotations

from pathlib import Path

import pytest

from sykube.errors import ExitCode, HostError
from sykube.host.resolver import Resolvers, host_resolvers


def read(tmp_path: Path, text: str) -> Resolvers:
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    return host_resolvers(resolv_conf=file)


def test_ordinary_resolvers_are_used_as_they_are(tmp_path: Path) -> None:
    text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver\t192.0.2.2\n"
    found = read(tmp_path, text)
    assert found == Resolvers(("192.0.2.1", "192.0.2.2"))
    assert found.as_seen_by_nodes("10.11.11.1") == ("192.0.2.1", "192.0.2.2")


def test_a_loopback_resolver_is_reached_through_the_gateway(tmp_path: Path) -> None:
    found = read(tmp_path, "nameserver 127.0.0.53\noptions edns0\n")
    assert found == Resolvers((), "127.0.0.53")
    assert found.as_seen_by_nodes("10.11.11.1") == ("10.11.11.1",)


def test_a_node_gets_three_resolvers_at_most(tmp_path: Path) -> None:
    lines = ["127.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    found = read(tmp_path, "".join(f"nameserver {line}\n" for line in lines))
    seen = found.as_seen_by_nodes("10.11.11.1")
    assert seen == ("10.11.11.1", "192.0.2.1", "192.0.2.2")


def test_resolvers_over_ipv6_are_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, "nameserver fe80::1%eth0\nnameserver ::1\nnameserver 192.0.2.1\n")
    assert found == Resolvers(("192.0.2.1",))


@pytest.mark.parametrize(
    "text", ["", "search example\n", "nameserver\n", "nameserver 2001:db8::1\n"]
)
def test_a_host_without_one_that_nodes_reach(tmp_path: Path, text: str) -> None:
    with pytest.raises(HostError) as raised:
        read(tmp_path, text)
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    assert "--dns ADDRESS" in raised.value.resolution
    assert "--dns none" in raised.value.resolution


def test_none_is_asked_for(tmp_path: Path) -> None:
    found = host_resolvers(("none",), tmp_path / "absent")
    assert found == Resolvers(())
    assert found.as_seen_by_nodes("10.11.11.1") == ()


def test_what_is_wrong_with_addresses_that_were_given(tmp_path: Path) -> None:
    with pytest.raises(HostError) as raised:
        host_resolvers(("2001:db8::1",), tmp_path / "absent")
    assert raised.value.details == "--dns: 2001:db8::1"


def test_a_host_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no resolver"):
        host_resolvers(resolv_conf=tmp_path / "absent")


def test_a_line_that_is_no_address_is_ignored_as_by_glibc(tmp_path: Path) -> None:
    assert read(tmp_path, "nameserver none\nnameserver 192.0.2.1\n").direct == ("192.0.2.1",)


def test_those_asked_for_replace_the_hosts(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    assert host_resolvers(("198.51.100.1",), file) == Resolvers(("198.51.100.1",))
    with pytest.raises(HostError):
        host_resolvers(("2001:db8::1",), file)
