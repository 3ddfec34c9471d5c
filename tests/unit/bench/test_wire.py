"""What measures the network, between real processes of this host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from sykube.bench import wire

# Of this process.
CORE = min(os.sched_getaffinity(0))
FIGURES = {"throughput", "round_trip", "connections"}


def test_alone_it_measures_the_loopback_and_ends() -> None:
    words = wire.asking_itself(CORE, CORE, 0.05)
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert {*found} == FIGURES
    assert all(value > 0 for value in found.values())


def test_who_asks_reaches_a_server() -> None:
    servers = wire.open_ports("127.0.0.1", [0, 0, 0])
    for server, work in zip(servers, (wire._echo, wire._sink, wire._close), strict=True):
        threading.Thread(target=wire._accept, args=(server, work), daemon=True).start()
    ports = [server.getsockname()[1] for server in servers]
    command = [sys.executable, *wire.asking(CORE, "127.0.0.1", 0.05, ports)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert {*json.loads(done.stdout)} == FIGURES


def test_where_nobody_answers_it_fails() -> None:
    (server,) = wire.open_ports("127.0.0.1", [0])
    port = server.getsockname()[1]
    server.close()
    command = [sys.executable, *wire.asking(CORE, "127.0.0.1", 0.05, [port] * 3)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    assert "refused" in done.stderr


def test_both_ends_are_on_the_cores_that_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _process, cores: found.append(cores))
    monkeypatch.setattr(wire, "ask", lambda *_: {})
    monkeypatch.setattr(wire, "open_ports", lambda *_: [])
    monkeypatch.setattr(wire, "serve", lambda _servers: found.append([]))
    for words in (wire.serving(5), wire.asking(4, "127.0.0.1", 1)):
        monkeypatch.setattr(sys, "argv", ["-c", *words[2:]])
        wire.main()
    assert found == [[5], [], [4]]
