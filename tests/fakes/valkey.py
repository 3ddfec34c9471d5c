"""A Valkey server, as far as `sykube bench stream` asks it."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import IO


@dataclass
class FakeValkey:
    """It listens on loopback until it is closed.

    Attributes:
        dies_after: messages, after which it ends all connections.
        drops: the number, from 0, of a message that it loses.
        refuses: whether it has no room for messages.
        asked: the names of commands that it was asked, in order.
    """

    dies_after: int = -1
    drops: int = -1
    refuses: bool = False
    asked: list[str] = field(default_factory=list)
    _keys: set[bytes] = field(default_factory=set)
    _entries: list[tuple[int, bytes]] = field(default_factory=list)
    _added: int = 0
    _connections: list[socket.socket] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

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

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            while words := _words(lines):
                name = words[0].decode()
                self.asked.append(name)
                answer = self._answer(name, words[1:])
                # In pieces, as a network may hand them over.
                for start in range(0, len(answer), 50):
                    connection.sendall(answer[start : start + 50])

    def _answer(self, name: str, words: list[bytes]) -> bytes:
        match name:
            case "SET":
                self._keys.add(words[0])
                return b"+OK\r\n"
            case "EXISTS":
                return b":%d\r\n" % (words[0] in self._keys)
            case "XADD":
                return self._add(words[-1])
            case "XREAD":
                return self._read(words[-2], int(words[1]) / 1000, int(words[-1].split(b"-")[0]))
        return b":2\r\n"

    def _add(self, message: bytes) -> bytes:
        if self.refuses:
            return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        number, self._added = self._added, self._added + 1
        if number == self.dies_after:
            self.end()
        with self._changed:
            if number != self.drops:
                self._entries.append((number + 1, message))
            self._changed.notify_all()
        return _text(b"%d-0" % (number + 1))

    def _read(self, name: bytes, seconds: float, last: int) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: any(key > last for key, _ in self._entries), seconds)
            found = [(key, text) for key, text in self._entries if key > last]
        if not found:
            return b"*-1\r\n"
        entries = b"".join(
            b"*2\r\n" + _text(b"%d-0" % key) + b"*2\r\n" + _text(b"m") + _text(text)
            for key, text in found
        )
        return b"*1\r\n*2\r\n" + _text(name) + b"*%d\r\n" % len(found) + entries


def _words(lines: IO[bytes]) -> list[bytes]:
    found = []
    for _ in range(int(lines.readline()[1:] or 0)):
        size = int(lines.readline()[1:])
        found.append(lines.read(size + 2)[:-2])
    return found


def _text(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
