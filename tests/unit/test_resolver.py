"""Which resolvers nodes forward names to."""

from __future__ import annotations

import pytest

from sykube.errors import ExitCode, HostError
from sykube.host.host import Host
from sykube.host.resolver import Resolvers, host_resolvers
from tests.fakes import fill


def read(host: Host, text: str) -> Resolvers:
    fill(host.etc, {"resolv.conf": text})
    return host_resolvers(host)


def test_ordinary_resolvers_are_used_as_they_are(host: Host) -> None:
    text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver\t192.0.2.2\n"
    found = read(host, text)
    assert found == Resolvers(("192.0.2.1", "192.0.2.2"))
    assert found.as_seen_by_nodes("10.11.11.1") == ("192.0.2.1", "192.0.2.2")


def test_a_loopback_resolver_is_reached_through_the_gateway(host: Host) -> None:
    found = read(host, "nameserver 127.0.0.53\noptions edns0\n")
    assert found == Resolvers((), "127.0.0.53")
    assert found.as_seen_by_nodes("10.11.11.1") == ("10.11.11.1",)


def test_a_node_gets_three_resolvers_at_most(host: Host) -> None:
    lines = ["127.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    found = read(host, "".join(f"nameserver {line}\n" for line in lines))
    seen = found.as_seen_by_nodes("10.11.11.1")
    assert seen == ("10.11.11.1", "192.0.2.1", "192.0.2.2")


def test_resolvers_over_ipv6_are_left_out(host: Host) -> None:
    found = read(host, "nameserver fe80::1%eth0\nnameserver ::1\nnameserver 192.0.2.1\n")
    assert found == Resolvers(("192.0.2.1",))


@pytest.mark.parametrize(
    "text", ["", "search example\n", "nameserver\n", "nameserver 2001:db8::1\n"]
)
def test_a_host_without_one_that_nodes_reach(host: Host, text: str) -> None:
    with pytest.raises(HostError) as raised:
        read(host, text)
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    assert "--dns ADDRESS" in raised.value.resolution
    assert "--dns none" in raised.value.resolution


def test_none_is_asked_for(host: Host) -> None:
    found = host_resolvers(host, ("none",))
    assert found == Resolvers(())
    assert found.as_seen_by_nodes("10.11.11.1") == ()


def test_what_is_wrong_with_addresses_that_were_given(host: Host) -> None:
    with pytest.raises(HostError) as raised:
        host_resolvers(host, ("2001:db8::1",))
    assert raised.value.details == "--dns: 2001:db8::1"


def test_a_host_without_the_file(host: Host) -> None:
    with pytest.raises(HostError, match="no resolver"):
        host_resolvers(host)


def test_a_line_that_is_no_address_is_ignored_as_by_glibc(host: Host) -> None:
    assert read(host, "nameserver none\nnameserver 192.0.2.1\n").direct == ("192.0.2.1",)


def test_those_asked_for_replace_the_hosts(host: Host) -> None:
    fill(host.etc, {"resolv.conf": "nameserver 192.0.2.1\n"})
    assert host_resolvers(host, ("198.51.100.1",)) == Resolvers(("198.51.100.1",))
    with pytest.raises(HostError):
        host_resolvers(host, ("2001:db8::1",))
