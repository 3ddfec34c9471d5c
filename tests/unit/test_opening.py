"""Every command that changes a cluster holds it, for root alone, in a state that it copes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import pytest

from sykube.cli.main import cli
from sykube.cluster.commands import power
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.progress import Origin, Progress
from sykube.cluster.operations.opening import held, opened
from sykube.errors import ExitCode, SykubeError, UsageError
from tests.fakes import World
from tests.unit.helpers import Sykube, differences, made
from tests.unit.test_snapshots import fake_tar

# What commands need beside the name of a cluster, by what they call it.
ARGUMENTS = {
    "addon": "metrics",
    "arguments": "get",
    "command": "true",
    "count": "2",
    "file": "job.sh",
    "host_port": "8080",
    "node": "master",
    "node_name": "node1",
    "service_name": "kubernetes",
    "snapshot_name": "kept",
    "sources": "image.tar",
    "text": "8080:30080",
    "wanted": "example.org/web:1",
}
# One needs a Service of a real cluster, one a Slurm cluster, and one a cluster that is not there yet.
REFUSED = ("service", "slurm", "run")
# One serves a page until Ctrl-C; a snapshot is no cluster; everybody may ask for versions.
OTHERS = [
    ("dashboard", "--name", "fake"),
    ("snapshot", "delete", "kept"),
    ("version", "--name", "fake"),
]


def about_clusters(
    group: click.Group = cli, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The words of every command that is about a cluster or a snapshot of one."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from about_clusters(command, (*words, name))
            continue
        known = [each.name for each in command.params]
        if "name" not in known and "snapshot_name" not in known:
            continue
        given = [
            ARGUMENTS[str(each.name)]
            for each in command.params
            if isinstance(each, click.Argument) and each.required
        ]
        option = ("--name", "fake") if "name" in known else ()
        yield (*words, name, *option, *given)


COMMANDS = [words for words in about_clusters() if words not in OTHERS]


@pytest.mark.parametrize("state", ["running", "paused", "stopped"])
def test_a_command_is_refused_while_another_holds_the_cluster_or_changes_nothing(
    world: World, sykube: Sykube, state: str
) -> None:
    made(world)
    world.programs.answers["tar"] = fake_tar
    world.programs.become = lambda *_: None
    power.stop(world.host, "fake", StopOptions(), world.ui())
    assert sykube("snapshot", "save", "kept", "--name", "fake").code == ExitCode.OK
    if state != "stopped":
        power.start(world.host, "fake", world.ui())
    if state == "paused":
        power.pause(world.host, "fake", world.ui())
    refused = []
    for words in COMMANDS:
        before = world.snapshot()
        with held(world.host, "fake"):
            code = sykube(*words).code
        assert differences(before, world.snapshot()) == [], words
        if code == ExitCode.LOCKED:
            refused.append(words[0])
            continue
        world.calls.all.clear()
        result = sykube(*words)
        # What fails here would change nothing in any case.
        assert state != "running" or words[0] in REFUSED or "error:" not in result.err, words
        assert differences(before, world.snapshot()) == [], words
        asked = [call.words[0] for call in world.calls.all if call.kind == "api"]
        assert {*asked} <= {"GET"}, words
    # Some, so that this is no empty promise.
    assert {"init", "stop", "node", "image", "update", "autostart", "delete", "snapshot"} <= {
        *refused
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_about_a_cluster_is_for_root(
    recorded: World, sykube: Sykube, words: tuple[str, ...]
) -> None:
    before = recorded.snapshot()
    result = sykube(*("lab" if word == "fake" else word for word in words), user=1000)
    assert result.code == ExitCode.USAGE
    assert "this needs root" in result.err
    assert differences(before, recorded.snapshot()) == []


def unfinished(cluster: Cluster) -> None:
    del cluster.state.steps["kubeconfig"]


def stopped(cluster: Cluster) -> None:
    for node in cluster.nodes:
        cluster.engine.kill(node.instance)


def paused(cluster: Cluster) -> None:
    power.pause(cluster.host, cluster.name, cluster.ui)


def updating(cluster: Cluster) -> None:
    before, after = (Origin(number, "", {"kubernetes": f"v1.20.{number}"}, None) for number in "23")
    cluster.state.update = Progress(before, after)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unfinished, "was never finished"),
        (stopped, "no control plane of the cluster fake runs"),
        (paused, "is paused"),
        (updating, "is half-way to Kubernetes"),
    ],
)
def test_a_cluster_in_such_a_state_is_for_commands_that_say_so(
    world: World, make: Callable[[Cluster], None], message: str
) -> None:
    cluster = made(world)
    make(cluster)
    cluster.save()
    with pytest.raises(SykubeError, match=message), opened(world.host, "fake", world.ui()):
        pytest.fail("it was opened")
    fitting = {make.__name__: True}
    with opened(world.host, "fake", world.ui(), **fitting) as found:
        assert found.state == cluster.state


def test_nobody_but_root_holds_a_cluster(world: World) -> None:
    world.user = 1000
    with pytest.raises(UsageError, match="this needs root"), held(world.host, "fake"):
        pytest.fail("it was held")
