"""ARP: who has an address (RFC 826, RFC 5227); in the place of the nodes that addresses lead to."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_ETHERNET = 0x0806
_FORMAT = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_BROADCAST, _NOBODY = b"\xff" * 6, b"\0" * 6
# Nodes that were started again have another hardware address.
_REFRESH_S = 10.0


class Packet(NamedTuple):
    """What an ARP packet says; addresses of IPv4 as text."""

    operation: int
    sender_mac: bytes
    sender: str
    target: str


def parse(frame: bytes) -> Packet | None:
    """Read an Ethernet frame; None where it is no ARP for IPv4."""
    if len(frame) < _FORMAT.size:
        return None
    _, _, kind, *form, operation, mac, sender, _, target = _FORMAT.unpack_from(frame)
    if kind != _ETHERNET or form != [1, 0x0800, 6, 4]:
        return None
    return Packet(operation, mac, socket.inet_ntoa(sender), socket.inet_ntoa(target))


def frame(
    operation: int, source: bytes, destination: bytes, mac: bytes, sender: str, target: str
) -> bytes:
    """An ARP packet in an Ethernet frame from a source, which says that a sender has a MAC."""
    head = (destination, source, _ETHERNET, 1, 0x0800, 6, 4, operation)
    asked = _NOBODY if operation == _REQUEST else destination
    return _FORMAT.pack(*head, mac, socket.inet_aton(sender), asked, socket.inet_aton(target))


@dataclass
class Table:
    """Which addresses lead where, and what is to be sent for that; it sends nothing itself.

    Args:
        mac: of this node, which frames come from: bridges learn from it where this node is.
        address: of this node.
    """

    mac: bytes
    address: str = ""
    _places: dict[str, str] = field(default_factory=dict)
    _macs: dict[str, bytes] = field(default_factory=dict)
    _nodes: frozenset[str] = frozenset()

    def update(self, address: str, nodes: Iterable[str], places: Mapping[str, str]) -> list[bytes]:
        """Take in this node's address, those of all nodes, and the node's of each address."""
        self.address, self._nodes = address, frozenset(nodes)
        self._macs = {each: mac for each, mac in self._macs.items() if each in self._nodes}
        if address:
            self._macs[address] = self.mac
        moved = [each for each, place in places.items() if self._places.get(each) != place]
        self._places = dict(places)
        unknown = {place for place in places.values() if place not in self._macs}
        return [*map(self._ask, sorted(unknown)), *self._announce(moved)]

    def refresh(self) -> list[bytes]:
        """Ask for the hardware addresses of all other nodes that addresses lead to."""
        return [self._ask(each) for each in sorted({*self._places.values()} - {self.address})]

    def hears(self, packet: Packet) -> list[bytes]:
        """What there is to say to a packet of somebody's."""
        if packet.sender_mac == self.mac:
            return []
        if packet.sender in self._nodes:
            return self._learn(packet.sender, packet.sender_mac)
        # No node is told: what kube-proxy did not take there would come back to it for ever.
        if packet.operation != _REQUEST or packet.sender_mac in self._macs.values():
            return []
        place = self._places.get(packet.target)
        if place is None:
            return []
        if (mac := self._macs.get(place)) is None:
            return [self._ask(place)]
        return [
            frame(_REPLY, self.mac, packet.sender_mac, mac, packet.target, packet.sender)
        ]  # fmt: skip

    def _learn(self, node: str, mac: bytes) -> list[bytes]:
        if self._macs.get(node) == mac:
            return []
        self._macs[node] = mac
        return self._announce([each for each, place in self._places.items() if place == node])

    def _ask(self, node: str) -> bytes:
        return frame(_REQUEST, self.mac, _BROADCAST, self.mac, self.address or "0.0.0.0", node)

    def _announce(self, addresses: Iterable[str]) -> list[bytes]:
        """So that who knows an address by another node's goes to the new one at once."""
        known = ((each, self._macs.get(self._places[each])) for each in addresses)
        return [
            frame(_REQUEST, self.mac, _BROADCAST, mac, address, address)
            for address, mac in known
            if mac is not None
        ]


class Announcer(threading.Thread):
    """Answers on an interface by a table, for good.

    Raises:
        OSError: there is no such interface, or it may not be used so.
    """

    def __init__(self, interface: str) -> None:
        super().__init__(name="arp", daemon=True)
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERNET)
        )  # fmt: skip
        self._socket.bind((interface, _ETHERNET))
        self._socket.settimeout(1.0)
        self._table = Table(self._socket.getsockname()[4])
        self._lock = threading.Lock()

    def update(self, address: str, nodes: Iterable[str], places: Mapping[str, str]) -> None:
        """As Table.update."""
        with self._lock:
            self._send(self._table.update(address, nodes, places))

    def run(self) -> None:
        """Answer until the interface goes."""
        refreshed = time.monotonic()
        while True:
            try:
                packet = parse(self._socket.recv(2048))
            except TimeoutError:
                packet = None
            with self._lock:
                if packet is not None:
                    self._send(self._table.hears(packet))
                if time.monotonic() - refreshed > _REFRESH_S:
                    refreshed = time.monotonic()
                    self._send(self._table.refresh())

    def _send(self, frames: Iterable[bytes]) -> None:
        for each in frames:
            self._socket.send(each)
