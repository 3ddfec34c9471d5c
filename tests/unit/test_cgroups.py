"""A cgroup tree for each node, on fake hierarchies of both versions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import SykubeError
from sykube.host.grants import Grants
from sykube.node import cgroups
from sykube.node.limits import Limits
from sykube.node.node import Usage
from tests.fakes import World
from tests.fakes.cgroups import CgroupPath


def make(version: int, fast_path: Path) -> World:
    return World(fast_path / f"v{version}", cgroup_version=version)


@pytest.fixture
def v1(fast_path: Path) -> World:
    return make(1, fast_path)


@pytest.fixture
def v2(fast_path: Path) -> World:
    return make(2, fast_path)


@pytest.fixture(params=["v1", "v2"])
def either(request: pytest.FixtureRequest) -> World:
    world = request.getfixturevalue(request.param)
    assert isinstance(world, World)
    return world


def folders(world: World) -> list[str]:
    """Cgroups of ours below each hierarchy."""
    return sorted(
        str(path.relative_to(world.cgroup_root))
        for path in world.cgroup_root.rglob("*")
        if path.is_dir() and "sykube" in path.parts
    )


def test_v1_has_one_in_each_hierarchy_and_none_twice(v1: World) -> None:
    assert not cgroups.is_v2(v1.host)
    cgroups.create(v1.host, "fake-master")
    assert folders(v1) == sorted(
        f"{hierarchy}/sykube{rest}"
        for hierarchy in ("cpu,cpuacct", "cpuset", "freezer", "memory", "pids", "systemd")
        for rest in ("", "/fake-master")
    )
    # cgroup2 beside v1 is none of a node's.
    assert not (v1.cgroup_root / "unified/sykube").exists()


def test_v1_fills_a_new_cpuset_which_takes_no_process_otherwise(v1: World) -> None:
    cgroups.create(v1.host, "fake-master")
    for folder in ("sykube", "sykube/fake-master"):
        assert (v1.cgroup_root / "cpuset" / folder / "cpuset.cpus").read_text() == "0-1\n"
        assert (v1.cgroup_root / "cpuset" / folder / "cpuset.mems").read_text() == "0\n"


def test_v1_keeps_a_cpuset_that_is_filled(v1: World) -> None:
    cgroups.create(v1.host, "fake-master")
    cpus = v1.cgroup_root / "cpuset/sykube/cpuset.cpus"
    cpus.write_text("1\n")
    cgroups.create(v1.host, "fake-node1")
    assert cpus.read_text() == "1\n"
    assert (v1.cgroup_root / "cpuset/sykube/fake-node1/cpuset.cpus").read_text() == "1\n"


def test_v2_hands_every_controller_on(v2: World) -> None:
    assert cgroups.is_v2(v2.host)
    cgroups.create(v2.host, "fake-master")
    assert folders(v2) == ["sykube", "sykube/fake-master"]
    for folder in (v2.cgroup_root, v2.cgroup_root / "sykube"):
        handed = (folder / "cgroup.subtree_control").read_text().split()
        assert set(handed) >= {"cpu", "cpuset", "memory", "pids"}


def test_v2_does_without_a_controller_that_cannot_be_handed_on(
    v2: World,
) -> None:
    class WithoutCpu(CgroupPath):
        def write_text(self, data: str, *rest: Any, **more: Any) -> int:
            if data == "+cpu":
                raise OSError(22, "Invalid argument")
            return super().write_text(data, *rest, **more)

    cgroups.create(replace(v2.host, cgroup_files=WithoutCpu), "fake-master")
    handed = (v2.cgroup_root / "sykube/cgroup.subtree_control").read_text().split()
    assert "memory" in handed


def test_making_twice_and_removing_twice(either: World) -> None:
    before = either.snapshot()
    cgroups.create(either.host, "fake-master")
    cgroups.create(either.host, "fake-master")
    cgroups.create(either.host, "fake-node1")
    cgroups.remove(either.host, "fake-master")
    assert cgroups.leftovers(either.host, "fake-") == ["fake-node1"]
    cgroups.remove(either.host, "fake-node1")
    cgroups.remove(either.host, "fake-node1")
    assert either.snapshot() == before


def test_what_runs_in_it_is_killed_and_what_is_below_goes_too(either: World) -> None:
    before = either.snapshot()
    cgroups.create(either.host, "fake-master")
    cgroups.create(either.host, "fake-node1")
    hierarchy = either.cgroup_hierarchies()[0]
    pod = hierarchy / "sykube/fake-master/kubepods/pod1"
    pod.parent.mkdir()
    pod.mkdir()
    (pod / "cgroup.procs").write_text("5000001\n5000002\n")
    (hierarchy / "sykube/fake-master/cgroup.procs").write_text("5000003\n")
    (hierarchy / "sykube/fake-node1/cgroup.procs").write_text("5000004\n")
    assert sorted(cgroups.processes(hierarchy / "sykube/fake-master")) == [
        5000001,
        5000002,
        5000003,
    ]
    cgroups.remove(either.host, "fake-master")
    assert sorted(either.killed) == [5000001, 5000002, 5000003]
    cgroups.remove(either.host, "fake-node1")
    assert either.snapshot() == before


def test_what_a_killed_engine_leaves_goes_too(either: World) -> None:
    cgroups.create(either.host, "fake-master")
    parents = cgroups.of_engines(either.host)
    # No kernel gives so high a number: proc_sys_kernel(5), pid_max.
    abandoned = [parent / "99999999" for parent in parents]
    alive = [parent / str(os.getpid()) for parent in parents]
    for folder in [*abandoned, *alive, either.host.proc / str(os.getpid())]:
        folder.mkdir(parents=True)
    cgroups.remove(either.host, "fake-master")
    assert not any(folder.exists() for folder in abandoned)
    assert all(folder.is_dir() for folder in alive)


def test_the_processes_of_other_namespaces_count_as_none(either: World) -> None:
    """The kernel shows a process that this namespace cannot see as 0: never kill(0)."""
    cgroups.create(either.host, "fake-master")
    folder = either.cgroup_hierarchies()[0] / "sykube/fake-master"
    (folder / "cgroup.procs").write_text("0\n")
    assert cgroups.processes(folder) == []


def test_processes_that_do_not_end_are_an_error_that_names_them(either: World) -> None:
    cgroups.create(either.host, "fake-master")
    folder = either.cgroup_hierarchies()[0] / "sykube/fake-master"
    (folder / "cgroup.procs").write_text("5000001\n")
    host = replace(either.host, kill=lambda *_: None)
    with pytest.raises(SykubeError, match="5000001") as raised:
        cgroups.remove(host, "fake-master")
    assert str(folder) in raised.value.details
    assert folder.exists()


LIMITS = Limits(millicores=1500, memory=2 * 1024**3, pids=900)


def limits_of(world: World, node: str) -> dict[str, str]:
    """What the kernel is told of a node's limits."""
    names = ("cpu.cfs_quota_us", "cpu.max", "memory.limit_in_bytes", "memory.max", "pids.max")
    return {
        path.name: path.read_text().strip()
        for path in sorted(Path(world.cgroup_root).rglob("*"))
        if path.parent.name == node and path.name in names
    }


def test_v1_holds_a_node_to_its_limits(v1: World) -> None:
    cgroups.create(v1.host, "fake-node1", LIMITS)
    assert limits_of(v1, "fake-node1") == {
        "cpu.cfs_quota_us": "150000",
        "memory.limit_in_bytes": "2147483648",
        "pids.max": "900",
    }


def test_v2_holds_a_node_to_its_limits(v2: World) -> None:
    cgroups.create(v2.host, "fake-node1", LIMITS)
    assert limits_of(v2, "fake-node1") == {
        "cpu.max": "150000 100000",
        "memory.max": "2147483648",
        "pids.max": "900",
    }


def test_limits_are_each_nodes_own(either: World) -> None:
    cgroups.create(either.host, "fake-node1", LIMITS)
    unlimited = limits_of(either, "sykube")
    cgroups.create(either.host, "fake-master")
    assert limits_of(either, "fake-master") == unlimited
    assert limits_of(either, "fake-node1") != unlimited


def test_limits_that_are_no_longer_asked_for_go(either: World) -> None:
    cgroups.create(either.host, "fake-node1")
    without = limits_of(either, "fake-node1")
    cgroups.create(either.host, "fake-node1", LIMITS)
    cgroups.create(either.host, "fake-node1")
    assert {name: text.split()[0] for name, text in limits_of(either, "fake-node1").items()} == {
        name: text.split()[0] for name, text in without.items()
    }


def test_a_limit_that_this_kernel_does_not_have_is_left_out(v1: World) -> None:
    cgroups.create(v1.host, "fake-node1")
    (v1.cgroup_root / "memory/sykube/fake-node1/memory.limit_in_bytes").unlink()
    cgroups.create(v1.host, "fake-node1", LIMITS)
    assert sorted(limits_of(v1, "fake-node1")) == ["cpu.cfs_quota_us", "pids.max"]


def test_a_node_is_frozen_and_thawed(either: World) -> None:
    cgroups.create(either.host, "fake-master")
    cgroups.create(either.host, "fake-node1")
    assert not cgroups.is_frozen(either.host, "fake-node1")
    cgroups.freeze(either.host, "fake-node1", frozen=True)
    assert cgroups.is_frozen(either.host, "fake-node1")
    assert not cgroups.is_frozen(either.host, "fake-master")
    cgroups.freeze(either.host, "fake-node1", frozen=False)
    assert not cgroups.is_frozen(either.host, "fake-node1")


def test_the_kernel_is_told_in_its_own_words(v1: World) -> None:
    cgroups.create(v1.host, "fake-node1")
    state = v1.cgroup_root / "freezer/sykube/fake-node1/freezer.state"
    cgroups.freeze(v1.host, "fake-node1", frozen=True)
    assert state.read_text() == "FROZEN\n"
    cgroups.freeze(v1.host, "fake-node1", frozen=False)
    assert state.read_text() == "THAWED\n"


def test_v2_is_told_in_its_own_words(v2: World) -> None:
    cgroups.create(v2.host, "fake-node1")
    cgroups.freeze(v2.host, "fake-node1", frozen=True)
    assert (v2.cgroup_root / "sykube/fake-node1/cgroup.freeze").read_text() == "1\n"


def test_a_node_without_cgroups_is_not_frozen(either: World) -> None:
    before = either.snapshot()
    cgroups.freeze(either.host, "fake-node1", frozen=True)
    assert not cgroups.is_frozen(either.host, "fake-node1")
    assert either.snapshot() == before


def test_a_frozen_node_is_thawed_before_its_processes_are_killed(either: World) -> None:
    """On v1 a frozen process does not end."""
    cgroups.create(either.host, "fake-node1")
    cgroups.freeze(either.host, "fake-node1", frozen=True)
    frozen: list[bool] = []

    def kill(pid: int, signal: int) -> None:
        frozen.append(either.frozen("fake-node1"))
        either.kill_process(pid, signal)

    hierarchy = either.cgroup_hierarchies()[0]
    (hierarchy / "sykube/fake-node1/cgroup.procs").write_text("5000001\n")
    cgroups.remove(replace(either.host, kill=kill), "fake-node1")
    assert frozen == [False]


def test_leftovers_are_those_of_one_cluster(either: World) -> None:
    for name in ("fake-master", "fake-node1", "other-master"):
        cgroups.create(either.host, name)
    assert cgroups.leftovers(either.host, "fake-") == ["fake-master", "fake-node1"]
    assert cgroups.leftovers(either.host, "absent-") == []


def test_the_path_is_the_same_in_every_hierarchy() -> None:
    assert cgroups.path_of("fake-master") == "sykube/fake-master"


def test_a_user_without_cgroups_leaves_those_of_the_same_name_alone(either: World) -> None:
    """Root's, of a cluster of that name: a user sees them, and may not touch them."""
    cgroups.create(either.host, "fake-master")
    cgroups.freeze(either.host, "fake-master", frozen=True)
    before = folders(either)
    user = replace(either.host, grants=Grants(rootless=True, cgroups=False))
    assert not cgroups.is_frozen(user, "fake-master")
    cgroups.freeze(user, "fake-master", frozen=False)
    assert cgroups.members(user, "fake-master") == []
    assert cgroups.leftovers(user, "fake-") == []
    assert cgroups.usage(user, "fake-master") == Usage(None, None)
    cgroups.remove(user, "fake-master")
    assert folders(either) == before
    assert cgroups.is_frozen(either.host, "fake-master")
