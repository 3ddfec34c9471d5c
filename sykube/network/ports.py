"""Ports of the host that lead to ports of nodes."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from sykube.errors import HostError, UsageError
from sykube.host.host import Host
from sykube.host.network import LedAwayError

_TEXT = re.compile(
    r"(?:(?P<address>[0-9.]+):)?(?P<host>\d+):(?P<node>\d+)(?:/(?P<protocol>\w+))?(?:@(?P<at>\S+))?"
)
_LAST = 65535
ANY = "0.0.0.0"
_CONNECT_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class PortMap:
    """A port of the host and where it leads.

    Attributes:
        address: of the host that it is on: loopback unless asked for otherwise; 0.0.0.0 for all.
        protocol: tcp or udp.
        node: name of a node; empty for whichever has the control plane's address.
    """

    address: str
    host_port: int
    node_port: int
    protocol: str = "tcp"
    node: str = ""

    @classmethod
    def parse(cls, text: str) -> PortMap:
        """Read [ADDRESS:]HOST:NODE[/PROTOCOL][@NODE_NAME].

        Raises:
            ValueError: it is not that; says what is wrong.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"the port {text!r} is not [ADDRESS:]HOST:NODE, such as 8080:30080")
        try:
            address = str(IPv4Address(match["address"] or "127.0.0.1"))
        except AddressValueError as error:
            raise ValueError(f"the port {text!r} has no IPv4 address before it: {error}") from error
        protocol = (match["protocol"] or "tcp").lower()
        if protocol not in ("tcp", "udp"):
            raise ValueError(f"the port {text!r} is neither of TCP nor of UDP")
        made = cls(address, int(match["host"]), int(match["node"]), protocol, match["at"] or "")
        if not all(0 < port <= _LAST for port in (made.host_port, made.node_port)):
            raise ValueError(f"the port {text!r} has a number that is not from 1 to {_LAST}")
        return made

    def __str__(self) -> str:
        protocol = "" if self.protocol == "tcp" else f"/{self.protocol}"
        node = f"@{self.node}" if self.node else ""
        return f"{self.address}:{self.host_port}:{self.node_port}{protocol}{node}"

    @property
    def is_loopback(self) -> bool:
        return IPv4Address(self.address).is_loopback

    def collides(self, other: PortMap) -> bool:
        """Whether both are the same port of the host."""
        same = self.address == other.address or ANY in (self.address, other.address)
        return same and (self.host_port, self.protocol) == (other.host_port, other.protocol)


def parse(text: str) -> PortMap:
    """As PortMap.parse, for people.

    Raises:
        UsageError: it is no such text.
    """
    try:
        return PortMap.parse(text)
    except ValueError as error:
        raise UsageError(str(error), resolution="Correct it and run the command again.") from error


def check_free(host: Host, wanted: PortMap) -> None:
    """Refuse a port that a program of the host has.

    Raises:
        HostError: it is in use, or the host has no such address.
    """
    kind = socket.SOCK_STREAM if wanted.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        host.network.bind(kind, (wanted.address, wanted.host_port))
    except OSError as error:
        raise refusal(error, wanted.address, wanted.host_port) from error


def refusal(error: OSError, address: str, port: int) -> HostError:
    """What people are told of a port that could not be taken.

    Args:
        error: of `Network.bind`.
    """
    if error.errno == errno.EADDRNOTAVAIL:
        return HostError(
            f"this host has no address {address}",
            resolution="Take one that `ip address` lists, or leave it out for loopback.",
        )
    if isinstance(error, LedAwayError):
        return HostError(
            f"the port {port} of {address} is led elsewhere on this host",
            details=f"{error}: rules of the firewall lead it to another cluster or container, or "
            "drop it",
            resolution="Take another. Root is shown such rules by: iptables -t nat -S",
        )
    if error.errno == errno.EACCES:
        return HostError(
            f"the port {port} of {address} is in use on this host, or not yours",
            resolution="Take another: a user has those from 1024 on.",
        )
    return HostError(
        f"the port {port} of {address} is in use on this host",
        resolution=f"Take another, or see who has it: ss -lnp sport = :{port}",
    )


def silence(host: Host, address: str, port: int) -> str:
    """Why nothing answers at a TCP port within 2 s, or nothing where something does."""
    try:
        host.network.connect((address, port), _CONNECT_TIMEOUT_S)
    except OSError as error:
        return f"{address}:{port} does not answer: {error}"
    return ""
