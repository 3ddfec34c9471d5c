"""Nodes of a Slurm cluster that Kubernetes has no place for."""

from __future__ import annotations

import dataclasses

import pytest

from sykube.cluster.commands.slurm import removal, room, scaling, setup, status
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import ExitCode, SykubeError
from sykube.slurm import manifests
from sykube.slurm.spec import SlurmSpec
from tests.fakes import World
from tests.fakes.slurm import FakeSlurm
from tests.unit.helpers import made

ONE = SlurmSpec("slurm", "sykube.local/slurm:1")
AUTO = dataclasses.replace(ONE, nodes=1, most=3)
FULL = "0/2 nodes are available: 2 Insufficient memory."
UNBOUND = "0/2 nodes are available: 2 pod has unbound immediate PersistentVolumeClaims."


@pytest.fixture
def slurm() -> FakeSlurm:
    """A Slurm cluster of two nodes."""
    found = FakeSlurm()
    found.sets = {"c1", "c2"}
    found.nodes = {"c1-0": ("idle", ""), "c2-0": ("idle", "")}
    found.apply(manifests.objects(ONE, "QQ==", owned=True)[2])
    return found


@pytest.fixture
def place(world: World, slurm: FakeSlurm) -> Place:
    world.programs.answers["kubectl"] = slurm.kubectl
    return Place(made(world, workers=0), "slurm", slurm)


def test_nodes_without_room_are_one_clear_error_after_a_minute_and_the_others_come(
    world: World, place: Place, slurm: FakeSlurm
) -> None:
    slurm.unready = {"c4-0": FULL}
    slurm.work = {"c1-0": 10_000}
    began = world.slept
    with pytest.raises(room.NoRoomError) as caught:
        scaling.grow(place, ONE, 4)
    assert 60 <= world.slept - began < 100
    error = caught.value
    assert error.exit_code == ExitCode.NO_ROOM
    assert error.brief == "there is no room for 1 of the 4 nodes of the Slurm cluster slurm"
    assert error.details == f"c4-0 is Pending: {FULL}"
    assert "sykube node add --name fake\n" in error.resolution
    assert "sykube slurm scale --name fake 3" in error.resolution
    assert sorted(slurm.nodes) == ["c1-0", "c2-0", "c3-0"]
    assert slurm.ended == slurm.deleted == []

    found = status.collect(place)
    assert found.exit_code == ExitCode.DEGRADED
    assert found.problem == f"c4-0: {FULL}"
    assert found.to_dict()["unscheduled"] == ({"pod": "c4-0", "reason": FULL},)

    # What waits goes before an idle node, even an older one.
    slurm.sets.add("c5")
    slurm.nodes["c5-0"] = ("idle", "")
    assert scaling.shrink(place, 4, None).removed == ("c4-0",)
    assert slurm.ended == []
    assert status.collect(place).exit_code == ExitCode.OK


def test_a_node_that_gets_room_in_time_is_no_error(
    world: World, place: Place, slurm: FakeSlurm
) -> None:
    slurm.unready = {"c3-0": FULL}
    began = world.slept
    sleep = place.cluster.host.sleep

    def free(seconds: float) -> None:
        sleep(seconds)
        if world.slept - began > 40:
            slurm.unready.clear()
            slurm.nodes["c3-0"] = ("idle", "")

    place.cluster.host = dataclasses.replace(place.cluster.host, sleep=free)
    assert scaling.grow(place, ONE, 3).added == ("c3-0",)


def test_what_waits_for_a_volume_does_not_lack_room(place: Place, slurm: FakeSlurm) -> None:
    slurm.unready = {"c3-0": UNBOUND}
    with pytest.raises(SykubeError) as caught:
        scaling.grow(place, ONE, 3)
    assert caught.value.exit_code == ExitCode.FAILED
    assert UNBOUND in caught.value.details


def test_while_something_else_is_missing_nobody_loses_patience(
    place: Place, slurm: FakeSlurm
) -> None:
    slurm.unready = {"c3-0": FULL, "c4-0": UNBOUND}
    with pytest.raises(SykubeError, match="not there after 300 s") as caught:
        scaling.grow(place, ONE, 4)
    assert FULL in caught.value.details


@pytest.mark.parametrize(("pod", "left"), [("c2-0", True), ("slurmctld-0", False)])
def test_a_new_one_stays_where_some_of_its_nodes_take_jobs(
    place: Place, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, pod: str, *, left: bool
) -> None:
    slurm.sets, slurm.nodes = set(), {}
    slurm.unready = {pod: FULL}
    removed: list[Place] = []
    monkeypatch.setattr(removal, "remove", lambda place, **_: removed.append(place))
    with pytest.raises(room.NoRoomError) as caught:
        setup.set_up(place, ONE, new=True)
    assert caught.value.exit_code == ExitCode.NO_ROOM
    assert f"{pod} is Pending: {FULL}" in caught.value.details
    assert bool(removed) != left


def test_the_least_that_there_is_no_room_for_are_named_with_other_limits(
    place: Place, slurm: FakeSlurm
) -> None:
    slurm.sets = {"c1"}
    slurm.asleep = {"c2", "c3"}
    slurm.nodes = {"c1-0": ("idle#", ""), "c2-0": ("idle~", ""), "c3-0": ("idle~", "")}
    slurm.unready = {"c1-0": FULL}
    with pytest.raises(room.NoRoomError, match="no room for 1 of the 3 nodes") as caught:
        setup.wait_for(place, [1, 2, 3], AUTO.nodes)
    assert "sykube slurm scale --name fake 0-3" in caught.value.resolution


def test_status_names_a_pod_that_slurm_itself_waits_for(place: Place, slurm: FakeSlurm) -> None:
    slurm.apply(manifests.objects(AUTO, "QQ==", owned=True)[2])
    slurm.sets, slurm.asleep = {"c1", "c2"}, {"c3"}
    slurm.nodes = {"c1-0": ("idle", ""), "c2-0": ("allocated#", ""), "c3-0": ("idle~", "")}
    slurm.unready = {"c2-0": FULL}
    found = status.collect(place)
    assert found.exit_code == ExitCode.OK
    assert [each.pod for each in found.unscheduled] == ["c2-0"]
