"""What measures the network, between real processes of this host."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from sykube.bench import wire

FIGURES = {"throughput", "round_trip", "connections"}


def test_alone_it_measures_the_loopback_and_ends() -> None:
    words = [sys.executable, "-c", wire.program(), "alone", "0.05"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert {*found} == FIGURES
    assert all(value > 0 for value in found.values())


def test_who_asks_reaches_a_server() -> None:
    servers = wire.open_ports("127.0.0.1", [0, 0, 0])
    for server, work in zip(servers, (wire._echo, wire._sink, wire._close), strict=True):
        threading.Thread(target=wire._accept, args=(server, work), daemon=True).start()
    ports = [server.getsockname()[1] for server in servers]
    words = ["ask", "127.0.0.1", "0.05", *map(str, ports)]
    command = [sys.executable, "-c", wire.program(), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert {*json.loads(done.stdout)} == FIGURES


def test_where_nobody_answers_it_fails() -> None:
    (server,) = wire.open_ports("127.0.0.1", [0])
    port = str(server.getsockname()[1])
    server.close()
    words = ["ask", "127.0.0.1", "0.05", port, port, port]
    command = [sys.executable, "-c", wire.program(), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    assert "refused" in done.stderr
