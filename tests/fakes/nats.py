"""A NATS server with JetStream, as far as `sykube bench stream` asks it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.listener import FakeBroker

_API = "$JS.API."


@dataclass
class FakeNats(FakeBroker):
    """In `asked` are subjects of its API."""

    _readers: dict[str, tuple[socket.socket, str, bytes]] = field(default_factory=dict)
    _published: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _talk(self, connection: socket.socket) -> None:
        subscribed: dict[str, bytes] = {}
        # As the server does soon after a connection is made.
        connection.sendall(b'INFO {"server_name":"fake"}\r\nPING\r\n')
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                word, *rest = line.split()
                if word == b"SUB":
                    subscribed[rest[0].decode()] = rest[1]
                elif word == b"PUB":
                    body = lines.read(int(rest[-1]) + 2)[:-2]
                    subject, inbox = rest[0].decode(), rest[1].decode()
                    with self._lock:
                        answer = self._take(connection, subject, body, subscribed)
                        if answer is None:
                            return
                        _send(connection, inbox, subscribed[inbox], json.dumps(answer).encode())

    def _take(
        self, connection: socket.socket, subject: str, body: bytes, subscribed: dict[str, bytes]
    ) -> dict[str, Any] | None:
        """What it answers; None where it ends."""
        if subject.startswith(_API):
            self.asked.append(subject.removeprefix(_API))
            return self._asked(connection, subject.split("."), body, subscribed)
        if self.refuses:
            return {"error": {"code": 503, "description": "insufficient storage"}}
        number, self._published = self._published, self._published + 1
        if number == self.dies_after:
            self.end()
            return None
        if number != self.drops:
            to, name, sid = self._readers[subject]
            _send(to, name, sid, body)
        return {"stream": subject, "seq": number + 1}

    def _asked(
        self,
        connection: socket.socket,
        words: list[str],
        body: bytes,
        subscribed: dict[str, bytes],
    ) -> dict[str, Any]:
        match words[2:]:
            case ["CONSUMER", "DURABLE", "CREATE", stream, _]:
                to = json.loads(body)["config"]["deliver_subject"]
                self._readers[stream] = connection, to, subscribed[to]
            case ["CONSUMER", "INFO", stream, _] if stream not in self._readers:
                return {"error": {"code": 404, "description": "consumer not found"}}
        return {"push_bound": True}


def _send(to: socket.socket, subject: str, sid: bytes, body: bytes) -> None:
    head = f"MSG {subject} {sid.decode()} {len(body)}\r\n".encode()
    # Who has ended takes no more.
    with contextlib.suppress(OSError):
        to.sendall(head + body + b"\r\n")
