"""Runs in pods of benchmarks.network_policy: serves two ports, or tries those of another pod.

    python3 -c PROGRAM serve
    python3 -c PROGRAM try ADDRESS FOLDER

Whoever tries writes into FOLDER, which it shares with the benchmark:

    seen        a line each time that port 81 begins or ceases to let it through: seconds of the
                monotonic clock, which all pods share, and 1 or 0
    answer      once there is `order`, a number: so many connections to port 80, in microseconds
"""

import contextlib
import json
import select
import socket
import sys
import threading
import time
from pathlib import Path

MEASURED, WATCHED = 80, 81
PATIENCE_S, PAUSE_S = 0.02, 0.005
RESET = b"\1\0\0\0\0\0\0\0"


def serve(port: int) -> None:
    server = socket.create_server(("", port), backlog=4096)
    while True:
        server.accept()[0].close()


def passes(address: str) -> bool:
    with socket.socket() as made:
        made.settimeout(PATIENCE_S)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return made.connect_ex((address, WATCHED)) == 0


def connected_us(address: str) -> float:
    """Microseconds until a connection is there; whoever serves ends it."""
    with socket.socket() as made:
        started = time.perf_counter()
        made.connect((address, MEASURED))
        took = time.perf_counter() - started
        select.select([made], [], [])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return took * 1e6


def carry_out(address: str, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        count = int((folder / "order").read_text(encoding="ascii"))
        (folder / "order").unlink()
        found = [connected_us(address) for _ in range(count)]
        (folder / ".answer").write_text(json.dumps(found), encoding="ascii")
        (folder / ".answer").rename(folder / "answer")


def main() -> None:
    if sys.argv[1] == "serve":
        threading.Thread(target=serve, args=(WATCHED,), daemon=True).start()
        serve(MEASURED)
    address, folder = sys.argv[2], Path(sys.argv[3])
    before = None
    with (folder / "seen").open("w", encoding="ascii", buffering=1) as seen:
        while True:
            if (now := passes(address)) is not before:
                seen.write(f"{time.monotonic()} {now:d}\n")
                before = now
            carry_out(address, folder)
            time.sleep(PAUSE_S)


main()
