"""Both ends of a measured connection; pods run this file, too, with the standard library alone."""

from __future__ import annotations

import socket
import time

_BLOCK = 1 << 20
_CONNECT_S = 10.0


def take(address: str, port: int, connections: int) -> None:
    """Read all that connections bring, one after the other, and tell each how much that was."""
    with socket.create_server((address, port)) as server:
        for _ in range(connections):
            connection, _ = server.accept()
            with connection:
                taken = 0
                while block := connection.recv(_BLOCK):
                    taken += len(block)
                connection.sendall(str(taken).encode())


def send(address: str, port: int, seconds: float) -> float:
    """Send for so long; MB each second until the other side has read all of it."""
    with socket.create_connection((address, port), _CONNECT_S) as connection:
        connection.settimeout(None)
        begun = time.monotonic()
        block = bytes(_BLOCK)
        while time.monotonic() < begun + seconds:
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        taken = int(connection.recv(100))
        return taken / 1e6 / (time.monotonic() - begun)
