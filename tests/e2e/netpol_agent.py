"""Runs in a pod of the tests of NetworkPolicies: serves four ports, and tries others when it is told.

    python3 -c AGENT NAME FOLDER

In a folder that it shares with the test it finds `order`, JSON with:

    round     counts up; the answer to it is in ROUND-NAME
    probes    what to reach: [what to call it, address, protocol, port]
    times     how often, every `every` seconds; each of them has `wait` seconds

The answer says how often each was reached; beside it, ADDRESSES-NAME has its own of IPv6.
"""

import json
import select
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

NAME, FOLDER = sys.argv[1].replace("/", "-"), Path(sys.argv[2])
PORTS = (80, 81)


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


def attempt(address: str, protocol: str, port: int) -> socket.socket | None:
    """A socket that is about to reach it; None where it cannot even be tried."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    made = socket.socket(family, kind)
    made.setblocking(False)
    try:
        where = socket.getaddrinfo(address, port, family, kind)[0][4]
        made.connect_ex(where)
        if protocol == "UDP":
            made.send(b"?")
    except OSError:
        made.close()
        return None
    return made


def has_reached(made: socket.socket, protocol: str) -> bool:
    try:
        if protocol == "UDP":
            return made.recv(64) == b"?"
        return made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    except OSError:
        return False


def carry_out(order: dict[str, Any]) -> dict[str, int]:
    reached = {probe[0]: 0 for probe in order["probes"]}
    poll = select.epoll()
    open_now: dict[int, tuple[socket.socket, str, str, float]] = {}
    begin, made = time.monotonic(), 0
    while made < order["times"] or open_now:
        now = time.monotonic()
        if made < order["times"] and now >= begin + made * order["every"]:
            made += 1
            for called, address, protocol, port in order["probes"]:
                if each := attempt(address, protocol, port):
                    events = select.EPOLLOUT if protocol == "TCP" else select.EPOLLIN
                    open_now[each.fileno()] = each, called, protocol, now + order["wait"]
                    poll.register(each, events)
        for number, _ in poll.poll(0.01):
            each, called, protocol, _ = open_now.pop(number)
            poll.unregister(each)
            reached[called] += has_reached(each, protocol)
            each.close()
        for number in [n for n, entry in open_now.items() if entry[3] < time.monotonic()]:
            poll.unregister(number)
            open_now.pop(number)[0].close()
    return reached


def write(name: str, content: object) -> None:
    new = FOLDER / f".{name}"
    new.write_text(json.dumps(content), encoding="utf-8")
    new.rename(FOLDER / name)


def main() -> None:
    for port in PORTS:
        for serve in (serve_tcp, serve_udp):
            threading.Thread(target=serve, args=(port,), daemon=True).start()
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
