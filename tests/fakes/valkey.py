"""A Valkey server, as far as `sykube bench stream` asks it."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import IO

from tests.fakes.listener import FakeBroker


@dataclass
class FakeValkey(FakeBroker):
    """In `asked` are names of commands."""

    _keys: set[bytes] = field(default_factory=set)
    _entries: list[tuple[int, bytes]] = field(default_factory=list)
    _added: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

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
