"""The add-on network-policy in a fake cluster; its program is in incluster/test_networkpolicy.py."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from sykube.addons.network_policy import NETWORK_POLICY, closed
from sykube.cluster.commands import addons, power, scaling, status
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.addons import addon_context
from sykube.cluster.operations.policies import enforcement
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.incluster.networkpolicy import nft
from tests.fakes import Answer, World
from tests.network_policies import policy
from tests.unit.helpers import made

POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
PODS = "/api/v1/namespaces/kube-system/pods"
DAEMON_SET = "/apis/apps/v1/namespaces/kube-system/daemonsets/network-policy"


def first_rules(cluster: Cluster, node: str) -> str:
    """What a node sets before anything runs in it."""
    return cluster.node(node).pull("/etc/sykube/closed.nft").read_text()


def test_a_cluster_begins_open_and_every_later_boot_of_a_node_closed(world: World) -> None:
    cluster = made(world)
    assert {first_rules(cluster, each) for each in ("master", "node1")} == {""}
    scaling.add(world.host, "fake", 1, world.ui())
    assert first_rules(cluster, "node2") == closed()
    assert first_rules(cluster, "master") == ""
    power.stop(world.host, "fake", StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert first_rules(cluster, "master") == closed()
    addons.disable(world.host, "fake", "network-policy", world.ui())
    power.stop(world.host, "fake", StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert first_rules(cluster, "master") == ""


def test_a_cluster_that_was_stopped_without_any_policy_starts_open_once(world: World) -> None:
    cluster = made(world)
    world.node_programs.first = says_without_policies
    power.stop(world.host, "fake", StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert {first_rules(cluster, each) for each in ("master", "node1")} == {""}
    # Since then, somebody may have made one.
    cluster.node("node1").kill()
    power.start(world.host, "fake", world.ui())
    assert first_rules(cluster, "node1") == closed()


def test_several_control_planes_start_closed_whatever_one_of_them_says(world: World) -> None:
    cluster = made(world, control_planes=3)
    world.node_programs.first = says_without_policies
    power.stop(world.host, "fake", StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert first_rules(cluster, "master") == closed()


def says_without_policies(_: str, words: list[str], __: str | None) -> Answer | None:
    ends = words[:3] == ["sh", "stop-containers", "rest"]
    return (0, "without policies\n", "") if ends else None


def test_closed_is_what_the_program_begins_with(world: World) -> None:
    lines = closed().splitlines()
    assert 'iifname "cni0" goto leaving' in map(str.strip, lines)
    assert not any(line.startswith("add element") for line in lines)


def test_when_it_is_disabled_no_node_keeps_its_rules_and_what_is_lost_is_said(world: World) -> None:
    made(world)
    for name in ("b", "a"):
        deny = policy("x", name, {}, ingress=[])
        world.kubernetes["fake"].objects[f"{POLICIES}/{name}"] = deny
    ui = world.ui()
    addons.disable(world.host, "fake", "network-policy", ui)
    assert ui.warnings == ["accepted and no longer enforced: NetworkPolicy x/a, x/b"]
    assert [instance.nft for instance in world.instances.values()] == [[nft.nothing()]] * 2
    assert DAEMON_SET not in world.kubernetes["fake"].objects


def test_rules_are_removed_when_nobody_is_left_who_would_set_them_again(world: World) -> None:
    made(world)
    shown = [[ended("fake-node1", "")], []]
    world.kubernetes["fake"].shown = lambda _: shown.pop(0)
    addons.disable(world.host, "fake", "network-policy", world.ui())
    assert shown == []
    calls = [call.words for call in world.calls.all]
    looked = max(n for n, words in enumerate(calls) if words == ("GET", PODS))
    assert looked < min(n for n, words in enumerate(calls) if words[-3:] == ("nft", "-f", "-"))


def test_without_policies_nothing_is_lost(world: World) -> None:
    made(world)
    ui = world.ui()
    addons.disable(world.host, "fake", "network-policy", ui)
    assert ui.warnings == []


def test_a_node_image_without_nft_has_none_of_it(world: World) -> None:
    cluster = made(world)
    addons.disable(world.host, "fake", "network-policy", world.ui())
    cluster = lookup.load(world.host, "fake", world.ui())
    del cluster.state.versions["nftables"]
    cluster.save()
    with pytest.raises(UsageError, match="needs nftables, which this cluster's node image lacks"):
        addons.enable(world.host, "fake", "network-policy", world.ui())


def ended(node: str, message: str, code: int = 1) -> dict[str, Any]:
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"exitCode": code, "message": message}}
    return {
        "metadata": {"name": f"network-policy-{node}", "labels": {"k8s-app": "network-policy"}},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": [{"state": state, "lastState": last}]},
    }


def without_nftables(world: World, node: str) -> None:
    """The program on a node of the cluster fake ends since its kernel has no nftables."""
    kubernetes = world.kubernetes["fake"]
    kubernetes.broken.add("network-policy")
    of_it = {"k8s-app": "network-policy"}
    kubernetes.shown = lambda pods: [
        *(pod for pod in pods if pod["metadata"]["labels"] != of_it),
        ended(node, "no nftables: not supported", nft.UNSUPPORTED),
    ]
    world.instances[node].has_nftables = False


def test_a_kernel_without_nftables_keeps_no_cluster_from_coming_up_and_is_said(
    world: World,
) -> None:
    cluster = made(world)
    without_nftables(world, "fake-node1")
    power.stop(world.host, "fake", StopOptions(), world.ui())
    ui = world.ui()
    power.start(world.host, "fake", ui)
    assert ui.warnings == [
        "NetworkPolicies are not enforced on fake-node1: `sykube doctor --name fake` says why"
    ]
    found = status.collect(cluster)
    assert found.exit_code is ExitCode.DEGRADED
    assert found.policies == (
        "not enforced on every node: kube-system/network-policy: 0 of 2 pods are available; "
        "fake-node1: no nftables: not supported"
    )


@pytest.mark.parametrize(
    ("code", "seconds", "settled"),
    # 255: it ended with its node.
    [(nft.UNSUPPORTED, 1, False), (nft.UNSUPPORTED, 60, True), (255, 1, True)],
)
def test_a_program_that_was_just_started_again_may_end_again(
    world: World, code: int, seconds: int, settled: bool
) -> None:
    cluster = made(world)
    pod = ended("fake-node1", "no nftables: not supported", code)
    started = datetime.fromtimestamp(time.time() - seconds, UTC).isoformat()
    pod["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": started}}
    world.kubernetes["fake"].shown = lambda pods: [*pods, pod]
    with cluster.api() as api:
        problem = NETWORK_POLICY.problem(addon_context(cluster, api))
    assert problem == ("" if settled else "fake-node1: no nftables: not supported")


def test_a_program_that_ends_for_another_reason_is_waited_for(world: World) -> None:
    made(world)
    kubernetes = world.kubernetes["fake"]
    kubernetes.shown = lambda pods: [*pods, ended("fake-node1", "the rules were refused")]
    power.stop(world.host, "fake", StopOptions(), world.ui())
    with pytest.raises(SykubeError, match="pods Ready") as raised:
        power.start(world.host, "fake", world.ui())
    assert "network-policy-fake-node1" in raised.value.details


def test_it_can_be_disabled_where_a_kernel_has_no_nftables(world: World) -> None:
    made(world)
    without_nftables(world, "fake-node1")
    world.kubernetes["fake"].shown = lambda _: []
    addons.disable(world.host, "fake", "network-policy", world.ui())
    assert world.instances["fake-node1"].nft == []
    assert world.instances["fake-master"].nft == [nft.nothing()]


def test_what_its_program_said_when_it_ended_is_why_policies_are_not_enforced(
    world: World,
) -> None:
    cluster = made(world)
    kubernetes = world.kubernetes["fake"]
    kubernetes.broken.add("network-policy")
    kubernetes.shown = lambda _: [ended("fake-node1", "listed\nno nftables: not supported\n")]
    with cluster.api() as api:
        assert NETWORK_POLICY.problem(addon_context(cluster, api)) == (
            "kube-system/network-policy: 0 of 2 pods are available; "
            "fake-node1: no nftables: not supported"
        )
        assert enforcement(cluster, api).problem


def test_what_a_kubelet_says_of_a_container_that_it_did_not_find_is_nothing_of_its_program(
    world: World,
) -> None:
    cluster = made(world)
    pod = ended("fake-node1", "The container could not be located when the pod was deleted.", 137)
    pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] = (
        "ContainerStatusUnknown"
    )
    world.kubernetes["fake"].shown = lambda pods: [*pods, pod]
    with cluster.api() as api:
        assert NETWORK_POLICY.problem(addon_context(cluster, api)) == ""


def test_names_of_ports_are_looked_for_among_all_pods(world: World) -> None:
    cluster = made(world)
    named = policy("x", "named", {}, ingress=[{"ports": [{"port": "web"}, {"port": "db"}]}])
    world.kubernetes["fake"].objects[f"{POLICIES}/named"] = named
    ports = [{"name": "web", "containerPort": 80}]
    world.kubernetes["fake"].pods_of_user = [
        {"metadata": {"namespace": "x", "name": "p"}, "spec": {"containers": [{"ports": ports}]}}
    ]
    with cluster.api() as api:
        found = enforcement(cluster, api)
    assert found.parts == ("x/named: no pod has a port named 'db'",)
    assert found.said.startswith("1 enforced, but let nothing through here: x/named")
