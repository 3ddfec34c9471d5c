"""Runs in a pod of the tests of NetworkPolicies: serves a port, and tries that of all others.

    python3 -c PROBER NAME FOLDER

In a folder that all of them share it leaves `at-NAME`, its address, before it serves: whoever can be
reached is tried. Whoever connects is told its name. `tries-NAME-BEGIN` is JSON, new twice a second:

    seconds   since it began
    rounds    how often it has tried every address that it knew
    reached   how often it has reached whom, by the names that it was told
"""

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

NAME, FOLDER = sys.argv[1], Path(sys.argv[2])
PORT = 80
EVERY_S, PATIENCE_S, WRITE_S = 0.02, 0.3, 0.5


def serve(server: socket.socket) -> None:
    while True:
        client, _ = server.accept()
        with contextlib.suppress(OSError):
            client.sendall(NAME.encode())
        client.close()


def write(name: str, content: str) -> None:
    new = FOLDER / f".{name}"
    new.write_text(content, encoding="utf-8")
    new.rename(FOLDER / name)


def addresses() -> set[str]:
    return {file.read_text(encoding="utf-8") for file in FOLDER.glob("at-*")}


def attempt(address: str) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    # Its end is a reset: nobody remembers the connection.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    made.connect_ex((address, PORT))
    return made


def main() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        # No packet is sent.
        probe.connect(("192.0.2.1", 9))
        own = probe.getsockname()[0]
    write(f"at-{NAME}", own)
    server = socket.create_server(("", PORT))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    begin, file = time.monotonic(), f"tries-{NAME}-{time.time_ns()}"
    poll = select.epoll()
    waiting: dict[int, tuple[socket.socket, float]] = {}
    reached: Counter[str] = Counter()
    targets: set[str] = set()
    seen, rounds, due, written = -1, 0, begin, begin
    while True:
        now = time.monotonic()
        if now >= due:
            # What was missed is not made up for: the test counts.
            due = max(due + EVERY_S, now)
            if (changed := os.stat(FOLDER).st_mtime_ns) != seen:
                seen, targets = changed, addresses()
            for address in targets:
                made = attempt(address)
                poll.register(made, select.EPOLLIN)
                waiting[made.fileno()] = made, now + PATIENCE_S
            rounds += 1
        for number, _ in poll.poll(max(0.001, due - time.monotonic())):
            with contextlib.suppress(OSError):
                if said := waiting[number][0].recv(64):
                    reached[said.decode()] += 1
            end(poll, waiting, number)
        for number in [n for n, (_, until) in waiting.items() if until < now]:
            end(poll, waiting, number)
        if now - written > WRITE_S:
            written = now
            found = {"seconds": now - begin, "rounds": rounds, "reached": reached}
            write(file, json.dumps(found))


def end(poll: select.epoll, waiting: dict[int, tuple[socket.socket, float]], number: int) -> None:
    made, _ = waiting.pop(number)
    poll.unregister(made)
    made.close()


main()
