"""Ports of the host, as they are written and as they are free."""

from __future__ import annotations

import socket

import pytest

from sykube.errors import HostError, UsageError
from sykube.host.host import Host
from sykube.network import ports
from sykube.network.ports import PortMap


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:30080", PortMap("127.0.0.1", 8080, 30080)),
        ("0.0.0.0:53:30053/udp", PortMap("0.0.0.0", 53, 30053, "udp")),
        ("8080:80/TCP@node1", PortMap("127.0.0.1", 8080, 80, "tcp", "node1")),
    ],
)
def test_what_users_write_is_read_and_written_again(text: str, expected: PortMap) -> None:
    assert PortMap.parse(text) == expected
    assert PortMap.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8080", "is not"),
        ("a:b", "is not"),
        ("8080:0", "not from 1 to 65535"),
        ("70000:80", "not from 1 to 65535"),
        ("8080:80/sctp", "neither of TCP nor of UDP"),
        ("300.0.0.1:8080:80", "no IPv4 address"),
        ("", "is not"),
    ],
)
def test_what_is_no_port_is_wrong_use(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ports.parse(text)


def test_ports_collide_on_the_same_address_or_on_all() -> None:
    one = PortMap("127.0.0.1", 8080, 1)
    assert one.collides(PortMap("127.0.0.1", 8080, 2))
    assert one.collides(PortMap("0.0.0.0", 8080, 2))
    assert not one.collides(PortMap("127.0.0.2", 8080, 1))
    assert not one.collides(PortMap("127.0.0.1", 8080, 1, "udp"))


@pytest.mark.parametrize(
    ("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")]
)
def test_a_port_that_a_program_has_is_not_free(kind: int, protocol: str) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        taken = PortMap("127.0.0.1", other.getsockname()[1], 80, protocol)
        if protocol == "tcp":
            other.listen()
        with pytest.raises(HostError, match=f"the port {taken.host_port} of 127.0.0.1 is in use"):
            ports.check_free(Host(), taken)
    ports.check_free(Host(), taken)


def test_an_address_that_the_host_has_not() -> None:
    with pytest.raises(HostError, match="this host has no address 203.0.113.9"):
        ports.check_free(Host(), PortMap("203.0.113.9", 8080, 80))
