"""The host's own way to its ports, for a command that has gone on in the user's namespaces.

A socket stays in the network that it was opened in. That a port can be listened on does not say
that what is sent to it arrives: rules of the firewall may drop it, or lead it elsewhere, as those
of root's clusters, of container engines and of a Kubernetes on the host do. A user can read none.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

# As the kernel writes it: net/ipv4/fib_trie.c, fib_trie_seq_show.
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
# connect(2): this ends a connection, and the socket can have another one.
_UNSPECIFIED = struct.pack("H14x", socket.AF_UNSPEC)
_ARRIVES_S = 5.0
# A datagram may be lost.
_AGAIN_S = 0.5


@dataclass(frozen=True)
class HostPorts:
    """What is open of the host's network.

    Attributes:
        routes: the file that has its addresses.
    """

    stream: socket.socket
    datagrams: socket.socket
    routes: TextIO

    @classmethod
    def open(cls, proc: Path) -> HostPorts:
        """Of the network that this process is in."""
        return cls(
            socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            (proc / "net/fib_trie").open(encoding="utf-8"),
        )

    def addresses(self) -> list[str]:
        """The host's own."""
        self.routes.seek(0)
        return sorted({*_LOCAL.findall(self.routes.read())})

    def reaches(self, address: tuple[str, int], here: socket.socket) -> bool:
        """Whether what is sent to a port of the host is received by a socket, within 5 s.

        Args:
            here: what the port is to lead to; it listens, where it is one of TCP.
        """
        token = secrets.token_hex(16).encode()
        deadline = time.monotonic() + _ARRIVES_S
        try:
            while (left := deadline - time.monotonic()) > 0:
                self._send(here.type, address, token, left)
                wait = min(left, _AGAIN_S) if here.type == socket.SOCK_DGRAM else left
                if _receives(here, token, time.monotonic() + wait):
                    return True
        except OSError:
            return False
        finally:
            ctypes.CDLL(None).connect(self.stream.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))
        return False

    def _send(self, kind: int, address: tuple[str, int], data: bytes, timeout: float) -> None:
        if kind == socket.SOCK_DGRAM:
            self.datagrams.sendto(data, address)
            return
        self.stream.settimeout(timeout)
        self.stream.connect(address)
        self.stream.sendall(data)


def _receives(here: socket.socket, token: bytes, deadline: float) -> bool:
    """Whether it comes in time; others of the host may send something to that port, too."""
    received = b""
    while received != token and (left := deadline - time.monotonic()) > 0:
        here.settimeout(left)
        with contextlib.suppress(OSError):
            if here.type == socket.SOCK_DGRAM:
                received = here.recv(len(token))
                continue
            connection, _ = here.accept()
            with connection:
                connection.settimeout(_AGAIN_S)
                received = connection.recv(len(token), socket.MSG_WAITALL)
    return received == token
