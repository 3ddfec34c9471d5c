"""What `sykube bench network` runs on both ends, also in pods: of the standard library alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Ports of the server: what comes is sent back, swallowed, or ended at once.
PORTS = ECHO, SINK, DOOR = 9000, 9001, 9002
_ROUND_TRIPS = 1000
_BLOCK = bytes(1 << 16)
# Ended by a reset (linger on, 0 seconds): thousands that are ended in order would keep their ports
# for a minute each. Source: socket(7), SO_LINGER.
_RESET = struct.pack("ii", 1, 0)
_PATIENCE_S = 30.0


def open_ports(address: str, ports: Sequence[int]) -> list[socket.socket]:
    return [socket.create_server((address, port), backlog=1024) for port in ports]


def serve(servers: Sequence[socket.socket]) -> None:
    """Serve for ever: an echo, a sink and a door."""
    for server, work in zip(servers, (_echo, _sink, _close), strict=True):
        threading.Thread(target=_accept, args=(server, work)).start()


def _accept(server: socket.socket, work: Callable[[socket.socket], None]) -> None:
    while True:
        work(server.accept()[0])


def _echo(connection: socket.socket) -> None:
    threading.Thread(target=_swallow, args=(connection, connection.sendall), daemon=True).start()


def _sink(connection: socket.socket) -> None:
    threading.Thread(target=_swallow, args=(connection, len), daemon=True).start()


def _close(connection: socket.socket) -> None:
    connection.close()


def _swallow(connection: socket.socket, answer: Callable[[bytes], object]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError), connection:
        while piece := connection.recv(1 << 18):
            answer(piece)


def round_trip_us(address: str, port: int) -> float:
    """The median of a thousand, of one byte."""
    taken = []
    with socket.create_connection((address, port), _PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_ROUND_TRIPS):
            started = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            taken.append(time.perf_counter() - started)
    return sorted(taken)[_ROUND_TRIPS // 2] * 1e6


def throughput_mb_s(address: str, port: int, seconds: float) -> float:
    """Of one connection."""
    sent = 0
    with socket.create_connection((address, port), _PATIENCE_S) as connection:
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            connection.sendall(_BLOCK)
            sent += len(_BLOCK)
        return sent / (time.perf_counter() - started) / 1e6


def connections_s(address: str, port: int, seconds: float) -> float:
    """Connections a second, one after the other."""
    made, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        with socket.create_connection((address, port), _PATIENCE_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        made += 1
    return made / (time.perf_counter() - started)


def ask(address: str, ports: Sequence[int], seconds: float) -> dict[str, float]:
    """All figures, of a server whose ports are these: of the echo, the sink and the door."""
    echo, sink, door = ports
    return {
        "throughput": throughput_mb_s(address, sink, seconds),
        "round_trip": round_trip_us(address, echo),
        "connections": connections_s(address, door, seconds),
    }


def alone(serving: int, seconds: float) -> dict[str, float]:
    """All figures of two processes of this host, by its loopback.

    Args:
        serving: the core of the one that answers.
    """
    servers = open_ports("127.0.0.1", [0, 0, 0])
    child = os.fork()
    if not child:
        os.sched_setaffinity(0, [serving])
        serve(servers)
        signal.pause()
    try:
        return ask("127.0.0.1", [server.getsockname()[1] for server in servers], seconds)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main() -> None:
    """What `serving`, `asking` and `asking_itself` say; the latter two print a line of JSON."""
    core, what, *rest = sys.argv[1:]
    os.sched_setaffinity(0, [int(core)])
    if what == "serve":
        serve(open_ports("", PORTS))
    elif what == "ask":
        print(json.dumps(ask(rest[0], [int(port) for port in rest[2:]], float(rest[1]))))
    else:
        print(json.dumps(alone(int(rest[0]), float(rest[1]))))


def program() -> str:
    """The text of this file, which runs itself."""
    return Path(__file__).read_text(encoding="utf-8") + "\nmain()\n"


def serving(core: int) -> list[str]:
    """What a Python is given that answers at ECHO, SINK and DOOR, on that core."""
    return ["-c", program(), str(core), "serve"]


def asking(core: int, address: str, seconds: float, ports: Sequence[int] = PORTS) -> list[str]:
    """What a Python is given that asks those of an address, on that core."""
    return ["-c", program(), str(core), "ask", address, str(seconds), *map(str, ports)]


def asking_itself(core: int, answering: int, seconds: float) -> list[str]:
    """What a Python is given that asks another process of its host, on these two cores."""
    return ["-c", program(), str(core), "alone", str(answering), str(seconds)]
