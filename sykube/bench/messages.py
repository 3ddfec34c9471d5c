"""What `sykube bench stream` runs in every place, of the standard library alone.

The producer writes into each message when it was made, by the machine's monotonic clock, which is
one for all containers that have no time namespace; neither Apptainer nor runc nor crun makes one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# What every message begins with: its number, and when it was made, in nanoseconds.
_HEAD = struct.Struct("<QQ")
SMALLEST = _HEAD.size
BROKER, PRODUCER, CONSUMER = ROLES = "broker", "producer", "consumer"
# Of the broker, where it has a network of its own.
PORT = 4222
# For a broker that starts, for one that answers, and for the next message.
_PATIENCE_S = 60.0
# Messages, after which a producer that is late looks for acknowledgements.
_TOGETHER = 32
_AGAIN_S = 0.05
_FOLDER = Path("/tmp")
_ANSWERS, _MESSAGES = b"1", b"2"
NATS, VALKEY = BROKERS = "nats", "valkey"
# Of Debian's packages; containers may have no PATH.
_SERVERS = {NATS: "/usr/sbin/nats-server", VALKEY: "/usr/bin/valkey-server"}


class BrokenError(Exception):
    """What stands between the producer and the consumer does not work; says why."""


@dataclass(frozen=True)
class Job:
    """What each of the three is asked for.

    Attributes:
        address, port: where the broker listens, and is reached.
        cores: what it runs on.
        broker: of BROKERS.
        fsync: whether the broker calls fsync(2) for each message before it hands it on.
        name: of the run: another one each time.
        count: messages.
        size: bytes of each, SMALLEST at least.
        rate: messages a second.
    """

    address: str
    port: int
    cores: Sequence[int]
    broker: str = NATS
    fsync: bool = False
    name: str = ""
    count: int = 0
    size: int = SMALLEST
    rate: float = 1.0


class _Wire:
    """A connection to a broker.

    Attributes:
        acknowledged: how many of the messages that were sent the broker has.
    """

    def __init__(self, address: str, port: int) -> None:
        self._socket = _connected(address, port)
        self._rest = bytearray()
        self.acknowledged = 0

    def _fill(self, seconds: float) -> bool:
        """Wait for more from the broker; whether some came."""
        if not select.select([self._socket], [], [], max(0.0, seconds))[0]:
            return False
        piece = self._socket.recv(1 << 18)
        if not piece:
            raise BrokenError("the broker has ended the connection")
        self._rest += piece
        return True

    def _wait(self) -> None:
        """Wait for more from the broker.

        Raises:
            BrokenError: none came for a minute, or the broker is gone.
        """
        if not self._fill(_PATIENCE_S):
            raise BrokenError(f"nothing came for {_PATIENCE_S:.0f} s")


class Nats(_Wire):
    """A connection to NATS with JetStream, whose streams are files.

    Source: docs.nats.io, its references of the client protocol and of JetStream's wire API.
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port)
        self._inbox = f"_INBOX.{os.getpid()}.{time.monotonic_ns()}"
        self._send('CONNECT {"verbose":false,"pedantic":false}\r\n')
        self._send(f"SUB {self._inbox} {_ANSWERS.decode()}\r\n")

    def open(self, name: str) -> None:
        """Make a stream, and have its messages sent here."""
        stream = {"name": name, "subjects": [name], "storage": "file", "num_replicas": 1}
        self._ask(f"STREAM.CREATE.{name}", stream)
        to = f"{self._inbox}.messages"
        self._send(f"SUB {to} {_MESSAGES.decode()}\r\n")
        reader = {"durable_name": name, "deliver_subject": to, "ack_policy": "none"}
        asked = {"stream_name": name, "config": reader}
        self._ask(f"CONSUMER.DURABLE.CREATE.{name}.{name}", asked)

    def is_read(self, name: str) -> bool:
        """Whether somebody takes a stream's messages."""
        try:
            return bool(self._ask(f"CONSUMER.INFO.{name}.{name}").get("push_bound"))
        except BrokenError:
            return False

    def receive(self) -> bytes:
        """The next message of the stream.

        Raises:
            BrokenError: none came for a minute, or the broker is gone.
        """
        return self._next(_MESSAGES)

    def send(self, name: str, message: bytes) -> None:
        """Publish a message, without a wait for the broker's acknowledgement."""
        head = f"PUB {name} {self._inbox} {len(message)}\r\n".encode()
        self._socket.sendall(head + message + b"\r\n")

    def take_acknowledgements(self, seconds: float) -> None:
        """Take what has come of them; where there is none, wait that long for one.

        Raises:
            BrokenError: the broker has refused a message, or is gone.
        """
        if not self._fill(seconds):
            return
        while taken := self._take():
            kind, body = taken
            if kind == _ANSWERS:
                _require_accepted(json.loads(body))
                self.acknowledged += 1

    def close(self, name: str) -> None:
        """Remove a stream."""
        self._ask(f"STREAM.DELETE.{name}")

    def _ask(self, what: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        text = json.dumps(body) if body else ""
        self._send(f"PUB $JS.API.{what} {self._inbox} {len(text)}\r\n{text}\r\n")
        found: dict[str, object] = json.loads(self._next(_ANSWERS))
        _require_accepted(found)
        return found

    def _send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def _next(self, wanted: bytes) -> bytes:
        while True:
            while taken := self._take():
                if taken[0] == wanted:
                    return taken[1]
            self._wait()

    def _take(self) -> tuple[bytes, bytes] | None:
        """What has come first: the subscription it is of, empty for others, and its text."""
        end = self._rest.find(b"\r\n")
        if end < 0:
            return None
        words, start = bytes(self._rest[:end]).split(), end + 2
        if words[0] == b"MSG":
            after = start + int(words[-1])
            if len(self._rest) < after + 2:
                return None
            body = bytes(self._rest[start:after])
            del self._rest[: after + 2]
            return words[2], body
        del self._rest[:start]
        if words[0] == b"-ERR":
            raise BrokenError(b" ".join(words[1:]).decode())
        if words[0] == b"PING":
            self._send("PONG\r\n")
        return b"", b""


class Valkey(_Wire):
    """A connection to Valkey, or Redis, whose streams are in an append-only file.

    Source: valkey.io, Serialization protocol (RESP2) and the commands XADD and XREAD.
    """

    # Of messages that are asked for at once.
    _MOST = 100

    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port)
        self._name, self._last = "", b"0"
        self._arrived: deque[bytes] = deque()

    def open(self, name: str) -> None:
        """Have the messages of a stream sent here."""
        self._name = name
        self._ask("SET", _reader(name), 1)

    def is_read(self, name: str) -> bool:
        """Whether somebody takes a stream's messages."""
        return self._ask("EXISTS", _reader(name)) == b"1"

    def receive(self) -> bytes:
        """The next message of the stream.

        Raises:
            BrokenError: none came for a minute, or the broker is gone.
        """
        while not self._arrived:
            waiting = "BLOCK", int(_PATIENCE_S * 1000)
            asked = "XREAD", *waiting, "COUNT", self._MOST, "STREAMS", self._name, self._last
            found: Any = self._ask(*asked)
            if not found:
                raise BrokenError(f"nothing came for {_PATIENCE_S:.0f} s")
            [[_, entries]] = found
            self._arrived.extend(fields[1] for _, fields in entries)
            self._last = entries[-1][0]
        return self._arrived.popleft()

    def send(self, name: str, message: bytes) -> None:
        """Publish a message, without a wait for the broker's acknowledgement."""
        self._send("XADD", name, "*", "m", message)

    def take_acknowledgements(self, seconds: float) -> None:
        """Take what has come of them; where there is none, wait that long for one.

        Raises:
            BrokenError: the broker has refused a message, or is gone.
        """
        if self._fill(seconds):
            with contextlib.suppress(_LackingError):
                while True:
                    self._take()
                    self.acknowledged += 1

    def close(self, name: str) -> None:
        """Remove a stream."""
        self._ask("DEL", name, _reader(name))

    def _ask(self, *words: str | int | bytes) -> object:
        self._send(*words)
        while True:
            try:
                return self._take()
            except _LackingError:
                # It answers a little after the time that it was given to wait.
                if not self._fill(2 * _PATIENCE_S):
                    raise BrokenError("the broker does not answer") from None

    def _send(self, *words: str | int | bytes) -> None:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        sent = [b"*%d\r\n" % len(parts)]
        sent += [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
        self._socket.sendall(b"".join(sent))

    def _take(self) -> object:
        """The answer that has come first.

        Raises:
            BrokenError: it is an error.
            _LackingError: not all of it has come.
        """
        found, after = _parsed(self._rest, 0)
        del self._rest[:after]
        return found


class _LackingError(Exception):
    """Not all of an answer has come."""


def _parsed(data: bytearray, start: int) -> tuple[object, int]:
    """A value of RESP2, and where it ends."""
    end = data.find(b"\r\n", start)
    if end < 0:
        raise _LackingError
    kind, text, after = bytes(data[start : start + 1]), bytes(data[start + 1 : end]), end + 2
    if kind == b"-":
        raise BrokenError(f"the broker refuses it: {text.decode()}")
    if kind not in (b"$", b"*"):
        return text, after
    count = int(text)
    if count < 0:
        return None, after
    if kind == b"$":
        if len(data) < after + count + 2:
            raise _LackingError
        return bytes(data[after : after + count]), after + count + 2
    values = []
    for _ in range(count):
        value, after = _parsed(data, after)
        values.append(value)
    return values, after


def _reader(name: str) -> str:
    """The key that says that a stream is read."""
    return f"{name}:read"


_CONNECTIONS: Mapping[str, type[Nats | Valkey]] = {NATS: Nats, VALKEY: Valkey}


def _connected(address: str, port: int) -> socket.socket:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            made = socket.create_connection((address, port), _PATIENCE_S)
        except OSError as error:
            if time.monotonic() > deadline:
                raise BrokenError(f"no broker at {address}:{port}: {error}") from error
            time.sleep(_AGAIN_S)
        else:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made


def _require_accepted(answer: Mapping[str, object]) -> None:
    if error := answer.get("error"):
        raise BrokenError(f"the broker refuses it: {json.dumps(error)}")


def serve(job: Job) -> None:
    """Become the broker."""
    program = _SERVERS[job.broker]
    options = _of_nats(job) if job.broker == NATS else _of_valkey(job)
    os.execv(program, [program, *options])


def _of_nats(job: Job) -> list[str]:
    settings = {
        "listen": f"{job.address}:{job.port}",
        "max_payload": 2 << 20,
        # A consumer that falls behind is not to be sent away, as by default at 64 MB.
        "max_pending": 1 << 30,
        "jetstream": {
            "store_dir": str(_FOLDER / "nats"),
            **({"sync_interval": "always"} if job.fsync else {}),
        },
    }
    file = _FOLDER / "nats.conf"
    # Its configuration is a superset of JSON.
    file.write_text(json.dumps(settings), encoding="utf-8")
    return ["--config", str(file)]


def _of_valkey(job: Job) -> list[str]:
    folder = _FOLDER / "valkey"
    folder.mkdir(exist_ok=True)
    return [
        *("--bind", job.address, "--port", str(job.port), "--protected-mode", "no"),
        *("--dir", str(folder), "--save", "", "--appendonly", "yes"),
        *("--appendfsync", "always" if job.fsync else "everysec"),
    ]


def produce(job: Job) -> dict[str, float]:
    """Make messages at a steady rate, as soon as somebody takes them.

    A message that could not be made when it was due, since the one before it took so long, counts
    as made when it was due: what waits for it waits from then on.

    Returns:
        The `seconds` that it took.
    """
    broker = _CONNECTIONS[job.broker](job.address, job.port)
    deadline = time.monotonic() + _PATIENCE_S
    while not broker.is_read(job.name):
        if time.monotonic() > deadline:
            raise BrokenError("no consumer came")
        time.sleep(_AGAIN_S)
    filler = bytes(job.size - SMALLEST)
    clock, start = time.monotonic_ns, time.monotonic_ns()
    for number in range(job.count):
        made = due = start + int(number * 1e9 / job.rate)
        while (left := due - clock()) > 0:
            broker.take_acknowledgements(left / 1e9)
            made = clock()
        broker.send(job.name, _HEAD.pack(number, max(due, made)) + filler)
        if not number % _TOGETHER:
            broker.take_acknowledgements(0)
    took = (clock() - start) / 1e9
    deadline = time.monotonic() + _PATIENCE_S
    while broker.acknowledged < job.count:
        broker.take_acknowledgements(1)
        if time.monotonic() > deadline:
            raise BrokenError(f"only {broker.acknowledged} of {job.count} messages were taken")
    return {"seconds": took}


def consume(job: Job) -> dict[str, object]:
    """Take all messages.

    Returns:
        The `delays` of them in order, in nanoseconds, and the `seconds` from the first to the last.

    Raises:
        BrokenError: one is missing, or comes twice.
    """
    broker = _CONNECTIONS[job.broker](job.address, job.port)
    broker.open(job.name)
    delays, clock, arrived = [], time.monotonic_ns, [0, 0]
    for expected in range(job.count):
        message = broker.receive()
        now = clock()
        number, made = _HEAD.unpack_from(message)
        if number != expected or len(message) != job.size:
            raise BrokenError(
                f"message {number} of {len(message)} bytes came in the place of {expected}"
            )
        delays.append(now - made)
        arrived[bool(expected)] = now
    broker.close(job.name)
    return {"delays": delays, "seconds": (arrived[1] - arrived[0]) / 1e9}


_WORK: Mapping[str, Callable[[Job], object]] = {
    BROKER: serve,
    PRODUCER: produce,
    CONSUMER: consume,
}


def main() -> None:
    """`ROLE JOB`, a job as JSON: what it returns, on a line of JSON."""
    role, asked = sys.argv[1:]
    job = Job(**json.loads(asked))
    os.sched_setaffinity(0, job.cores)
    # Nothing here makes cycles, and a collection would delay a message.
    gc.disable()
    try:
        print(json.dumps(_WORK[role](job)))
    except (BrokenError, OSError) as error:
        raise SystemExit(f"{role}: {error}") from error


def command(role: str, job: Job) -> list[str]:
    """The command line of one of the three, wherever there is a python3."""
    program = Path(__file__).read_text(encoding="utf-8") + "\nmain()\n"
    return ["python3", "-c", program, role, json.dumps(asdict(job))]
