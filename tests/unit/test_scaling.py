"""Workers that join and leave a cluster in a fake world, also where each call fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sykube.cluster.commands import power, removal, scaling
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.commands.scaling import RemovalOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import State, locked
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host.paths import ClusterPaths
from tests.fakes import Call, Injected, World
from tests.fakes.apiserver import NODES, ready
from tests.fakes.instance import KUBELET_CONF
from tests.fakes.node_programs import KUBELET_START
from tests.unit.helpers import differences, fake_spec, init, made, unchanged


def add(world: World, count: int = 1) -> list[str]:
    return scaling.add(world.host, "fake", count, world.ui())


def remove(world: World, node: str = "node1", **options: object) -> None:
    scaling.remove_node(world.host, "fake", node, RemovalOptions(**options), world.ui())  # type: ignore[arg-type]


def recorded(cluster: Cluster) -> State:
    state = State.load(cluster.paths.state)
    assert state is not None
    return state


def kubernetes(world: World) -> dict[str, object]:
    """What Kubernetes knows of the nodes."""
    server = world.kubernetes["fake"]
    return {
        "nodes": {name: dict(node["spec"]) for name, node in server.nodes.items()},
        "tokens": server.tokens(),
        "members": dict(server.members),
    }


def known(world: World) -> dict[str, tuple[list[str], list[str]]]:
    """Routes and names that each running node knows."""
    return {name: (each.routes, each.hosts) for name, each in world.instances.items()}


# --- add ---


def test_workers_that_join_are_nodes_like_the_others(world: World) -> None:
    cluster = made(world)
    assert add(world, 2) == ["node2", "node3"]
    assert sorted(world.instances) == ["fake-master", "fake-node1", "fake-node2", "fake-node3"]
    node = world.kubernetes["fake"].nodes["fake-node3"]
    assert node["spec"]["podCIDR"] == "10.244.3.0/24"
    assert world.instances["fake-node3"].options.address == "10.11.11.5/24"
    assert recorded(cluster).nodes == ["master", "node1", "node2", "node3"]
    assert world.kubernetes["fake"].tokens() == {}


def test_every_node_knows_the_routes_and_the_name_of_one_that_joined(world: World) -> None:
    made(world)
    add(world)
    for name, (routes, hosts) in known(world).items():
        assert "10.11.11.4 fake-node2" in hosts
        assert ("10.244.2.0/24 via 10.11.11.4" in routes) is (name != "fake-node2")
    assert len(world.instances["fake-node2"].routes) == 2


def test_nodes_that_run_go_on_while_another_joins(world: World) -> None:
    made(world)
    pids = {name: instance.pid for name, instance in world.instances.items()}
    add(world)
    assert {name: world.instances[name].pid for name in pids} == pids


def test_a_cluster_is_as_asked_after_a_worker_has_joined(world: World) -> None:
    made(world)
    add(world)
    assert init(world, fake_spec(workers=2)) is None
    with pytest.raises(SykubeError, match="not as asked"):
        init(world, fake_spec(workers=1))


def test_the_lowest_free_name_and_address_are_taken_again(world: World) -> None:
    made(world, workers=3)
    address = world.instances["fake-node2"].options.address
    remove(world, "node2")
    assert add(world) == ["node2"]
    assert world.instances["fake-node2"].options.address == address


def test_delete_of_a_cluster_that_grew_leaves_nothing(world: World) -> None:
    with unchanged(world):
        made(world)
        add(world, 2)
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_more_workers_than_there_is_room_for_are_refused(world: World) -> None:
    made(world)
    with unchanged(world), pytest.raises(UsageError, match="room for 239 further workers, not 240"):
        add(world, 240)


def test_a_host_without_memory_for_another_worker_is_said_before_any_change(
    world: World,
) -> None:
    made(world)
    world.give_memory(1400)
    with unchanged(world), pytest.raises(HostError, match="not ready") as raised:
        add(world, 3)
    assert "1400 MB available, about 1500 MB needed" in raised.value.details


_reference: list[Call] = []


def reference_calls(world: World) -> list[Call]:
    """Every call of an add that works."""
    if not _reference:
        add(world)
        _reference.extend(world.calls.all)
        remove(world, "node2")
    return _reference


STEPS = ["", "Starting node2", "Joining the cluster", "Waiting for nodes, pods and DNS"]


@pytest.mark.parametrize("error", [Injected, KeyboardInterrupt])
@pytest.mark.parametrize("title", STEPS)
def test_an_add_whose_call_to_the_outside_fails_leaves_the_cluster_as_it_was(
    world: World, title: str, error: type[BaseException]
) -> None:
    made(world)
    calls = reference_calls(world)
    before, nodes, knew = world.snapshot(), kubernetes(world), known(world)
    numbers = [
        number
        for number, call in enumerate(calls)
        if call.step == title
        and not (number and calls[number - 1].words[:5] == call.words[:5])
        # What only cleans up after kubeadm does not make it fail.
        and not ("rm" in call.words or call.words[0] == "DELETE")
    ]
    assert numbers
    for number in numbers:
        world.calls.all.clear()
        world.calls.faults.clear()
        world.calls.fail_number(number, lambda call: error(str(call)))
        with pytest.raises(error):
            add(world)
        assert differences(before, world.snapshot()) == [], calls[number]
        assert kubernetes(world) == nodes, calls[number]
        assert known(world) == knew, calls[number]


def test_an_add_that_cannot_be_undone_shows_the_first_error_and_says_what_is_left(
    world: World,
) -> None:
    made(world)
    world.calls.fail(lambda call: call.words[2:6] == KUBELET_START)
    world.calls.fail(lambda call: call.words == ("kill", "fake-node2"))
    ui = world.ui()
    with pytest.raises(Injected, match="kubelet-start"):
        scaling.add(world.host, "fake", 1, ui)
    (warning,) = ui.warnings
    assert "node delete --force" in warning
    world.calls.faults.clear()
    remove(world, "node2", force=True)
    assert sorted(world.instances) == ["fake-master", "fake-node1"]


def test_the_first_error_of_an_add_is_shown_when_the_disk_is_full(world: World) -> None:
    made(world)
    world.calls.fail(lambda call: call.words[2:6] == KUBELET_START)
    world.calls.fail(
        lambda call: call.words == ("kill", "fake-node2"),
        lambda _: OSError(28, "No space left on device"),
    )
    ui = world.ui()
    with pytest.raises(Injected, match="kubelet-start"):
        scaling.add(world.host, "fake", 1, ui)
    assert "No space left" in ui.warnings[0]


@pytest.mark.parametrize(
    "words",
    [
        ("start", "fake-node2"),
        ("exec", "fake-node2", *KUBELET_START),
        ("POST", "/api/v1/nodes"),
    ],
    ids=" ".join,
)
def test_start_ends_an_add_that_was_killed_and_leaves_the_other_nodes_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    made(world)
    world.calls.fail(lambda call: call.words[: len(words)] == words, times=None)
    with monkeypatch.context() as killed:
        # Nobody is there to undo anything.
        killed.setattr(scaling, "_take_out", lambda *_: None)
        with pytest.raises(Injected):
            add(world, 2)
    world.calls.faults.clear()
    world.calls.all.clear()
    world.reboot()
    disks = {mark: dict(files) for mark, files in world.disks.items() if KUBELET_CONF in files}
    node1 = world.kubernetes["fake"].objects[f"{NODES}/fake-node1"]
    node1["status"]["conditions"] = [ready(False, "cni plugin not initialized")]

    def joining(_name: str, argv: list[str], _stdin: str | None) -> None:
        if tuple(argv[:4]) == KUBELET_START:
            # As kubelets are after their first seconds.
            node1["status"]["conditions"] = [ready()]

    world.node_programs.first = joining
    assert power.start(world.host, "fake", world.ui()) is True
    assert sorted(world.instances) == ["fake-master", "fake-node1", "fake-node2", "fake-node3"]
    assert sorted(world.kubernetes["fake"].nodes) == sorted(world.instances)
    assert {mark: world.disks[mark] for mark in disks} == disks
    joined = {call.words[1] for call in world.calls.all if call.words[2:6] == KUBELET_START}
    assert joined <= {"fake-node2", "fake-node3"}


# --- remove ---


def test_a_worker_that_leaves_is_emptied_first_and_leaves_nothing(world: World) -> None:
    cluster = made(world, workers=1)
    before, nodes, knew = world.snapshot(), kubernetes(world), known(world)
    add(world)
    world.calls.all.clear()
    remove(world, "node2", timeout=9)
    assert differences(before, world.snapshot()) == []
    assert kubernetes(world) == nodes
    assert known(world) == knew
    drained = next(call for call in world.calls.all if "drain" in call.words)
    killed = next(call for call in world.calls.all if call.words[0] == "kill")
    assert world.calls.all.index(drained) < world.calls.all.index(killed)
    assert drained.words[1:3] == ("drain", "fake-node2")
    assert drained.words[-1] == "--timeout=9s"
    assert recorded(cluster).spec.workers == 1


def test_a_worker_may_be_named_as_kubernetes_names_it(world: World) -> None:
    made(world)
    remove(world, "fake-node1")
    assert sorted(world.instances) == ["fake-master"]


def test_the_last_worker_may_leave(world: World) -> None:
    cluster = made(world)
    remove(world)
    assert recorded(cluster).nodes == ["master"]
    assert recorded(cluster).spec.workers == 0
    assert add(world) == ["node1"]


def no_eviction(call: Call) -> bool:
    return "drain" in call.words


def test_a_worker_whose_pods_cannot_be_evicted_stays_and_takes_pods_again(world: World) -> None:
    made(world)
    server = world.kubernetes["fake"]

    def refuse(call: Call) -> SykubeError:
        server.nodes["fake-node1"]["spec"]["unschedulable"] = True
        return SykubeError("Cannot evict pod as it would violate the pod's disruption budget")

    world.calls.fail(no_eviction, refuse)
    with unchanged(world), pytest.raises(SykubeError, match="disruption budget") as raised:
        remove(world)
    assert "--force" in raised.value.resolution
    assert "unschedulable" not in server.nodes["fake-node1"]["spec"]


def test_force_removes_it_all_the_same_and_warns(world: World) -> None:
    made(world)
    world.calls.fail(no_eviction)
    ui = world.ui()
    scaling.remove_node(world.host, "fake", "node1", RemovalOptions(force=True), ui)
    assert sorted(world.instances) == ["fake-master"]
    assert sorted(world.kubernetes["fake"].nodes) == ["fake-master"]
    assert "not all pods of node1 could be evicted" in ui.warnings[0]


def test_a_worker_that_does_not_run_leaves_by_force_alone(world: World) -> None:
    made(world)
    world.end("fake-node1")
    with unchanged(world), pytest.raises(SykubeError, match="does not run") as raised:
        remove(world)
    assert raised.value.exit_code is ExitCode.STOPPED
    assert "--force" in raised.value.resolution
    remove(world, force=True)
    assert sorted(world.kubernetes["fake"].nodes) == ["fake-master"]
    assert not any(call for call in world.calls.all if "drain" in call.words)
    assert known(world)["fake-master"][0] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("master", "master is a control plane"),
        ("node7", "node7 is not there"),
        ("other-node1", "other-node1 is not there"),
        ("", " is not there"),
    ],
)
def test_only_workers_of_the_cluster_can_leave(world: World, name: str, words: str) -> None:
    made(world)
    with unchanged(world), pytest.raises(UsageError, match=words) as raised:
        remove(world, name, force=True)
    assert raised.value.resolution == "Workers: node1"


def test_control_planes_stay_whatever_is_asked(world: World) -> None:
    made(world, workers=0, control_planes=3)
    for name in ("master", "master2"):
        with unchanged(world), pytest.raises(UsageError, match="control plane") as raised:
            remove(world, name, force=True)
    assert raised.value.resolution == "Workers: none"


def test_a_worker_leaves_while_one_of_three_control_planes_is_lost(world: World) -> None:
    made(world, control_planes=3)
    world.end("fake-master")
    remove(world)
    assert sorted(world.instances) == ["fake-master2", "fake-master3"]


def test_start_works_after_a_worker_has_left_that_stop_could_not_drain(world: World) -> None:
    made(world, workers=2)
    world.calls.fail(lambda call: call.words[1:3] == ("drain", "fake-node1"))
    with pytest.raises(Injected):
        power.stop(world.host, "fake", StopOptions(drain=True), world.ui())
    remove(world, force=True)
    assert power.start(world.host, "fake", world.ui()) is False


# --- what is refused ---

COMMANDS: dict[str, Callable[[World], object]] = {"add": add, "remove": remove}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_control_plane_nothing_joins_or_leaves(world: World, command: str) -> None:
    made(world)
    world.end("fake-master")
    with unchanged(world), pytest.raises(SykubeError, match="no control plane") as raised:
        COMMANDS[command](world)
    assert raised.value.exit_code is ExitCode.STOPPED
    assert raised.value.resolution == "sykube start --name fake"


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_joins_or_leaves_a_paused_cluster(world: World, command: str) -> None:
    made(world)
    power.pause(world.host, "fake", world.ui())
    with unchanged(world), pytest.raises(SykubeError, match="is paused") as raised:
        COMMANDS[command](world)
    assert raised.value.exit_code is ExitCode.STOPPED
    assert raised.value.resolution == "sykube unpause --name fake"


def test_nothing_joins_while_a_node_is_lost(world: World) -> None:
    made(world)
    world.end("fake-node1")
    with unchanged(world), pytest.raises(SykubeError, match="do not run: node1") as raised:
        add(world)
    assert raised.value.exit_code is ExitCode.DEGRADED


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_that_is_not_there(world: World, command: str) -> None:
    with unchanged(world), pytest.raises(SykubeError) as raised:
        COMMANDS[command](world)
    assert raised.value.exit_code is ExitCode.NO_SUCH_CLUSTER


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_that_init_did_not_finish_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:ready")
    with pytest.raises(SykubeError):
        init(world, retain=True)
    with unchanged(world), pytest.raises(SykubeError, match="never finished"):
        COMMANDS[command](world)


@pytest.mark.parametrize("command", COMMANDS)
def test_while_another_command_works_on_it_nothing_is_done(world: World, command: str) -> None:
    made(world)
    with locked(ClusterPaths(world.host, "fake")), pytest.raises(SykubeError) as raised:
        COMMANDS[command](world)
    assert raised.value.exit_code is ExitCode.LOCKED
    assert world.calls.all == []
