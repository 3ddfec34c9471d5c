"""Several control planes that stand in for each other, in a fake world."""

from __future__ import annotations

import re

import pytest

from sykube.cluster.commands import power, removal
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.registration import register
from sykube.errors import ExitCode, SykubeError
from tests.fakes import Calls, Injected, World
from tests.fakes.apiserver import CONTROL_PLANE_LABEL, NODES, FakeApi, Kubernetes
from tests.fakes.instance import SHARED_KEYS
from tests.fakes.node_programs import KUBELET_START
from tests.unit.helpers import fake_spec, init, made, unchanged

MASTERS = ["fake-master", "fake-master2", "fake-master3"]


def joins(world: World) -> list[str]:
    """The nodes whose kubelets kubeadm let start, without the first, in order."""
    return [call.words[1] for call in world.calls.all if is_joining(call.words)]


def is_joining(words: tuple[str, ...]) -> bool:
    return words[2:4] == ("kubeadm", "join") or words[2:6] == KUBELET_START


def keepalived(cluster: Cluster, node: str) -> str:
    return cluster.node(node).pull("/etc/sykube/keepalived.conf").read_text()


@pytest.mark.parametrize("count", [3, 5])
def test_init_makes_each_of_them_a_member_of_etcd_and_delete_leaves_nothing(
    world: World, count: int
) -> None:
    with unchanged(world):
        cluster = made(world, control_planes=count)
        names = [node.instance for node in cluster.control_planes]
        assert names[:3] == MASTERS
        server = world.kubernetes["fake"]
        assert server.members == {node.instance: node.address for node in cluster.control_planes}
        labelled = {
            name
            for name, node in server.nodes.items()
            if CONTROL_PLANE_LABEL in node["metadata"].get("labels", {})
        }
        assert labelled == set(names)
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_they_join_one_after_the_other_and_before_the_workers(world: World) -> None:
    init(world, fake_spec(control_planes=3, workers=2))
    order = joins(world)
    assert order[:2] == MASTERS[1:]
    assert set(order[2:]) == {"fake-node1", "fake-node2"}


def test_api_servers_that_saw_etcd_get_a_member_start_anew(world: World) -> None:
    init(world, fake_spec(control_planes=3, workers=1))
    calls = [call.words for call in world.calls.all if call.kind == "engine"]
    ended = [words[1] for words in calls if words[-1] == "kube-apiserver"]
    assert ended == MASTERS[:2]
    last = max(n for n, words in enumerate(calls) if words[-1] == "kube-apiserver")
    joined = {words[1]: n for n, words in enumerate(calls) if is_joining(words)}
    assert joined["fake-master3"] < last < joined["fake-node1"]


def test_a_slow_kubelet_has_room_for_its_static_pods(world: World) -> None:
    cluster, server = made(world, control_planes=3), Kubernetes()
    register(cluster, FakeApi(server, Calls()), cluster.node("master2"), {})
    status = server.objects[f"{NODES}/fake-master2"]["status"]
    assert status["allocatable"] == status["capacity"]
    # What kubeadm 1.20 asks for: 650m for all four, and 100Mi of the others for etcd.
    assert status["allocatable"].keys() == {"cpu", "memory", "ephemeral-storage", "pods"}
    assert int(status["allocatable"]["cpu"]) >= 1


def test_they_share_the_clusters_keys_and_workers_get_none(world: World) -> None:
    made(world, control_planes=3)
    first = world.instances["fake-master"].files
    for name in MASTERS[1:]:
        files = world.instances[name].files
        assert {key: files[key] for key in SHARED_KEYS} == {key: first[key] for key in SHARED_KEYS}
    assert not [key for key in world.instances["fake-node1"].files if key.endswith(".key")]


def test_private_keys_are_roots_alone(world: World) -> None:
    init(world, fake_spec(control_planes=3))
    modes = {}
    for call in world.calls.all:
        match = re.search(r"chmod (\d+) /etc/kubernetes/pki/(\S+)\.new", " ".join(call.words))
        if match:
            modes[match[2]] = match[1]
    assert len(modes) == len(SHARED_KEYS)
    assert {name for name, mode in modes.items() if mode == "0644"} == {
        "ca.crt",
        "sa.pub",
        "front-proxy-ca.crt",
        "etcd/ca.crt",
    }
    assert set(modes.values()) == {"0644", "0600"}


def test_the_endpoint_moves_between_them(world: World) -> None:
    cluster = made(world, control_planes=3)
    priorities = []
    for node in cluster.control_planes:
        text = keepalived(cluster, node.name)
        others = {other.address for other in cluster.control_planes if other != node}
        assert f"unicast_src_ip {node.address}\n" in text
        peers = re.search(r"unicast_peer \{(.*?)\}", text, re.DOTALL)
        assert peers is not None
        assert set(peers[1].split()) == others
        assert f"{cluster.endpoint_address}/32" in text
        assert "SYKUBE_ENDPOINT=\n" in node.pull("/etc/sykube/node.env").read_text()
        found = re.search(r"priority (\d+)", text)
        assert found is not None
        priorities.append(int(found[1]))
    # The first one has it as long as it can; no two want it alike. VRRP: 1 to 254.
    assert priorities == sorted(set(priorities), reverse=True)
    assert 1 <= priorities[-1] <= priorities[0] <= 254
    assert keepalived(cluster, "node1") == ""


def test_one_alone_has_the_endpoint_itself(world: World) -> None:
    cluster = made(world)
    assert keepalived(cluster, "master") == ""
    assert (
        "SYKUBE_ENDPOINT=10.11.11.254\n" in cluster.master.pull("/etc/sykube/node.env").read_text()
    )


def test_the_cluster_dns_runs_on_two_of_them(world: World) -> None:
    made(world, control_planes=3)
    deployment = next(
        each
        for path, each in world.kubernetes["fake"].objects.items()
        if path.endswith("/deployments/cluster-dns")
    )
    assert deployment["spec"]["replicas"] == 2


def test_a_control_plane_that_failed_in_joining_is_forgotten_by_etcd_before_it_joins_anew(
    world: World,
) -> None:
    world.calls.fail(
        lambda call: call.words[1:4] == ("fake-master2", "kubeadm", "join"),
    )
    with pytest.raises(Injected):
        init(world, fake_spec(control_planes=3), retain=True)
    assert "fake-master2" in world.kubernetes["fake"].members
    pid = world.instances["fake-master"].pid
    world.calls.all.clear()
    assert init(world, fake_spec(control_planes=3)) is not None
    removed = [call.words for call in world.calls.all if call.words[-2:-1] == ("remove",)]
    assert len(removed) == 1
    assert removed[0][1] == "fake-master"
    assert sorted(world.kubernetes["fake"].members) == MASTERS
    assert world.instances["fake-master"].pid == pid


@pytest.mark.parametrize("lost", MASTERS)
def test_the_cluster_goes_on_without_one_of_them_and_start_brings_it_back(
    world: World, lost: str
) -> None:
    cluster = made(world, control_planes=3)
    world.end(lost)
    assert cluster.running_control_plane().instance == MASTERS[lost == "fake-master"]
    world.calls.all.clear()
    assert power.start(world.host, "fake", world.ui()) is True
    assert lost in world.instances
    assert joins(world) == []
    assert sorted(world.kubernetes["fake"].members) == MASTERS


def test_without_any_of_them_there_is_nobody_to_ask(world: World) -> None:
    cluster = made(world, control_planes=3)
    for name in MASTERS:
        world.end(name)
    with pytest.raises(SykubeError, match="no control plane") as raised:
        cluster.running_control_plane()
    assert raised.value.exit_code is ExitCode.STOPPED


def test_they_come_back_after_a_stop(world: World) -> None:
    made(world, control_planes=3)
    power.stop(world.host, "fake", StopOptions(), world.ui())
    assert power.start(world.host, "fake", world.ui()) is True
    assert sorted(world.instances) == [*MASTERS, "fake-node1"]
