"""sykube run: a cluster for one command."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import pytest

from sykube.cluster.model.state import clusters
from sykube.errors import ExitCode
from sykube.host.paths import ClusterPaths
from tests.fakes import World
from tests.unit.helpers import Sykube

RUN = ("run", "--name", "fake", "--workers", "0", "--dns", "192.0.2.1")


class Command:
    """What is run, as the world's host has it: it sees the cluster, and ends as it is told."""

    def __init__(self, world: World) -> None:
        self.calls: list[tuple[list[str], Mapping[str, str]]] = []
        self.there: list[list[str]] = []
        self.umasks: list[int] = []
        self.ends: Callable[[], int] = lambda: 0
        self.until: float | None = None
        self._world = world
        world.programs.attached = self

    def __call__(
        self, argv: Sequence[object], environ: Mapping[str, str], until: float | None = None
    ) -> int:
        self.until = until
        self.calls.append(([str(word) for word in argv], environ))
        self.there.append(clusters(self._world.host))
        self.umasks.append(os.umask(0))
        os.umask(self.umasks[-1])
        return self.ends()


@pytest.fixture
def command(world: World) -> Command:
    return Command(world)


def test_the_command_has_a_cluster_and_its_exit_code_is_sykubes(
    world: World, sykube: Sykube, command: Command
) -> None:
    command.ends = lambda: 7
    before = os.umask(0o027)
    try:
        done = sykube(*RUN, "--", "sh", "-c", "exit 7", "--workers")
    finally:
        os.umask(before)
    assert done.code == 7, done.err
    assert [argv for argv, _ in command.calls] == [["sh", "-c", "exit 7", "--workers"]]
    assert command.there == [["fake"]]
    assert command.umasks == [0o027]
    (_, environ), *_ = command.calls
    assert environ["KUBECONFIG"] == str(ClusterPaths(world.host, "fake").kubeconfig)
    assert environ["SYKUBE_CLUSTER"] == "fake"
    assert done.out == ""
    assert clusters(world.host) == []


def test_the_clusters_kubectl_is_there_behind_the_callers(
    world: World, sykube: Sykube, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert sykube(*RUN, "kubectl", "get", "nodes").code == 0
    (argv, environ), *_ = command.calls
    assert argv == ["kubectl", "get", "nodes"]
    own, last = environ["PATH"].split(os.pathsep)
    assert own == "/nowhere"
    assert last.startswith(str(world.host.cache))


def test_a_program_that_is_not_there_is_wrong_use_and_makes_nothing(
    world: World, sykube: Sykube, command: Command
) -> None:
    done = sykube(*RUN, "--", "no-such-program")
    assert done.code == ExitCode.USAGE
    assert "could not find the program no-such-program" in done.err
    assert command.calls == []
    assert not ClusterPaths(world.host, "fake").root.exists()


def test_a_cluster_that_is_there_is_neither_used_nor_deleted(
    world: World, sykube: Sykube, command: Command
) -> None:
    assert sykube("init", *RUN[1:]).code == 0
    done = sykube(*RUN, "true")
    assert done.code == ExitCode.FAILED
    assert "there is a cluster fake already" in done.err
    assert command.calls == []
    assert clusters(world.host) == ["fake"]


def test_where_no_cluster_can_be_made_the_command_is_not_run(
    world: World, sykube: Sykube, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:nodes")
    done = sykube(*RUN, "true")
    assert done.code == ExitCode.FAILED
    assert "made to fail at after:nodes" in done.err
    assert command.calls == []
    assert clusters(world.host) == []


def test_an_interrupted_command_leaves_no_cluster(
    world: World, sykube: Sykube, command: Command
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    command.ends = interrupted
    assert sykube(*RUN, "true").code == ExitCode.INTERRUPTED
    assert command.there == [["fake"]]
    assert clusters(world.host) == []


def test_what_cannot_be_undone_is_said_and_the_exit_code_is_the_commands(
    world: World, sykube: Sykube, command: Command
) -> None:
    def damaged() -> int:
        (world.host.records / "record.json").unlink()
        return 0

    command.ends = damaged
    done = sykube(*RUN, "true")
    assert "not undone: the host's earlier sysctls" in done.err
    assert done.code == 0
