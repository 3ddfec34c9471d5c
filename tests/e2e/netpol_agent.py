"""Runs in a pod of the tests of NetworkPolicies: serves six ports, and tries others when it is told.

    python3 -c AGENT NAME FOLDER

In a folder that it shares with the test it finds `order`, JSON with:

    round     counts up; the answer to it is in ROUND-NAME
    probes    what to reach: [what to call it, address, protocol, port]
    times     how often, every `every` seconds; each of them has `wait` seconds

The answer says how often each was reached; beside it, ADDRESSES-NAME has its own of IPv6.

SCTP is spoken by raw sockets, since many kernels have none: whoever gets an INIT answers with an
INIT ACK, and nothing comes of the association. RFC 9260, 3.3.2 and 3.3.3.
"""

import itertools
import json
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

NAME, FOLDER = sys.argv[1].replace("/", "-"), Path(sys.argv[2])
PORTS = (80, 81)
INIT, INIT_ACK = 1, 2
# CRC32c of RFC 9260, appendix A, bit by bit.
POLYNOMIAL = 0x82F63B78
OWN_PORTS = itertools.cycle(range(1024, 65536))


def serve_tcp(port: int) -> None:
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        client, _ = server.accept()
        client.close()


def serve_udp(port: int) -> None:
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    while True:
        server.sendto(*server.recvfrom(64))


def serve_sctp() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    while True:
        packet, (peer, _) = server.recvfrom(1500)
        source, target, kind, tag = parsed(packet)
        if kind == INIT and target in PORTS:
            server.sendto(chunk(target, source, INIT_ACK, tag), (peer, 0))


def chunk(source: int, target: int, kind: int, tag: int) -> bytes:
    """A packet with one chunk, which begins an association, or agrees to."""
    content = struct.pack("!BBHIIHHI", kind, 0, 20, 1, 65536, 1, 1, 1)
    crc = 0xFFFFFFFF
    for byte in struct.pack("!HHII", source, target, tag, 0) + content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return struct.pack("!HHI", source, target, tag) + struct.pack("<I", crc ^ 0xFFFFFFFF) + content


def parsed(packet: bytes) -> tuple[int, int, int, int]:
    """Ports, the kind of the first chunk and, of an INIT, its tag, of a packet of IPv4."""
    content = packet[(packet[0] & 15) * 4 :]
    source, target, _, _, kind, _, _, tag = struct.unpack_from(
        "!HHIIBBHI", content.ljust(20, b"\0")
    )
    return source, target, kind, tag


class Try(NamedTuple):
    """A socket that is about to reach something."""

    socket: socket.socket
    called: str
    protocol: str
    port: int
    until: float


def attempt(address: str, protocol: str, port: int) -> tuple[socket.socket, int] | None:
    """A socket that is about to reach it, and its port of SCTP; None where that cannot be tried."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind, number = {
        "TCP": (socket.SOCK_STREAM, 0),
        "UDP": (socket.SOCK_DGRAM, 0),
        "SCTP": (socket.SOCK_RAW, socket.IPPROTO_SCTP),
    }[protocol]
    made = socket.socket(family, kind, number)
    made.setblocking(False)
    own = next(OWN_PORTS)
    try:
        where = socket.getaddrinfo(address, port if protocol != "SCTP" else 0, family)[0][4]
        made.connect_ex(where)
        if protocol == "UDP":
            made.send(b"?")
        if protocol == "SCTP":
            made.send(chunk(own, port, INIT, 0))
    except OSError:
        made.close()
        return None
    return made, own


def has_reached(made: socket.socket, protocol: str, own: int) -> bool | None:
    """Whether it has; None where what came says nothing of it."""
    try:
        if protocol == "UDP":
            return made.recv(64) == b"?"
        if protocol == "SCTP":
            # Raw sockets get all that comes from that address.
            _, target, kind, _ = parsed(made.recv(1500))
            return True if (target, kind) == (own, INIT_ACK) else None
        return made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    except OSError:
        return False


def carry_out(order: dict[str, Any]) -> dict[str, int]:
    reached = {probe[0]: 0 for probe in order["probes"]}
    poll = select.epoll()
    open_now: dict[int, Try] = {}
    begin, made = time.monotonic(), 0
    while made < order["times"] or open_now:
        now = time.monotonic()
        if made < order["times"] and now >= begin + made * order["every"]:
            made += 1
            for called, address, protocol, port in order["probes"]:
                if found := attempt(address, protocol, port):
                    each, own = found
                    events = select.EPOLLOUT if protocol == "TCP" else select.EPOLLIN
                    open_now[each.fileno()] = Try(each, called, protocol, own, now + order["wait"])
                    poll.register(each, events)
        for number, _ in poll.poll(0.01):
            one = open_now[number]
            has = has_reached(one.socket, one.protocol, one.port)
            if has is not None:
                reached[one.called] += has
                end(poll, open_now.pop(number))
        for number in [n for n, one in open_now.items() if one.until < time.monotonic()]:
            end(poll, open_now.pop(number))
    return reached


def end(poll: select.epoll, one: Try) -> None:
    poll.unregister(one.socket)
    one.socket.close()


def write(name: str, content: object) -> None:
    new = FOLDER / f".{name}"
    new.write_text(json.dumps(content), encoding="utf-8")
    new.rename(FOLDER / name)


def main() -> None:
    for port in PORTS:
        for serve in (serve_tcp, serve_udp):
            threading.Thread(target=serve, args=(port,), daemon=True).start()
    threading.Thread(target=serve_sctp, daemon=True).start()
    lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    digits = [line.split()[0] for line in lines if line.split()[5] == "eth0"]
    write(
        f"addresses-{NAME}",
        [":".join(each[n : n + 4] for n in range(0, 32, 4)) + "%eth0" for each in digits],
    )
    done = -1
    while True:
        time.sleep(0.02)
        try:
            order = json.loads((FOLDER / "order").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        if order["round"] != done:
            done = order["round"]
            write(f"{done}-{NAME}", carry_out(order))


main()
