"""A node of another kind than LocalNode is an addition: what looks at a cluster serves it, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import logs
from sykube.errors import ExitCode
from sykube.node.node import Node
from tests.fakes import World
from tests.far_node import FarNode, Pipe
from tests.unit.helpers import Sykube, made

PROGRAMS = {
    "supervisorctl": 'cat "$(dirname "$0")/../services"',
    # The header of an answer: no error, and an address.
    "ask-udp": "echo 0001818000010001",
    "whoami": 'echo "root of $1"; exit 7',
}


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """The root folder of another machine."""
    for name, text in PROGRAMS.items():
        file = tmp_path / "far/bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    (tmp_path / "far/services").write_text("kubelet   RUNNING   pid 7, uptime 0:01:02\n")
    log = tmp_path / "far/var/log/sykube/kubelet.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    return tmp_path / "far"


@pytest.fixture
def pipe(world: World, far: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    """The way to the worker of the cluster fake; its control plane is here."""
    made(world)
    pipe, of_this_host = Pipe(far), Cluster.node

    def node(cluster: Cluster, name: str) -> Node:
        found = of_this_host(cluster, name)
        if name != "node1":
            return found
        names = (name, found.instance, found.address, found.pod_subnet, False)
        return FarNode(*names, pipe)  # type: ignore[abstract]

    # No option of sykube makes such a node yet.
    monkeypatch.setattr(Cluster, "node", node)
    yield pipe
    pipe.close()


def test_status(sykube: Sykube, pipe: Pipe, far: Path) -> None:
    shown = sykube("status", "--name", "fake")
    assert (shown.code, shown.err) == (ExitCode.OK, "")
    (far / "services").write_text("kubelet   FATAL   Exited too quickly\n")
    shown = sykube("status", "--name", "fake")
    assert shown.code == ExitCode.DEGRADED
    (line,) = [line for line in shown.out.splitlines() if line.startswith("  node1 ")]
    assert "kubelet is FATAL" in line


def test_status_asks_the_worker_for_dns_where_no_other_node_answers(
    sykube: Sykube, world: World, pipe: Pipe, far: Path
) -> None:
    world.end("fake-master")
    assert "DNS: healthy" in sykube("status", "--name", "fake").out
    (far / "bin/ask-udp").write_text("#!/bin/sh\necho 0001818300010000\n")
    assert "(response code 3)" in sykube("status", "--name", "fake").out


def test_a_far_node_that_has_ended(sykube: Sykube, pipe: Pipe) -> None:
    pipe.process.terminate()
    pipe.process.wait(timeout=30)
    shown = sykube("status", "--name", "fake")
    assert shown.code == ExitCode.DEGRADED
    assert "stopped" in shown.out
    assert sykube("exec", "--name", "fake", "node1", "whoami").code == ExitCode.STOPPED


def test_logs(sykube: Sykube, pipe: Pipe) -> None:
    assert sykube("logs", "node1", "--name", "fake").out == "one\ntwo\nthree\n"
    shown = sykube("logs", "--name", "fake", "--tail", "2").out.splitlines()
    assert "[master/supervisord] fake-master has booted" in shown
    assert shown[-2:] == ["[node1/kubelet] two", "[node1/kubelet] three"]


def test_logs_that_are_followed(world: World, pipe: Pipe, far: Path) -> None:
    nodes = logs.nodes(world.host, "fake", world.ui())
    found = logs.sources([nodes["node1"]], logs.SERVICES)
    lines: list[str] = []
    turns = ["four\n", "five\nsix\n"]

    def sleep(_: float) -> None:
        if not turns:
            raise KeyboardInterrupt
        with (far / "var/log/sykube/kubelet.log").open("a", encoding="utf-8") as file:
            file.write(turns.pop(0))

    with pytest.raises(KeyboardInterrupt):
        logs.follow(found, 1, lambda _, line: lines.append(line), sleep)
    assert lines == ["three", "four", "five", "six"]


def test_exec(sykube: Sykube, pipe: Pipe) -> None:
    shown = sykube("exec", "--name", "fake", "node1", "whoami", "it")
    assert (shown.code, shown.out) == (7, "root of it\n")
