"""Stop, start, pause and unpause of clusters in a fake world, and what a reboot takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands import power, removal
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model.state import State, locked
from sykube.errors import ExitCode, HostError, SykubeError
from sykube.host.paths import ClusterPaths
from sykube.host.run import CommandError
from tests.fakes import Call, Injected, World
from tests.fakes.cgroups import CgroupPath
from tests.unit.helpers import Sykube, fake_spec, init, made, unchanged


def stop(world: World, **options: object) -> bool:
    return power.stop(world.host, "fake", StopOptions(**options), world.ui())  # type: ignore[arg-type]


def start(world: World) -> bool:
    return power.start(world.host, "fake", world.ui())


def calls_in_nodes(world: World, *words: str) -> list[str]:
    """The nodes in which a command was run, in order."""
    return [
        call.words[1]
        for call in world.calls.all
        if call.words[0] == "exec" and call.words[2 : 2 + len(words)] == words
    ]


def addresses(world: World) -> dict[str, str]:
    return {name: instance.options.address for name, instance in world.instances.items()}


def left_on_the_host(world: World) -> list[str]:
    """What is there of a cluster beside its files."""
    found = [f"link {name}" for name in world.kernel.links if name != "eth0"]
    found += [
        f"rule {rule}"
        for chains in world.kernel.tables.values()
        for rules in chains.values()
        for rule in rules
        if "docker0" not in rule
    ]
    found += [f"cgroup {path}" for path in Path(world.cgroup_root).rglob("*sykube*")]
    found += [f"result {path}" for path in world.path("/var/lib/cni/results").glob("*")]
    found += [f"instance {name}" for name in world.instances]
    return found


# --- stop ---


def test_stop_ends_all_pods_before_a_control_plane_and_each_node_in_order(world: World) -> None:
    cluster = made(world, workers=2, control_planes=3)
    started = len(world.calls.all)
    assert stop(world, grace=3) is True
    asked = [call.words for call in world.calls.all[started:]]
    pods, rest = (
        [i for i, each in enumerate(asked) if each[-3:] == ("stop-containers", which, "3")]
        for which in ("pods", "rest")
    )
    assert len(pods) == len(rest) == len(cluster.nodes)
    assert max(pods) < min(rest)
    for node in cluster.nodes:
        of_node = [
            each[-2] if "stop-containers" in each else f"{each[0]} {each[-1]}"
            for each in asked
            if each[1:2] == (node.instance,)
        ]
        assert of_node == [
            "stopProcess kubelet", "pods", "rest", "stopProcess containerd",
            f"kill {node.instance}",
        ]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
def test_stop_leaves_nothing_but_files(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    world = World(fast_path / "host", cgroup_version=version)
    world.install(monkeypatch)
    cluster = made(world, workers=2)
    assert left_on_the_host(world) != []
    stop(world)
    assert left_on_the_host(world) == []
    assert all(node.exists() for node in cluster.nodes)
    assert cluster.paths.kubeconfig.exists()


def test_stop_of_a_stopped_cluster_changes_nothing(world: World) -> None:
    made(world)
    stop(world)
    with unchanged(world):
        assert stop(world) is False


def test_stop_leaves_other_clusters_alone(world: World) -> None:
    made(world)
    init(world, fake_spec("other"))
    stop(world)
    assert sorted(world.instances) == ["other-master", "other-node1"]
    assert "sk-other" in world.kernel.links


def test_a_stopped_cluster_can_be_deleted(world: World) -> None:
    with unchanged(world):
        made(world)
        stop(world)
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_a_node_whose_orderly_end_hangs_is_ended_all_the_same(world: World) -> None:
    made(world)

    def hangs(call: Call) -> CommandError:
        return CommandError("sh did not end within 100 s", call.words, "")

    world.calls.fail(lambda call: "stop-containers" in call.words, hangs, times=None)
    assert stop(world) is True
    assert left_on_the_host(world) == []


@pytest.mark.parametrize("name", ["fake-node1", "fake-master"])
def test_stop_clears_up_after_a_node_that_had_died(world: World, name: str) -> None:
    made(world)
    world.end(name)
    assert stop(world) is True
    assert left_on_the_host(world) == []


def test_a_second_stop_goes_on_where_the_first_failed(world: World) -> None:
    made(world, workers=2)
    world.calls.fail(lambda call: call.words == ("kill", "fake-node2"))
    with pytest.raises(Injected):
        stop(world)
    assert "fake-node2" in world.instances
    assert stop(world) is True
    assert left_on_the_host(world) == []


# --- stop --drain ---


def test_drain_empties_each_worker_before_anything_ends(world: World) -> None:
    made(world, workers=2)
    stop(world, drain=True, drain_timeout=7)
    drained = [call for call in world.calls.all if "drain" in call.words]
    assert [call.words[2] for call in drained] == ["fake-node1", "fake-node2"]
    assert all(call.words[-1] == "--timeout=7s" for call in drained)
    ended = next(call for call in world.calls.all if call.words[0] == "kill")
    assert world.calls.all.index(drained[-1]) < world.calls.all.index(ended)


def test_workers_that_were_drained_take_pods_again_after_start(world: World) -> None:
    cluster = made(world, workers=2)
    stop(world, drain=True)
    nodes = world.kubernetes["fake"].nodes
    assert nodes["fake-node1"]["spec"]["unschedulable"] is True
    assert "unschedulable" not in nodes["fake-master"]["spec"]
    start(world)
    assert not any("unschedulable" in node["spec"] for node in nodes.values())
    state = State.load(cluster.paths.state)
    assert state is not None
    assert state.cordoned == []


def test_a_worker_that_a_user_cordoned_stays_so(world: World) -> None:
    made(world, workers=2)
    nodes = world.kubernetes["fake"].nodes
    nodes["fake-node1"]["spec"]["unschedulable"] = True
    stop(world)
    start(world)
    assert nodes["fake-node1"]["spec"]["unschedulable"] is True


def test_a_drain_that_fails_ends_nothing_and_start_takes_it_back(world: World) -> None:
    made(world, workers=2)
    world.calls.fail(lambda call: call.words[1:3] == ("drain", "fake-node2"))
    with pytest.raises(Injected):
        stop(world, drain=True)
    assert len(world.instances) == 3
    assert start(world) is False
    assert not any(
        "unschedulable" in node["spec"] for node in world.kubernetes["fake"].nodes.values()
    )


# --- start ---


@pytest.mark.parametrize("control_planes", [1, 3])
def test_start_brings_back_the_same_addresses_and_names(world: World, control_planes: int) -> None:
    made(world, workers=2, control_planes=control_planes)
    before, nodes = addresses(world), set(world.kubernetes["fake"].nodes)
    files = {name: dict(instance.files) for name, instance in world.instances.items()}
    links = {name: found for name, found in world.kernel.links.items() if name[:4] != "veth"}
    stop(world)
    assert start(world) is True
    assert addresses(world) == before
    assert set(world.kubernetes["fake"].nodes) == nodes
    assert {name: instance.files for name, instance in world.instances.items()} == files
    assert {k: v for k, v in world.kernel.links.items() if k[:4] != "veth"} == links
    # Neither made nor joined anew.
    assert calls_in_nodes(world, "kubeadm") == []


@pytest.mark.parametrize("control_planes", [1, 3])
def test_the_only_control_plane_waits_for_no_lease(world: World, control_planes: int) -> None:
    made(world, control_planes=control_planes)
    stop(world)
    leases = [
        f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{program}"
        for program in ("kube-controller-manager", "kube-scheduler")
    ]
    objects = world.kubernetes["fake"].objects
    objects.update({each: {"spec": {"holderIdentity": "its former self"}} for each in leases})
    start(world)
    there = [lease in objects for lease in leases]
    # Where there are others, one of them may hold it.
    assert there == [control_planes == 3] * 2


def test_start_of_a_cluster_that_is_up_changes_nothing(world: World) -> None:
    made(world)
    pids = {name: instance.pid for name, instance in world.instances.items()}
    with unchanged(world):
        assert start(world) is False
    assert {name: instance.pid for name, instance in world.instances.items()} == pids


def test_start_brings_back_the_one_node_that_is_gone(world: World) -> None:
    made(world, workers=2)
    before = {name: instance.pid for name, instance in world.instances.items()}
    world.end("fake-node1")
    assert start(world) is True
    after = {name: instance.pid for name, instance in world.instances.items()}
    assert {name for name in after if after[name] != before[name]} == {"fake-node1"}


@pytest.mark.parametrize("version", [1, 2])
def test_start_after_a_reboot_brings_all_of_it_back(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    world = World(fast_path / "host", cgroup_version=version)
    world.install(monkeypatch)
    with unchanged(world):
        made(world, workers=2)
        before = addresses(world)
        world.reboot()
        assert world.kernel.sysctl("net/ipv4/ip_forward") == "0"
        assert start(world) is True
        assert addresses(world) == before
        assert world.kernel.sysctl("net/ipv4/ip_forward") == "1"
        assert world.kernel.sysctl("fs/inotify/max_user_instances") == "1024"
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_a_cluster_can_be_deleted_after_a_reboot(world: World) -> None:
    with unchanged(world):
        made(world)
        world.reboot()
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_an_ephemeral_cluster_is_gone_after_a_reboot_and_delete_clears_the_rest(
    world: World,
) -> None:
    with unchanged(world):
        made(world, ephemeral=True)
        world.reboot()
        with pytest.raises(SykubeError) as raised:
            start(world)
        assert raised.value.exit_code is ExitCode.NO_SUCH_CLUSTER
        context = world.root / "home/.kube/config"
        removal.delete(world.host, "fake", world.ui())
        # Which context was current before is in the record alone.
        text = context.read_text().replace("current-context: ''", "current-context: work")
        context.write_text(text)


def test_a_cluster_whose_files_are_gone_is_not_started(world: World) -> None:
    cluster = made(world)
    stop(world)
    (cluster.nodes[1].pull("/").parent / ".disk").unlink()
    cluster.nodes[1].pull("/").parent.rmdir()
    with unchanged(world), pytest.raises(SykubeError, match="the files of node1 are gone"):
        start(world)


def test_start_puts_nodes_back_on_a_bridge_that_was_removed(world: World) -> None:
    made(world, workers=2)
    pids = {name: instance.pid for name, instance in world.instances.items()}
    world.programs.run(["ip", "link", "delete", "dev", "sk-fake"])
    start(world)
    assert {name: instance.pid for name, instance in world.instances.items()} == pids
    assert world.kernel.links["sk-fake"] == ["10.11.11.1/24"]
    for instance in world.instances.values():
        port = world.path("/sys/class/net", instance.link, "master")
        assert port.readlink().name == "sk-fake"
        hairpin = ["ip", "link", "set", "dev", instance.link, "type", "bridge_slave"]
        assert [*hairpin, "hairpin", "on"] in world.programs.argvs


def test_start_renews_a_node_whose_link_is_gone(world: World) -> None:
    made(world)
    pids = {name: instance.pid for name, instance in world.instances.items()}
    files = dict(world.instances["fake-node1"].files)
    world.kernel.remove_link(world.instances["fake-node1"].link)
    assert start(world) is True
    assert world.instances["fake-master"].pid == pids["fake-master"]
    assert world.instances["fake-node1"].pid != pids["fake-node1"]
    assert world.instances["fake-node1"].files == files


def test_start_lays_flushed_rules_anew(world: World) -> None:
    made(world)
    before = world.kernel.snapshot()["tables"]
    for chains in world.kernel.tables.values():
        for name in [name for name in chains if "SYKUBE" in name]:
            del chains[name]
        for rules in chains.values():
            rules[:] = [rule for rule in rules if "SYKUBE" not in rule[-1]]
    start(world)
    assert world.kernel.snapshot()["tables"] == before


def test_start_refuses_a_subnet_that_another_network_has_taken_meanwhile(world: World) -> None:
    made(world)
    stop(world)
    world.kernel.routes.append({"dst": "10.11.0.0/16", "dev": "eth0"})
    with unchanged(world), pytest.raises(HostError, match=r"10\.11\.11\.0/24"):
        start(world)


def test_start_goes_on_where_it_failed(world: World) -> None:
    made(world, workers=2)
    before = addresses(world)
    stop(world)
    world.calls.fail(lambda call: call.words == ("start", "fake-node2"))
    with pytest.raises(Injected):
        start(world)
    assert start(world) is True
    assert addresses(world) == before


def nobody_lives(world: World) -> None:
    world.silent.add("fake-node1")


def api_is_down(world: World) -> None:
    world.silent.add("fake-master")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (nobody_lives, "no sign of life of fake-node1"),
        (api_is_down, "Connection refused"),
    ],
)
def test_start_trusts_nothing_that_was_said_before_the_stop(
    world: World, damage: Callable[[World], None], words: str
) -> None:
    made(world)
    stop(world)
    damage(world)
    with pytest.raises(SykubeError, match="not there after") as raised:
        start(world)
    assert words in raised.value.details


WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def test_start_names_the_webhook_that_keeps_the_cluster_down(world: World) -> None:
    made(world)
    stop(world)
    nobody_lives(world)
    kubernetes = world.kubernetes["fake"]
    kubernetes.webhook = "all.policy.example"
    hooks = [{"name": "other.policy.example"}, {"name": kubernetes.webhook}]
    kubernetes.objects[f"{WEBHOOKS}/policy"] = {"metadata": {"name": "policy"}, "webhooks": hooks}
    with pytest.raises(SykubeError, match="not there after") as raised:
        start(world)
    first, second = raised.value.details.splitlines()
    assert first == "no sign of life of fake-node1"
    assert second.startswith(
        "the webhook all.policy.example of the validatingwebhookconfiguration policy refuses"
    )
    command = "sykube kubectl --name fake delete validatingwebhookconfiguration policy"
    assert raised.value.resolution.startswith(command)


def test_webhooks_that_answer_are_not_named(world: World) -> None:
    made(world)
    stop(world)
    nobody_lives(world)
    hook = {"metadata": {"name": "policy"}, "webhooks": [{"name": "all.policy.example"}]}
    kubernetes = world.kubernetes["fake"]
    kubernetes.objects[f"{WEBHOOKS}/policy"] = hook
    before = repr(kubernetes.objects)
    with pytest.raises(SykubeError, match="not there after") as raised:
        start(world)
    assert raised.value.details == "no sign of life of fake-node1"
    assert "webhook" not in raised.value.resolution
    # What was tried has changed nothing.
    assert repr(kubernetes.objects) == before


def test_start_waits_for_pods_that_still_show_the_containers_of_before(world: World) -> None:
    made(world)
    stop(world)
    world.kubernetes["fake"].stale = {"fake-node1"}
    with pytest.raises(SykubeError, match="pods: not there after") as raised:
        start(world)
    names = "kube-proxy-fake-node1, network-policy-fake-node1"
    assert raised.value.details == f"pods of before: {names}"


# --- pause and unpause ---


@pytest.mark.parametrize("version", [1, 2])
def test_pause_freezes_workers_first_and_unpause_thaws_control_planes_first(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    world = World(fast_path / "host", cgroup_version=version)
    world.install(monkeypatch)
    made(world, workers=2)
    order: list[tuple[str, bool]] = []

    class Noted(CgroupPath):
        def write_text(self, data: str, *rest: Any, **more: Any) -> int:
            if self.name in ("freezer.state", "cgroup.freeze"):
                order.append((self.parent.name, data in ("FROZEN", "1")))
            return super().write_text(data, *rest, **more)

    host = replace(world.host, cgroup_files=Noted)
    power.pause(host, "fake", world.ui())
    assert all(world.frozen(name) for name in world.instances)
    power.unpause(host, "fake", world.ui())
    assert not any(world.frozen(name) for name in world.instances)
    assert order == [
        ("fake-node2", True),
        ("fake-node1", True),
        ("fake-master", True),
        ("fake-master", False),
        ("fake-node1", False),
        ("fake-node2", False),
    ]


def test_pausing_twice_is_pausing_once(world: World) -> None:
    made(world)
    power.pause(world.host, "fake", world.ui())
    with unchanged(world):
        power.pause(world.host, "fake", world.ui())


def test_unpause_of_a_cluster_that_is_not_paused_is_an_error(world: World) -> None:
    made(world)
    with unchanged(world), pytest.raises(SykubeError, match="is not paused") as raised:
        power.unpause(world.host, "fake", world.ui())
    assert raised.value.exit_code is ExitCode.FAILED


def test_pause_of_a_cluster_that_does_not_run_freezes_nothing(world: World) -> None:
    made(world)
    world.end("fake-node1")
    with unchanged(world), pytest.raises(SykubeError, match="do not run: node1") as raised:
        power.pause(world.host, "fake", world.ui())
    assert raised.value.exit_code is ExitCode.DEGRADED
    assert not world.frozen("fake-master")


def test_a_cluster_that_init_did_not_finish_is_unpaused(world: World) -> None:
    cluster = made(world)
    power.pause(world.host, "fake", world.ui())
    del cluster.state.steps["ready"]
    cluster.save()
    power.unpause(world.host, "fake", world.ui())
    assert not any(node.is_frozen() for node in cluster.nodes)


def test_unpause_waits_for_each_node_to_live(world: World) -> None:
    made(world)
    power.pause(world.host, "fake", world.ui())
    world.silent.add("fake-node1")
    with pytest.raises(SykubeError, match="nodes: not there") as raised:
        power.unpause(world.host, "fake", world.ui())
    assert raised.value.details == "no sign of life of fake-node1"


def test_start_goes_on_with_a_paused_cluster(world: World) -> None:
    made(world)
    power.pause(world.host, "fake", world.ui())
    assert start(world) is False
    assert not any(world.frozen(name) for name in world.instances)


@pytest.mark.parametrize("version", [1, 2])
def test_a_paused_cluster_can_be_stopped(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    world = World(fast_path / "host", cgroup_version=version)
    world.install(monkeypatch)
    made(world)
    power.pause(world.host, "fake", world.ui())
    assert stop(world) is True
    assert left_on_the_host(world) == []


@pytest.mark.parametrize("version", [1, 2])
def test_a_paused_cluster_can_be_deleted(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    world = World(fast_path / "host", cgroup_version=version)
    world.install(monkeypatch)
    with unchanged(world):
        made(world)
        power.pause(world.host, "fake", world.ui())
        assert removal.delete(world.host, "fake", world.ui()) == []


# --- what is refused ---

COMMANDS: dict[str, Callable[[World], object]] = {
    "stop": stop,
    "start": start,
    "pause": lambda world: power.pause(world.host, "fake", world.ui()),
    "unpause": lambda world: power.unpause(world.host, "fake", world.ui()),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_that_is_not_there(world: World, command: str) -> None:
    with unchanged(world), pytest.raises(SykubeError, match="no cluster 'fake'") as raised:
        COMMANDS[command](world)
    assert raised.value.exit_code is ExitCode.NO_SUCH_CLUSTER


@pytest.mark.parametrize("command", ["stop", "start"])
def test_a_cluster_that_init_did_not_finish_is_refused_with_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:ready")
    with pytest.raises(SykubeError):
        init(world, retain=True)
    with unchanged(world), pytest.raises(SykubeError, match="never finished") as raised:
        COMMANDS[command](world)
    assert raised.value.exit_code is ExitCode.DEGRADED
    assert "sykube init --name fake" in raised.value.resolution
    assert "sykube delete --name fake" in raised.value.resolution


@pytest.mark.parametrize("command", COMMANDS)
def test_while_another_command_works_on_it_nothing_is_done(world: World, command: str) -> None:
    made(world)
    with locked(ClusterPaths(world.host, "fake")):
        before = world.snapshot()
        with pytest.raises(SykubeError) as raised:
            COMMANDS[command](world)
        assert world.snapshot() == before
    assert raised.value.exit_code is ExitCode.LOCKED
    assert world.calls.all == []


# --- a full disk ---


def test_start_on_a_full_disk_says_so_and_changes_nothing(world: World) -> None:
    made(world)
    stop(world)
    world.total, world.free = 10_000_000_000, 0.009
    with unchanged(world), pytest.raises(SykubeError, match="the disk is too small") as raised:
        start(world)
    assert raised.value.details == "90 MB are free"
    world.free = 0.011
    assert start(world) is True


def test_restart_stops_nothing_that_could_not_start_again(world: World, sykube: Sykube) -> None:
    made(world)
    world.free = 0.0
    with unchanged(world):
        result = sykube("restart", "--name", "fake")
    assert result.code == ExitCode.FAILED
    assert "the disk is too small" in result.err
    assert len(world.instances) == 2


# --- nodes that a killed command left half-way ---


def services_asked(world: World, since: int) -> list[tuple[str, ...]]:
    return [call.words for call in world.calls.all[since:] if call.kind == "service"]


def test_start_goes_on_where_a_stop_was_killed(world: World) -> None:
    made(world)
    world.services |= {"containerd": "STOPPED", "kubelet": "STOPPED"}
    asked = len(world.calls.all)
    start(world)
    found = services_asked(world, asked)
    # Without its kubelet, the API server of a master that runs would never come.
    for name in ("fake-master", "fake-node1"):
        of_node = [each for each in found if each[1] == name]
        assert of_node[:2] == [
            ("startProcess", name, "containerd"),
            ("startProcess", name, "kubelet"),
        ]


def test_start_waits_for_the_end_of_what_a_killed_stop_was_stopping(world: World) -> None:
    made(world)
    world.services["kubelet"] = "STOPPING"
    asked = len(world.calls.all)
    start(world)
    found = services_asked(world, asked)
    assert [each for each in found if each[1] == "fake-master"][:2] == [
        ("stopProcess", "fake-master", "kubelet"),
        ("startProcess", "fake-master", "kubelet"),
    ]


def test_start_does_not_take_the_word_of_a_kubelet_that_was_stopped(world: World) -> None:
    made(world)
    world.services["kubelet"] = "STOPPED"
    nobody_lives(world)
    with pytest.raises(SykubeError, match="not there after") as raised:
        start(world)
    assert "no sign of life of fake-node1" in raised.value.details


def test_only_workers_wait_for_the_api_server_and_from_the_moment_they_have_booted(
    world: World,
) -> None:
    made(world)
    stop(world)
    asked = len(world.calls.all)
    start(world)
    words = [call.words for call in world.calls.all[asked:]]
    held = words.index(("stopProcess", "fake-node1", "kubelet"))
    checked = next(i for i, each in enumerate(words) if "check-node" in each)
    assert held < checked
    assert ("startProcess", "fake-node1", "kubelet") in words[checked:]
    # Once: to look for the API server, now that it is there.
    assert words.count(("stopProcess", "fake-master", "kubelet")) == 1
