"""What benchmarks.runtimes runs in a pod by `python3 -c`, of the standard library alone."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

ECHO, SINK = 9000, 9001
_ROUND_TRIPS = 1000
_BLOCK = bytes(1 << 16)
# Of SHA-256, which is C, and of Python's own loop.
_HASHED, _COUNTED = 120_000_000, 6_000_000


def serve() -> None:
    """Answer what comes on one port, and swallow what comes on the other."""
    threading.Thread(target=_accept, args=(ECHO, True)).start()
    _accept(SINK, False)


def _accept(port: int, echo: bool) -> None:
    with socket.create_server(("", port)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection, echo), daemon=True).start()


def _answer(connection: socket.socket, echo: bool) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while piece := connection.recv(1 << 18):
            if echo:
                connection.sendall(piece)


def round_trip_us(address: str) -> float:
    """The median of a thousand, of one byte."""
    taken = []
    with socket.create_connection((address, ECHO)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_ROUND_TRIPS):
            started = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            taken.append(time.perf_counter() - started)
    return sorted(taken)[_ROUND_TRIPS // 2] * 1e6


def throughput_mb_s(address: str, seconds: float) -> float:
    """Of one connection."""
    sent, started = 0, time.perf_counter()
    with socket.create_connection((address, SINK)) as connection:
        while time.perf_counter() - started < seconds:
            connection.sendall(_BLOCK)
            sent += len(_BLOCK)
    return sent / (time.perf_counter() - started) / 1e6


def processor_s() -> float:
    """Seconds of the same work each time."""
    started = time.perf_counter()
    for _ in range(_HASHED // len(_BLOCK)):
        hashlib.sha256(_BLOCK).digest()
    for _ in range(_COUNTED):
        pass
    return time.perf_counter() - started


def main() -> None:
    """`serve`: for ever. ADDRESS SECONDS, of a pod that serves: a line of JSON."""
    if sys.argv[1] == "serve":
        serve()
    found = {
        "round_trip_us": round_trip_us(sys.argv[1]),
        "throughput_mb_s": throughput_mb_s(sys.argv[1], float(sys.argv[2])),
        "processor_s": processor_s(),
    }
    print(json.dumps(found))


def program() -> str:
    """The text of this file, which runs itself."""
    return Path(__file__).read_text(encoding="utf-8") + "\nmain()\n"
