"""How a cluster is: what status finds, says and ends with."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from sykube.cluster.commands import addons, lifecycle, power, status
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import ExitCode, SykubeError
from tests.fakes import World
from tests.fakes.apiserver import NODES, ready
from tests.network_policies import policy


def look(world: World) -> status.Status:
    return status.collect(lookup.load(world.host, "fake", world.ui()))


@pytest.fixture
def up(world: World) -> World:
    lifecycle.init(
        world.host, ClusterSpec(name="fake", dns=("192.0.2.1",)), InitOptions(), world.ui()
    )
    return world


def test_a_cluster_that_is_well(up: World) -> None:
    up.programs.answers["du"] = lambda _: (0, "1600000\t/x/overlay\n1500000\t/x/etcd\n", "")
    found = look(up)
    assert found.exit_code is ExitCode.OK
    assert found.summary == "healthy"
    assert set(found.parts.values()) == {""}
    shown = found.to_dict()
    assert shown["status"] == "healthy"
    assert [each["name"] for each in shown["nodes"]] == ["master", "node1"]
    assert [each.summary for each in found.nodes] == ["Ready", "Ready"]
    assert [each.disk_mb for each in found.nodes] == [4, 4]
    assert found.nodes[0].services == {"containerd": "RUNNING", "kubelet": "RUNNING"}


def test_network_policies_are_said_to_be_enforced_or_not(up: World) -> None:
    assert look(up).policies == "enforced, none so far"
    path = "/apis/networking.k8s.io/v1/networkpolicies/deny"
    deny = policy("x", "deny", {}, ingress=[])
    up.kubernetes["fake"].objects[path] = deny
    found = look(up)
    assert found.policies == "enforced, 1 so far"
    assert found.to_dict()["policies"] == found.policies
    addons.disable(up.host, "fake", "network-policy", up.ui())
    found = look(up)
    assert found.policies == (
        "1 NetworkPolicy is accepted and not enforced: the add-on network-policy is disabled"
    )
    # Nothing of the cluster is broken.
    assert found.exit_code is ExitCode.OK


def test_network_policies_that_are_not_enforced_make_a_cluster_degraded(up: World) -> None:
    up.kubernetes["fake"].broken.add("network-policy")
    found = look(up)
    assert found.policies.startswith("not enforced on every node: kube-system/network-policy: 0 of")
    assert found.exit_code is ExitCode.DEGRADED
    assert replace(found, pods="").exit_code is ExitCode.DEGRADED


def node_is_gone(world: World) -> None:
    world.end("fake-node1")


def master_is_gone(world: World) -> None:
    world.end("fake-master")


def pod_is_not_ready(world: World) -> None:
    world.kubernetes["fake"].broken.add("kube-scheduler")


def node_is_not_ready(world: World) -> None:
    node = world.kubernetes["fake"].objects[f"{NODES}/fake-node1"]
    node["status"]["conditions"] = [ready(False, "container runtime is down")]


def node_is_not_registered(world: World) -> None:
    del world.kubernetes["fake"].objects[f"{NODES}/fake-node1"]


def dns_is_silent(world: World) -> None:
    world.calls.fail(
        lambda call: call.kind == "dns", lambda _: TimeoutError("timed out"), times=None
    )


def dns_refuses(world: World) -> None:
    world.calls.fail(
        lambda call: call.kind == "dns",
        lambda _: OSError(errno.ECONNREFUSED, "Connection refused"),
        times=None,
    )


def program_has_died(world: World) -> None:
    world.services["kubelet"] = "FATAL"


def bridge_is_gone(world: World) -> None:
    world.kernel.remove_link("sk-fake")


def disk_is_nearly_full(world: World) -> None:
    world.total, world.free = 10_000_000_000, 0.05


def etcd_is_ill(world: World) -> None:
    world.calls.fail(
        lambda call: call.words == ("GET", "/readyz"),
        lambda _: SykubeError("GET /readyz: [-]etcd failed: reason withheld"),
        times=None,
    )


def api_is_silent(world: World) -> None:
    world.silent.add("fake-master")


@pytest.mark.parametrize(
    ("damage", "where", "words"),
    [
        (node_is_gone, "node1", "its instance does not run"),
        (master_is_gone, "API server", "no control plane runs"),
        (pod_is_not_ready, "system pods", "kube-scheduler-fake-master: Test"),
        (node_is_not_ready, "node1", "container runtime is down"),
        (node_is_not_registered, "node1", "not registered"),
        (dns_is_silent, "DNS", "no answer for kubernetes.default.svc.cluster.local: timed out"),
        (dns_refuses, "DNS", "Connection refused"),
        (program_has_died, "node1", "kubelet is FATAL"),
        (bridge_is_gone, "network", "the bridge sk-fake is gone"),
        (disk_is_nearly_full, "disk", "500 MB free of 10000 MB in "),
        (etcd_is_ill, "API server", "etcd failed"),
        (api_is_silent, "API server", "Connection refused"),
    ],
)
def test_each_thing_that_is_wrong_is_degraded_and_said_where_it_belongs(
    up: World, damage: Callable[[World], None], where: str, words: str
) -> None:
    damage(up)
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert found.summary == "degraded"
    said = found.parts | {node.name: node.problem for node in found.nodes}
    assert words in said[where]
    assert found.to_dict()["status"] == "degraded"


def test_all_that_is_wrong_with_a_node_is_said_in_one_line(up: World) -> None:
    program_has_died(up)
    node_is_not_ready(up)
    master, node1 = look(up).nodes
    assert master.summary == "kubelet is FATAL"
    assert node1.summary == "kubelet is FATAL; container runtime is down"


def test_a_node_whose_supervisord_is_silent_is_degraded(
    up: World,
) -> None:
    up.network.supervisor_fails = TimeoutError("timed out")
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert [node.summary for node in found.nodes] == ["supervisord does not answer: timed out"] * 2


def test_a_node_that_does_not_run_is_asked_nothing(up: World) -> None:
    node_is_gone(up)
    up.calls.all.clear()
    assert [node.summary for node in look(up).nodes] == ["Ready", "stopped"]
    assert not any("fake-node1" in call.words for call in up.calls.all if call.kind != "engine")


def test_a_cluster_that_is_stopped(up: World) -> None:
    for name in list(up.instances):
        up.end(name)
    up.calls.all.clear()
    found = look(up)
    assert found.exit_code is ExitCode.STOPPED
    assert found.summary == "stopped"
    assert {call.kind for call in up.calls.all} == {"engine", "run"}
    # What its nodes take on the disk is of interest all the same.
    assert [node.disk_mb for node in found.nodes] == [1, 1]


def test_a_cluster_that_is_paused(up: World) -> None:
    power.pause(up.host, "fake", up.ui())
    found = look(up)
    assert found.exit_code is ExitCode.STOPPED
    assert found.summary == "paused"
    assert [node.summary for node in found.nodes] == ["paused", "paused"]


def test_a_cluster_of_which_one_node_is_paused_is_degraded(up: World) -> None:
    from sykube.node import cgroups

    cgroups.freeze(up.host, "fake-node1", frozen=True)
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert [node.summary for node in found.nodes] == ["Ready", "paused"]


def test_one_control_plane_that_is_lost_is_said_and_the_others_answer(world: World) -> None:
    spec = ClusterSpec(name="fake", dns=("192.0.2.1",), control_planes=3)
    lifecycle.init(world.host, spec, InitOptions(), world.ui())
    world.end("fake-master")
    found = look(world)
    assert found.exit_code is ExitCode.DEGRADED
    assert found.api == ""
    assert [node.summary for node in found.nodes] == ["stopped", "Ready", "Ready", "Ready"]


# --- from afar ---


def glance(world: World) -> status.Glance:
    return status.glance(world.host, "fake", world.ui())


def test_a_glance_at_a_cluster_asks_for_its_instances_alone(up: World) -> None:
    up.calls.all.clear()
    assert glance(up) == status.Glance("fake", "running", 2, "v1.20.2")
    assert {call.words for call in up.calls.all} == {("instances",)}


def test_a_glance_at_a_cluster_in_each_of_its_states(up: World) -> None:
    power.pause(up.host, "fake", up.ui())
    assert glance(up).state == "paused"
    power.unpause(up.host, "fake", up.ui())
    up.end("fake-node1")
    assert glance(up).state == "partly running"
    up.end("fake-master")
    assert glance(up).state == "stopped"
    lookup.load(up.host, "fake", up.ui()).paths.state.write_text("{")
    assert glance(up) == status.Glance("fake", "damaged")


def test_a_glance_at_a_cluster_that_init_did_not_finish(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:ready")
    spec = ClusterSpec(name="fake", dns=("192.0.2.1",))
    with pytest.raises(SykubeError):
        lifecycle.init(world.host, spec, InitOptions(retain=True), world.ui())
    assert glance(world).state == "unfinished"
