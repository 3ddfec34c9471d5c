"""The pod network: sykube's bridge, none, or a manifest of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands import addons, checkup, lifecycle, power, scaling, status, steps
from sykube.cluster.model import lookup, pod_network
from sykube.cluster.model.pod_network import INSTALL, NO_PLUGIN, check_pod_subnets, from_setting
from sykube.cluster.model.state import State
from sykube.cluster.operations.policies import Enforcement, enforcement
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.finding import Level
from tests.fakes import World
from tests.fakes.node_programs import KUBELET_START
from tests.fakes.nodes import make_node
from tests.unit.helpers import fake_spec, init, made, unchanged

CNI = """\
apiVersion: v1
kind: Namespace
metadata:
  name: cni
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: cni
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "cni.yaml"
    file.write_text(CNI, encoding="utf-8")
    return file


def node_files(world: World, node: str) -> dict[str, str]:
    config = lookup.load(world.host, "fake", world.ui()).node(node).pull("/etc/sykube")
    return {name: (config / name).read_text() for name in ("routes", "pod-network.conflist")}


def conditions(world: World) -> list[str]:
    nodes = world.kubernetes["fake"].nodes.values()
    return [node["status"]["conditions"][0]["status"] for node in nodes]


# --- None ---


def test_without_a_pod_network_init_waits_for_no_plugin_and_says_so(world: World) -> None:
    ui = world.ui()
    assert init(world, fake_spec(pod_network="none"), ui) is not None
    assert conditions(world) == ["False", "False"]
    assert ui.warnings == [f"{NO_PLUGIN}. {INSTALL}"]
    assert not world.applied
    for name in ("master", "node1"):
        assert node_files(world, name) == {"routes": "", "pod-network.conflist": ""}
    # A plugin finds the subnet of a node's pods where it looks for it.
    subnets = {node["spec"]["podCIDR"] for node in world.kubernetes["fake"].nodes.values()}
    assert subnets == {"10.244.0.0/24", "10.244.1.0/24"}


def test_it_waits_for_pods_that_need_no_pod_network(world: World) -> None:
    # kubeadm init makes the fake's Kubernetes.
    def joining(_name: str, argv: list[str], _stdin: str | None) -> None:
        if tuple(argv[:4]) == KUBELET_START:
            world.kubernetes["fake"].broken = {"kube-proxy"}

    world.node_programs.first = joining
    with pytest.raises(SykubeError, match="pods Ready"):
        init(world, fake_spec(pod_network="none"))


def test_status_and_doctor_say_what_is_missing_and_where_it_is_told(world: World) -> None:
    cluster = made(world, pod_network="none")
    found = status.collect(cluster)
    assert found.exit_code is ExitCode.DEGRADED
    assert found.network == f"{NO_PLUGIN}. {INSTALL}"
    assert found.pods == ""
    failures = {
        each.what: each
        for each in checkup.run_checks(cluster).findings
        if each.level is Level.FAILURE
    }
    missing = failures["pod network"]
    assert missing.cure == INSTALL
    assert "NotReady" not in "".join(each.detail for each in failures.values() if each != missing)
    assert not [what for what in failures if what.startswith("pods")]
    assert "first" in failures["cluster DNS"].cure
    world.kubernetes["fake"].install_plugin()
    assert status.collect(cluster).exit_code is ExitCode.OK
    assert "pod network" not in {each.what for each in checkup.run_checks(cluster).findings}


def test_a_cluster_without_a_plugin_stops_starts_and_takes_nodes(world: World) -> None:
    made(world, pod_network="none")
    power.stop(world.host, "fake", power.StopOptions(), world.ui())
    ui = world.ui()
    assert power.start(world.host, "fake", ui)
    assert ui.warnings[-1] == f"{NO_PLUGIN}. {INSTALL}"
    assert scaling.add(world.host, "fake", 1, world.ui()) == ["node2"]
    assert conditions(world) == ["False"] * 3


def test_with_a_plugin_nodes_that_join_are_waited_for(world: World) -> None:
    made(world, pod_network="none")
    server = world.kubernetes["fake"]
    server.install_plugin()
    ui = world.ui()
    scaling.add(world.host, "fake", 1, ui)
    assert not ui.warnings
    assert set(conditions(world)) == {"True"}
    # The plugin does not reach the next one.
    server.plugin = False
    with pytest.raises(SykubeError, match="nodes Ready") as raised:
        scaling.add(world.host, "fake", 1, world.ui())
    assert raised.value.details.startswith("fake-node3: container runtime network not ready")


def test_an_addon_is_refused_where_its_pods_could_not_start(world: World) -> None:
    made(world, pod_network="none")
    with (
        unchanged(world),
        pytest.raises(SykubeError, match="metrics needs a pod network") as raised,
    ):
        addons.enable(world.host, "fake", "metrics", world.ui())
    assert raised.value.resolution == INSTALL


def test_an_addon_of_init_is_not_waited_for(world: World) -> None:
    asked: list[tuple[str, int]] = []

    def ask(address: tuple[str, int]) -> str:
        asked.append(address)
        return ""

    world.network.refused = ask
    init(world, fake_spec(pod_network="none", addons=("registry",)))
    assert not asked
    world.kubernetes["fake"].install_plugin()
    power.stop(world.host, "fake", power.StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert asked == [("127.0.0.1", 5000)]


def test_a_resumed_init_leaves_nodes_that_have_joined(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:join")
    with pytest.raises(SykubeError):
        init(world, fake_spec(pod_network="none"), retain=True)
    monkeypatch.delenv("SYKUBE_FAIL_AT")
    before = {name: instance.pid for name, instance in world.instances.items()}
    assert init(world, fake_spec(pod_network="none")) is not None
    assert {name: instance.pid for name, instance in world.instances.items()} == before


# --- A manifest ---


def test_a_manifest_is_applied_and_its_nodes_are_waited_for(world: World, manifest: Path) -> None:
    ui = world.ui()
    cluster = init(world, fake_spec(pod_network=str(manifest)), ui)
    assert cluster is not None
    assert world.applied == [CNI]
    assert "Installing the pod network (kubectl apply)" in ui.steps
    assert set(conditions(world)) == {"True"}
    assert not ui.warnings
    # Nothing depends on the file from here on.
    manifest.unlink()
    assert cluster.paths.pod_network.read_text() == CNI
    assert cluster.paths.pod_network.stat().st_mode & 0o777 == 0o600
    power.stop(world.host, "fake", power.StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert init(world, fake_spec(pod_network=str(manifest))) is None


def test_kinds_of_its_own_are_served_a_moment_later(world: World, manifest: Path) -> None:
    world.apply_problems = ['error: no matches for kind "Installation" in version "operator/v1"']
    init(world, fake_spec(pod_network=str(manifest)))
    assert world.applied == [CNI, CNI]


def test_what_kubectl_refuses_is_said(world: World, manifest: Path) -> None:
    world.apply_problems = ["error: unknown field spec.nodes"]
    with (
        unchanged(world),
        pytest.raises(SykubeError, match=r"cni\.yaml cannot be applied") as raised,
    ):
        init(world, fake_spec(pod_network=str(manifest)))
    assert "unknown field spec.nodes" in raised.value.details
    assert world.applied == [CNI]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file"),
        ("a: [", "is not valid YAML"),
        ("\0", "is not valid YAML"),
        ("", "is not a manifest"),
        ("workers: 2\n", "is not a manifest"),
        (f"{CNI}---\n- a list\n", "is not a manifest"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_before_anything_is_made(
    world: World, tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "wrong.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    spec = fake_spec(pod_network=str(file))
    with unchanged(world), pytest.raises(UsageError, match=words):
        init(world, spec)
    with pytest.raises(UsageError, match=words):
        lifecycle.dry_run(world.host, spec, world.ui())


@pytest.mark.parametrize("corrected", [True, False], ids=["corrected", "gone"])
def test_a_resumed_init_takes_the_file_as_it_is_now_if_it_is_there(
    world: World, manifest: Path, corrected: bool
) -> None:
    world.apply_problems = ["error: unknown field"]
    spec = fake_spec(pod_network=str(manifest))
    with pytest.raises(SykubeError):
        init(world, spec, retain=True)
    if corrected:
        manifest.write_text(f"# corrected\n{CNI}", encoding="utf-8")
    else:
        manifest.unlink()
    assert init(world, spec) is not None
    assert world.applied[1:] == [f"# corrected\n{CNI}" if corrected else CNI]


def test_the_steps_of_each_kind(manifest: Path) -> None:
    step = "Installing the pod network (kubectl apply)"

    def titles(**fields: Any) -> list[str]:
        return [each.title for each in steps.steps_of_init(fake_spec(**fields))]

    (dns,) = (each.title for each in steps.ALL if each.name == "dns")

    assert step not in titles()
    assert step not in titles(pod_network="none")
    with_manifest = titles(pod_network=str(manifest))
    assert with_manifest.index(step) == with_manifest.index(dns) - 1
    # The snapshot's etcd has it, as the user has changed it since.
    assert step not in titles(pod_network=str(manifest), from_snapshot="x")


# --- All kinds ---


def test_the_bridge_gives_each_node_its_configuration_and_the_routes_to_others(
    world: World,
) -> None:
    made(world)
    files = node_files(world, "node1")
    assert files["routes"] == "10.244.0.0/24 via 10.11.11.2\n"
    ranges = json.loads(files["pod-network.conflist"])["plugins"][0]["ipam"]["ranges"]
    assert ranges == [[{"subnet": "10.244.1.0/24"}]]


def test_a_record_of_before_there_was_a_choice_is_of_the_bridge(world: World) -> None:
    cluster = made(world)
    stored = json.loads(cluster.paths.state.read_text())
    assert stored["spec"].pop("podNetwork") == "bridge"
    cluster.paths.state.write_text(json.dumps(stored))
    loaded = State.load(cluster.paths.state)
    assert loaded is not None
    assert loaded.spec == cluster.state.spec


def test_only_sykubes_own_comes_with_what_enforces_policies(world: World) -> None:
    assert "network-policy" in made(world).state.addons
    other = made(world, name="other", pod_network="none")
    assert "network-policy" not in other.state.addons
    with pytest.raises(UsageError, match="is a part of sykube's own pod network") as raised:
        addons.enable(world.host, "other", "network-policy", world.ui())
    assert "--pod-network none" in raised.value.resolution
    with pytest.raises(UsageError, match="is a part of sykube's own pod network"):
        made(world, name="third", pod_network="none", addons=("network-policy",))
    with other.api() as api:
        assert enforcement(other, api) == Enforcement()


def test_it_cannot_be_changed_later(world: World) -> None:
    made(world, pod_network="none")
    with pytest.raises(SykubeError) as raised:
        init(world, fake_spec())
    assert raised.value.details == "podNetwork: 'none' → 'bridge'"


def test_pod_subnets_are_those_that_cni_hands_out() -> None:
    node = make_node(None)

    def registered(**spec: str) -> dict[str, Any]:
        return {node.instance: {"metadata": {"name": node.instance}, "spec": spec}}

    check_pod_subnets(registered(podCIDR=node.pod_subnet), [node])
    for shown in ({"podCIDR": "10.244.1.0/24"}, {}):
        with pytest.raises(SykubeError, match=r"has the pod subnet .*, not 10\.244\.0\.0/24"):
            check_pod_subnets(registered(**shown), [node])


def test_a_setting_is_one_of_the_kinds_or_a_path() -> None:
    assert isinstance(from_setting(pod_network.BRIDGE), pod_network.BridgePlugin)
    assert isinstance(from_setting(pod_network.NONE), pod_network.NoPlugin)
    assert from_setting("/cni.yaml") == pod_network.Manifest(Path("/cni.yaml"))
