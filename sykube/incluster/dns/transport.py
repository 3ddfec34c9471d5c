"""What both servers know of sockets: where to listen, and how many bytes a datagram may have."""

from __future__ import annotations

from typing import NamedTuple

UDP_PAYLOAD = 1232
"""Bytes that fit everywhere in one piece: DNS flag day 2020, as Unbound's default."""

_SMALLEST_PAYLOAD = 512


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT or [HOST]:PORT."""
        host, separator, port = text.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 0xFFFF:
            raise ValueError(f"not HOST:PORT: {text!r}")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))


def payload(taken: int) -> int:
    """How many bytes of UDP an answer may have.

    Args:
        taken: what the client takes, by its OPT record; 0 where it has none.
    """
    return max(min(taken, UDP_PAYLOAD), _SMALLEST_PAYLOAD)
