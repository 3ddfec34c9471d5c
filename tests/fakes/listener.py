"""A server on loopback that speaks with whoever connects, for brokers of `sykube bench stream`."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field


@dataclass
class FakeBroker(ABC):
    """It listens until it is closed.

    Attributes:
        dies_after: messages, after which it ends all connections.
        drops: the number, from 0, of a message that it loses.
        refuses: whether it has no room for messages.
        asked: the names of what it was asked beside messages, in order.
    """

    dies_after: int = -1
    drops: int = -1
    refuses: bool = False
    asked: list[str] = field(default_factory=list)
    _connections: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        """End all connections."""
        for each in self._connections:
            # Those that have ended already are no error.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more."""
        # Which wakes who waits for connections.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.end()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._server.accept()[0]
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    @abstractmethod
    def _talk(self, connection: socket.socket) -> None:
        """Speak the broker's protocol until the other side ends."""
