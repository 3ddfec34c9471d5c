"""Clusters brought to another node image in a fake world, also where each call fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sykube import documents, stored
from sykube.cluster.commands import power, removal, scaling, snapshots, status
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.commands.update import skew
from sykube.cluster.commands.update import update as update_module
from sykube.cluster.commands.update.nodes import EvictionTimeoutError, UpdateOptions
from sykube.cluster.commands.update.update import Outcome
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.progress import Progress
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host.grants import Grants
from sykube.image.choice import Choice
from sykube.image.node_image import NodeImage
from sykube.image.versions import minor
from sykube.kubernetes import kubeadm
from sykube.node import image_files
from sykube.patches import Patch
from tests.fakes import Call, Injected, World
from tests.fakes.apiserver import KUBEADM_CONFIG
from tests.fakes.image import add_image
from tests.fakes.node_programs import KUBELET_START
from tests.fakes.nodes import make_node
from tests.unit.helpers import Sykube, differences, fake_spec, init, made, unchanged

OLD, NEW = "v1.20.2", "v1.20.3"


@pytest.fixture
def newer(world: World) -> NodeImage:
    return add_image(world.root / "cache", "f00d", version=NEW, part="other")


def update(world: World, image: NodeImage, *, dry_run: bool = False) -> Outcome:
    wish = ClusterSpec(name="fake", local_image=str(image.sif))
    return update_module.update(
        world.host, "fake", wish, UpdateOptions(), world.ui(), dry_run=dry_run
    )


def recorded(cluster: Cluster) -> State:
    state = State.load(cluster.paths.state)
    assert state is not None
    return state


def kubelets(world: World) -> dict[str, str]:
    nodes = world.kubernetes["fake"].nodes
    return {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes.items()}


def running(world: World) -> dict[str, str]:
    """The Kubernetes of the image that each node runs from."""
    return {name: instance.version for name, instance in world.instances.items()}


def assert_is(world: World, cluster: Cluster, version: str) -> None:
    """All of a cluster is of one version, works, and nothing of an update is left."""
    assert {*running(world).values()} == {*kubelets(world).values()} == {version}
    state = recorded(cluster)
    assert state.update is None
    assert state.versions["kubernetes"] == version
    assert state.cordoned == []
    assert world.kubernetes["fake"].version() == version
    assert all("unschedulable" not in n["spec"] for n in world.kubernetes["fake"].nodes.values())
    left = [*cluster.paths.root.glob("*update*")]
    left += [
        file
        for node in cluster.nodes
        for file in (node.previous_containerd().parent, node.pull("/etc/sykube/update"))
        if file.exists()
    ]
    assert left == []
    assert status.collect(cluster).exit_code is ExitCode.OK


# --- all goes well ---


@pytest.mark.parametrize(("control_planes", "workers"), [(1, 0), (1, 2), (3, 1)])
def test_every_node_is_started_from_the_newer_image_control_planes_first(
    world: World, newer: NodeImage, control_planes: int, workers: int
) -> None:
    with unchanged(world):
        cluster = made(world, workers=workers, control_planes=control_planes)
        found = update(world, newer)
        assert (found.before, found.after, found.changed) == (OLD, NEW, True)
        assert found.nodes == {node.name: NEW for node in cluster.nodes}
        assert_is(world, cluster, NEW)
        calls = [call.words for call in world.calls.all if call.kind in ("engine", "run")]
        steps = [
            words[1] if words[0] == "start" else f"{words[1]} {words[6]}"
            for words in calls
            if words[0] == "start" or "kubeadm-upgrade" in words
        ]
        expected = []
        for node in cluster.nodes:
            command = "apply" if node == cluster.master else "node"
            expected += [f"{node.instance} {command}", node.instance]
        assert steps == expected
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_patches_of_containerd_are_those_of_the_newer_image_too(
    world: World, newer: NodeImage
) -> None:
    cluster = made(world, containerd_config_patches=(Patch("oom_score = 1\n"),))
    update(world, newer)
    for node in cluster.nodes:
        text = node.pull("/etc/sykube/containerd.toml").read_text()
        assert f'sandbox_image = "pause:{NEW}"' in text
        assert "oom_score = 1\n" in text


def test_a_second_update_has_nothing_to_do(world: World, newer: NodeImage) -> None:
    made(world)
    update(world, newer)
    with unchanged(world):
        found = update(world, newer)
    assert (found.changed, found.after) == (False, NEW)


def test_nothing_asked_for_means_debians_own_image_which_is_there(world: World) -> None:
    made(world)
    wish = ClusterSpec(name="fake")
    with unchanged(world):
        found = update_module.update(world.host, "fake", wish, UpdateOptions(), world.ui())
    assert (found.changed, found.after) == (False, OLD)


def test_another_build_of_the_same_kubernetes_needs_no_kubeadm(world: World) -> None:
    cluster = made(world)
    image = add_image(world.root / "cache", "f00d", part="other")
    image.sif.write_bytes(image.sif.read_bytes() + b"another build")
    assert update(world, image).changed
    assert_is(world, cluster, OLD)
    assert {each.options.image for each in world.instances.values()} == {image.sif}
    assert not [call for call in world.calls.all if "kubeadm-upgrade" in call.words]


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    world: World, newer: NodeImage
) -> None:
    made(world)
    with unchanged(world):
        found = update(world, newer, dry_run=True)
    assert found.changed
    assert found.steps == (
        "save etcd and the control planes' configuration",
        "hand the new kubeadm and container images to the nodes",
        "master: kubeadm upgrade apply",
        "master: drain, start from the new node image, uncordon",
        "node1: kubeadm upgrade node",
        "node1: drain, start from the new node image, uncordon",
        "bring the cluster DNS and the add-ons up to date",
    )


def lose_images(world: World) -> None:
    """The cache has no complete node image any more."""
    for mark in (world.root / "cache/node-images").glob("*/complete"):
        mark.unlink()


def test_a_dry_run_makes_no_node_image(world: World) -> None:
    made(world)
    lose_images(world)
    wish = ClusterSpec(name="fake")
    with unchanged(world):
        found = update_module.update(
            world.host, "fake", wish, UpdateOptions(), world.ui(), dry_run=True
        )
    assert found.changed
    assert found.steps[0] == "make the node image"
    assert not any("kubeadm" in step for step in found.steps)


@pytest.mark.parametrize("dry_run", [True, False])
def test_with_one_user_id_it_is_said_who_can_make_the_node_image(
    world: World, dry_run: bool
) -> None:
    made(world)
    lose_images(world)
    grants = Grants(rootless=True, users=False, user="ada", uid=1000)
    world.host = dataclasses.replace(world.host, grants=grants)
    with unchanged(world), pytest.raises(HostError) as caught:
        update_module.update(
            world.host, "fake", ClusterSpec(name="fake"), UpdateOptions(), world.ui(),
            dry_run=dry_run,
        )  # fmt: skip
    assert caught.value.resolution.startswith(
        "Ask the administrator for: sykube node-image build --source debian"
    )


def test_a_cluster_that_is_not_well_is_refused_before_an_image_is_made(world: World) -> None:
    made(world)
    _break_dns(world)
    lose_images(world)
    with unchanged(world), pytest.raises(SykubeError, match="is not healthy"):
        update_module.update(
            world.host, "fake", ClusterSpec(name="fake"), UpdateOptions(), world.ui()
        )
    assert not [call for call in world.calls.all if "build" in call.words]


def test_an_updated_cluster_stops_starts_and_grows(world: World, newer: NodeImage) -> None:
    cluster = made(world)
    update(world, newer)
    assert scaling.add(world.host, "fake", 1, world.ui()) == ["node2"]
    power.stop(world.host, "fake", StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert_is(world, cluster, NEW)
    assert running(world)["fake-node2"] == NEW


def test_kubeadm_is_told_what_the_new_images_are_called(world: World, newer: NodeImage) -> None:
    made(world)
    file = newer.folder / "container-images"
    file.write_text(file.read_text().replace("etcd:3.4.23-4", "etcd:3.5.0-1"))
    update(world, newer)
    data = world.kubernetes["fake"].objects[KUBEADM_CONFIG]["data"]
    config = documents.load(data["ClusterConfiguration"])
    assert config["etcd"]["local"]["imageTag"] == "3.5.0-1"
    assert config["imageRepository"] == "k8s.gcr.io"


def test_a_node_that_the_user_has_closed_stays_closed(world: World, newer: NodeImage) -> None:
    made(world)
    node = world.kubernetes["fake"].nodes["fake-node1"]
    node["spec"]["unschedulable"] = True
    update(world, newer)
    assert node["spec"]["unschedulable"] is True


# --- what is refused ---


@pytest.mark.parametrize(
    ("running_", "wanted", "error", "words"),
    [
        ("v1.30.4", "v1.30.3", UsageError, "older than v1.30.4"),
        ("v1.31.0", "v1.30.9", UsageError, "older than"),
        ("v1.30.4", "v1.32.0", UsageError, "more than one minor version"),
        ("v1.30.4", "v2.0.0", UsageError, "more than one minor version"),
    ],
)
def test_a_version_that_cannot_follow_is_refused(
    running_: str, wanted: str, error: type[SykubeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        skew.require_supported_skew(running_, {}, wanted)


def test_the_next_minor_version_is_named() -> None:
    with pytest.raises(UsageError) as raised:
        skew.require_supported_skew("v1.30.4", {}, "v1.33.0")
    assert "--kubernetes-version 1.31" in raised.value.resolution


@pytest.mark.parametrize("wanted", ["v1.30.4", "v1.30.5", "v1.31.0", "1.31.7"])
def test_versions_that_may_follow(wanted: str) -> None:
    skew.require_supported_skew("v1.30.4", {"a": "v1.30.4", "b": "v1.28.0"}, wanted)


@pytest.mark.parametrize(
    ("kubelet", "wanted", "words"),
    [
        ("v1.30.5", "v1.31.0", "newer than the API server"),
        ("v1.27.9", "v1.31.0", "too old"),
        ("v1.28.9", "v1.31.0", ""),
    ],
)
def test_kubelets_are_never_newer_nor_too_old(kubelet: str, wanted: str, words: str) -> None:
    if not words:
        skew.require_supported_skew("v1.30.4", {"n": kubelet}, wanted)
        return
    with pytest.raises(SykubeError, match=words):
        skew.require_supported_skew("v1.30.4", {"n": kubelet}, wanted)


def test_kubelets_before_1_25_may_lie_two_versions_back_alone() -> None:
    with pytest.raises(SykubeError, match="too old"):
        skew.require_supported_skew("v1.24.4", {"n": "v1.22.0"}, "v1.25.0")


@pytest.mark.parametrize(
    ("version", "words"),
    [("v1.20.1", "is older than v1.20.2"), ("v1.30.0", "more than one minor version")],
)
def test_an_image_that_cannot_follow_changes_nothing(
    world: World, version: str, words: str
) -> None:
    made(world)
    image = add_image(world.root / "cache", "bad", version=version, part="other")
    with unchanged(world), pytest.raises(UsageError, match=words):
        update(world, image)


def _stop(world: World) -> None:
    power.stop(world.host, "fake", StopOptions(), world.ui())


def _end_a_worker(world: World) -> None:
    world.end("fake-node1")


def _break_dns(world: World) -> None:
    world.kubernetes["fake"].broken.add("cluster-dns")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_stop, ExitCode.STOPPED),
        (lambda world: power.pause(world.host, "fake", world.ui()), ExitCode.STOPPED),
        (_end_a_worker, ExitCode.DEGRADED),
        (_break_dns, ExitCode.DEGRADED),
    ],
)
def test_a_cluster_that_is_not_well_is_refused(
    world: World, newer: NodeImage, damage: Callable[[World], None], code: ExitCode
) -> None:
    made(world)
    damage(world)
    with unchanged(world), pytest.raises(SykubeError) as raised:
        update(world, newer)
    assert raised.value.exit_code is code
    assert raised.value.resolution


def test_a_cluster_that_was_never_finished_is_refused(world: World, newer: NodeImage) -> None:
    world.calls.fail(lambda call: call.words[2:6] == KUBELET_START)
    with pytest.raises(Injected):
        init(world, fake_spec(), retain=True)
    with pytest.raises(SykubeError, match="never finished"):
        update(world, newer)


def test_a_cluster_that_is_not_there_is_said(world: World, newer: NodeImage) -> None:
    with pytest.raises(SykubeError) as raised:
        update(world, newer)
    assert raised.value.exit_code is ExitCode.NO_SUCH_CLUSTER


# --- a disruption budget that forbids draining ---


@pytest.fixture(params=["fake-master", "fake-node1"])
def held_up(world: World, newer: NodeImage, request: pytest.FixtureRequest) -> Cluster:
    """A cluster whose update a disruption budget has stopped at one of its nodes."""
    cluster = made(world)
    world.calls.fail(lambda call: "drain" in call.words and request.param in call.words)
    with pytest.raises(EvictionTimeoutError, match="could be evicted") as raised:
        update(world, newer)
    assert "sykube update --name fake" in raised.value.resolution
    return cluster


def test_it_leaves_a_cluster_that_works_and_goes_on(
    world: World, newer: NodeImage, held_up: Cluster
) -> None:
    nodes = world.kubernetes["fake"].nodes
    assert all("unschedulable" not in node["spec"] for node in nodes.values())
    found = status.collect(held_up)
    assert found.exit_code is ExitCode.OK
    assert {node.version for node in found.nodes} <= {OLD, NEW}
    assert (
        "to Kubernetes v1.20.3"
        in status.collect(Cluster.of(world.host, recorded(held_up), world.ui())).update
    )
    update(world, newer)
    assert_is(world, held_up, NEW)


def test_it_can_be_stopped_and_started_meanwhile(
    world: World, newer: NodeImage, held_up: Cluster
) -> None:
    before = running(world)
    power.stop(world.host, "fake", StopOptions(), world.ui())
    power.start(world.host, "fake", world.ui())
    assert running(world) == before
    update(world, newer)
    assert_is(world, held_up, NEW)


def test_it_can_be_deleted_meanwhile(world: World, held_up: Cluster) -> None:
    assert removal.delete(world.host, "fake", world.ui()) == []
    assert not held_up.paths.root.exists()


def test_no_node_joins_and_no_snapshot_is_saved_meanwhile(world: World, held_up: Cluster) -> None:
    assert held_up.nodes
    with unchanged(world), pytest.raises(SykubeError, match="half-way to Kubernetes v1.20.3"):
        scaling.add(world.host, "fake", 1, world.ui())
    power.stop(world.host, "fake", StopOptions(), world.ui())
    with unchanged(world), pytest.raises(SykubeError, match="half-way to Kubernetes v1.20.3"):
        snapshots.save(world.host, "fake", "saved", world.ui())


def test_another_version_is_refused_meanwhile(world: World, held_up: Cluster) -> None:
    assert held_up.nodes
    wish = ClusterSpec(name="fake", kubernetes_version="1.21")
    with unchanged(world), pytest.raises(UsageError, match="on its way to Kubernetes v1.20.3"):
        update_module.update(world.host, "fake", wish, UpdateOptions(), world.ui())


def test_another_image_is_refused_meanwhile(world: World, held_up: Cluster) -> None:
    assert held_up.nodes
    image = add_image(world.root / "cache", "0ther", version="v1.20.4", part="a third")
    with unchanged(world), pytest.raises(UsageError, match="on its way to Kubernetes v1.20.3"):
        update(world, image)


def test_of_several_control_planes_no_node_is_without_the_image_of_kube_proxy(
    world: World, newer: NodeImage
) -> None:
    """kubeadm leaves its DaemonSet alone until the last of them is upgraded."""
    made(world, control_planes=3, workers=0)
    proxy = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"
    old, new = (f"k8s.gcr.io/kube-proxy:{version}" for version in (OLD, NEW))
    file = newer.folder / "container-images"
    file.write_text(f"{file.read_text()}{new}\n")
    container = {"name": "kube-proxy", "image": old}
    world.kubernetes["fake"].objects[proxy] = {
        "spec": {"template": {"spec": {"containers": [container]}}}
    }
    seen = []

    def image_when_started(call: Call) -> bool:
        if call.words[:2] == ("start", "fake-master"):
            spec = world.kubernetes["fake"].objects[proxy]["spec"]["template"]["spec"]
            seen.append(spec["containers"][0]["image"])
        return False

    world.calls.fail(image_when_started)
    update(world, newer)
    assert seen == [new]


def test_a_way_back_from_a_second_call_brings_kubeadm_and_its_add_ons_back(
    world: World, newer: NodeImage
) -> None:
    cluster = made(world)
    proxy = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"
    old, new = (f"k8s.gcr.io/kube-proxy:{version}" for version in (OLD, NEW))
    file = cluster.image.folder / "container-images"
    file.write_text(f"{file.read_text()}{old}\n")
    world.calls.fail(lambda call: "drain" in call.words)
    with pytest.raises(EvictionTimeoutError):
        update(world, newer)
    # What kubeadm did: it is in etcd by the time that it is saved again.
    container = {"name": "kube-proxy", "image": new}
    world.kubernetes["fake"].objects[proxy] = {
        "spec": {"template": {"spec": {"containers": [container]}}}
    }
    world.unfit.add(NEW)
    with pytest.raises(SykubeError, match="back on v1.20.2"):
        update(world, newer)
    spec = world.kubernetes["fake"].objects[proxy]["spec"]["template"]["spec"]
    assert [each["image"] for each in spec["containers"]] == [old]
    assert_is(world, cluster, OLD)


def test_both_images_are_in_use_meanwhile(held_up: Cluster) -> None:
    state = recorded(held_up)
    assert state.update is not None
    assert state.images == {state.update.before.fingerprint, "f00d"}


# --- failures ---


_reference: list[Call] = []


def reference_calls(world: World, newer: NodeImage) -> list[Call]:
    """Every call of an update that works."""
    if not _reference:
        made(world)
        update(world, newer)
        _reference.extend(world.calls.all)
        removal.delete(world.host, "fake", world.ui())
    return _reference


TITLES = (
    "",
    "Saving etcd and the control planes' configuration",
    "Handing the new kubeadm and images to the nodes",
    "Upgrading master (kubeadm upgrade)",
    "Draining master",
    "Starting master from the new node image",
    "Waiting for master",
    "Upgrading node1 (kubeadm upgrade)",
    "Draining node1",
    "Starting node1 from the new node image",
    "Waiting for node1",
    "Bringing the cluster DNS and the add-ons up to date",
    "Waiting for nodes, pods and DNS",
    "Adding the new credentials to your kubeconfig",
)


def test_these_are_the_steps(world: World, newer: NodeImage) -> None:
    assert {*TITLES} - {"Checking the image node.sif"} <= {
        call.step for call in reference_calls(world, newer)
    } | {"Adding the new credentials to your kubeconfig"}


INTERRUPTED = ("Upgrading master (kubeadm upgrade)", "Starting master from the new node image")


@pytest.mark.parametrize(
    ("title", "error"),
    [
        *((title, Injected) for title in TITLES),
        *((title, KeyboardInterrupt) for title in (*INTERRUPTED, "Draining node1")),
    ],
)
def test_an_update_whose_call_to_the_outside_fails_is_undone_or_goes_on(
    world: World,
    newer: NodeImage,
    title: str,
    error: type[BaseException],
) -> None:
    calls = reference_calls(world, newer)
    numbers = [
        number
        for number, call in enumerate(calls)
        if call.step == title and not (number and calls[number - 1].words[:5] == call.words[:5])
    ]
    world.stride = 1000.0
    for number in numbers:
        cluster = made(world)
        world.calls.all.clear()
        world.calls.faults.clear()
        world.calls.fail_number(number, lambda call: error(str(call)))
        try:
            update(world, newer)
        except (SykubeError, KeyboardInterrupt):
            world.calls.faults.clear()
            state = recorded(cluster)
            if state.update is None and state.versions["kubernetes"] == OLD:
                assert_is(world, cluster, OLD)
            else:
                assert state.update is None or not state.update.undoing, calls[number]
            update(world, newer)
        assert_is(world, cluster, NEW)
        removal.delete(world.host, "fake", world.ui())


def _kubeadm(call: Call) -> bool:
    return "kubeadm-upgrade" in call.words and "apply" in call.words


def test_a_control_plane_that_kubeadm_cannot_upgrade_is_put_back(
    world: World, newer: NodeImage
) -> None:
    cluster = made(world)
    before = kubelets(world)
    world.calls.fail(_kubeadm)
    with pytest.raises(SykubeError, match="back on v1.20.2 and works as before") as raised:
        update(world, newer)
    assert "/etc/sykube/update/kubeadm" in raised.value.details
    assert raised.value.exit_code is ExitCode.FAILED
    assert kubelets(world) == before
    assert_is(world, cluster, OLD)


SLOW_JOB = "[ERROR CreateJob]: Job did not complete in 15s"
SLOW_API = (
    "error: unable to fetch the kubeadm-config ConfigMap: failed to get config map: Get "
    '"https://10.11.11.254:6443/api/v1/namespaces/kube-system/configmaps/kubeadm-config?timeout=10s"'
    ": net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
)


@pytest.mark.parametrize("problem", [SLOW_JOB, SLOW_API])
def test_a_busy_machine_gets_further_tries(world: World, newer: NodeImage, problem: str) -> None:
    cluster = made(world)
    world.upgrade_problems = [problem] * 2
    update(world, newer)
    assert_is(world, cluster, NEW)


def test_so_it_does_on_a_worker(world: World, newer: NodeImage) -> None:
    cluster = made(world)
    seen: list[str] = []

    def slow(call: Call) -> bool:
        if "kubeadm-upgrade" in call.words and "node" in call.words:
            seen.append(str(call))
            if len(seen) == 1:
                world.upgrade_problems = [SLOW_API]
        return False

    world.calls.fail(slow)
    update(world, newer)
    assert len(seen) == 2
    assert_is(world, cluster, NEW)


@pytest.mark.parametrize(
    "problem",
    [
        "[ERROR CoreDNSMigration]: CoreDNS will not be upgraded",
        "couldn't upgrade control plane. kubeadm has tried to recover everything into the earlier "
        "state. Errors faced: context deadline exceeded",
    ],
)
def test_what_does_not_pass_is_not_tried_again(
    world: World, newer: NodeImage, problem: str
) -> None:
    cluster = made(world)
    world.upgrade_problems = [problem]
    with pytest.raises(SykubeError, match="back on v1.20.2"):
        update(world, newer)
    assert len([call for call in world.calls.all if _kubeadm(call)]) == 1
    assert_is(world, cluster, OLD)


@pytest.mark.parametrize(("control_planes", "workers"), [(1, 1), (3, 1)])
def test_kubeadm_leaves_the_kernels_options_and_cgroup_v1_to_sykube(
    world: World, newer: NodeImage, control_planes: int, workers: int
) -> None:
    cluster = made(world, control_planes=control_planes, workers=workers)
    world.calls.all.clear()
    update(world, newer)
    calls = [call.words for call in world.calls.all if "kubeadm-upgrade" in call.words]
    assert len(calls) == len(cluster.nodes)
    for words in calls:
        ignored = words[words.index("--ignore-preflight-errors") + 1].split(",")
        assert "SystemVerification" in ignored
        assert "all" not in ignored
        # Its own checks of that node come first.
        numbers = [n for n, call in enumerate(world.calls.all) if call.words == words]
        before = world.calls.all[numbers[0] - 1].words
        assert before[1] == words[1]
        assert "cgroup controller" in str(before)


def test_coredns_is_checked_where_it_is(world: World) -> None:
    for version, others in (("1.20", 3), ("1.36", 0)):
        options = kubeadm.upgrade_options(minor(version), patches="/patches")
        assert len(options[-1].split(",")) == 1 + others
        assert kubeadm.upgrade_options(minor(version)) == (
            *("--ignore-preflight-errors", "SystemVerification"),
        )


# --- cgroup v1 ---


@pytest.fixture
def at_1_34(world: World) -> tuple[Cluster, NodeImage]:
    """A cluster of 1.34 on cgroup v1, and an image of 1.35, which refuses it."""
    world.use_kubernetes("1.34.3", minor("1.34").containerd, "registry.example/kubernetes")
    cluster = made(world, kubernetes_version="1.34.3")
    return cluster, image_of_1_35(world, cluster)


def image_of_1_35(world: World, cluster: Cluster) -> NodeImage:
    image = add_image(world.root / "cache", "f00d", version="v1.35.1", part="other")
    for name in ("versions", "container-images"):
        text = (cluster.image.folder / name).read_text()
        (image.folder / name).write_text(text.replace("1.34.3", "1.35.1"))
    return image


def test_cgroup_v1_is_refused_before_anything_changes_and_the_option_is_there(
    world: World, at_1_34: tuple[Cluster, NodeImage], sykube: Sykube
) -> None:
    cluster, image = at_1_34
    command = ("update", "--name", "fake", "--local-image", str(image.sif))
    with unchanged(world):
        refused = sykube(*command)
    assert refused.code == ExitCode.HOST_NOT_READY
    assert "--allow-cgroup-v1" in refused.err
    assert sykube(*command, "--allow-cgroup-v1").code == 0
    assert recorded(cluster).spec.allow_cgroup_v1
    for node in cluster.nodes:
        assert "failCgroupV1: false" in node.pull("/etc/sykube/kubelet.conf").read_text()


def test_a_cluster_that_was_made_with_the_option_needs_it_no_second_time(world: World) -> None:
    world.use_kubernetes("1.34.3", minor("1.34").containerd, "registry.example/kubernetes")
    cluster = made(world, kubernetes_version="1.34.3", allow_cgroup_v1=True)
    update(world, image_of_1_35(world, cluster))
    for node in cluster.nodes:
        assert "failCgroupV1: false" in node.pull("/etc/sykube/kubelet.conf").read_text()


def test_put_back_it_is_as_if_the_option_had_not_been_given(
    world: World, at_1_34: tuple[Cluster, NodeImage]
) -> None:
    cluster, image = at_1_34
    world.calls.fail(_kubeadm)
    wish = ClusterSpec(name="fake", local_image=str(image.sif), allow_cgroup_v1=True)
    with pytest.raises(SykubeError, match="back on v1.34.3"):
        update_module.update(world.host, "fake", wish, UpdateOptions(), world.ui())
    assert not recorded(cluster).spec.allow_cgroup_v1
    assert "failCgroupV1" not in cluster.master.pull("/etc/sykube/kubelet.conf").read_text()


# --- what changes nothing ---


def test_a_kubeadm_that_has_changed_nothing_costs_no_restart(
    world: World, newer: NodeImage
) -> None:
    cluster = made(world)
    pids = {name: instance.pid for name, instance in world.instances.items()}
    images = {name: instance.images for name, instance in world.instances.items()}
    world.upgrade_problems = [SLOW_JOB] * 3
    with pytest.raises(SykubeError, match="back on v1.20.2") as raised:
        update(world, newer)
    assert "CreateJob" in raised.value.details
    assert {name: instance.pid for name, instance in world.instances.items()} == pids
    assert {name: instance.images for name, instance in world.instances.items()} == images
    assert_is(world, cluster, OLD)


@pytest.mark.parametrize("control_planes", [1, 3])
def test_a_control_plane_that_does_not_come_back_is_put_back_with_what_etcd_had(
    world: World, newer: NodeImage, control_planes: int
) -> None:
    cluster = made(world, control_planes=control_planes)
    kubernetes = world.kubernetes["fake"]
    world.unfit.add(NEW)
    with pytest.raises(SykubeError, match="back on v1.20.2"):
        update(world, newer)
    assert kubernetes.version() == OLD
    assert_is(world, cluster, OLD)
    for node in cluster.control_planes:
        assert node.pull("/var/lib/etcd/member/data").read_text() == "restored"


def test_a_way_back_that_fails_is_said_and_tried_again(world: World, newer: NodeImage) -> None:
    cluster = made(world)
    world.calls.fail(_kubeadm)
    world.calls.fail(lambda call: "restore-etcd" in call.words)
    ui = world.ui()
    with pytest.raises(Injected, match="kubeadm-upgrade"):
        update_module.update(
            world.host, "fake", ClusterSpec(local_image=str(newer.sif)), UpdateOptions(), ui
        )
    assert "sykube update --name fake tries it again" in ui.warnings[0]
    assert recorded(cluster).update is not None
    with pytest.raises(SykubeError, match="back on v1.20.2"):
        update(world, newer)
    assert_is(world, cluster, OLD)
    update(world, newer)
    assert_is(world, cluster, NEW)


def test_what_is_kept_for_the_way_back_is_roots_alone(world: World, newer: NodeImage) -> None:
    cluster = made(world)
    modes: list[int] = []

    def look(call: Call) -> bool:
        file = cluster.paths.root / "update/etcd.db"
        if _kubeadm(call):
            modes.extend((file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777))
        return False

    world.calls.fail(look)
    update(world, newer)
    assert modes == [0o600, 0o700]


# --- files of nodes ---


def test_images_of_the_user_are_on_the_renewed_nodes_again(
    world: World, newer: NodeImage, tmp_path: Path
) -> None:
    from sykube.cluster.commands import images
    from tests import containers

    cluster = made(world)
    image = containers.Image([containers.tar({"file": b"text"})], {})
    file = containers.oci_archive(tmp_path / "own.tar", image, "docker.io/library/own:1")
    images.load(world.host, "fake", [file], [], "", world.ui())
    update(world, newer)
    for instance in world.instances.values():
        assert instance.images["docker.io/library/own:1"] == image.digest
    assert not [*cluster.paths.root.rglob("kept-images.json")]


def test_so_is_an_image_whose_parts_were_the_node_images(
    world: World, newer: NodeImage, tmp_path: Path
) -> None:
    """Such as sykube.local/system:1 under another name: its layers go with the old image."""
    from sykube.cluster.commands import images
    from tests import containers

    made(world)
    image = containers.Image([containers.tar({"file": b"text"})], {})
    file = containers.oci_archive(tmp_path / "own.tar", image, "docker.io/library/own:1")
    images.load(world.host, "fake", [file], [], "", world.ui())
    for instance in world.instances.values():
        seed = instance.options.image.parent / "seed"
        seed.mkdir(exist_ok=True)
        for part in [*instance.content.glob("?" * 64)]:
            shutil.copy(part, seed)
            part.unlink()
            part.symlink_to(f"/usr/share/sykube/containerd/{part.name}")
    ui = world.ui()
    wish = ClusterSpec(name="fake", local_image=str(newer.sif))
    update_module.update(world.host, "fake", wish, UpdateOptions(), ui)
    for instance in world.instances.values():
        assert instance.images["docker.io/library/own:1"] == image.digest
        assert not any(part.is_symlink() for part in instance.content.iterdir())
    assert not [said for said in ui.said if "no longer" in said]


def test_what_would_hide_files_of_the_new_image_goes_aside_and_comes_back(tmp_path: Path) -> None:
    node = make_node(None, tmp_path)
    own = ("etc/kubernetes/admin.conf", "usr/local/bin/mine", "etc/machine-id")
    hiding = ("usr/bin/kubelet", "var/lib/dpkg/status", "etc/ssl/certs/ca-certificates.crt")
    for name in (*own, *hiding):
        file = node.pull(f"/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    node.pull("/var/lib/containerd").mkdir()
    node.pull("/var/lib/containerd/old").touch()

    def there() -> set[str]:
        upper = node.pull("/")
        return {str(each.relative_to(upper)) for each in upper.rglob("*") if each.is_file()}

    for _ in range(2):
        node.fit("new", "old")
        assert there() == {*own}
        assert [*node.pull("/var/lib/containerd").iterdir()] == []
        assert (node.previous_containerd() / "old").exists()
    node.fit("old", "old")
    assert there() == {*own, *hiding}
    assert node.pull("/var/lib/containerd/old").exists()
    node.fit("new", "old")
    node.forget_previous()
    assert not node.previous_containerd().parent.exists()


def test_a_fit_that_was_interrupted_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(None, tmp_path)
    node.pull("/usr/bin").mkdir(parents=True)
    node.pull("/var/lib/containerd").mkdir()
    node.pull("/var/lib/containerd/old").touch()
    real = image_files._note
    for broken in range(2):
        count = [0]

        def note(
            folder: Path, fingerprint: str, broken: int = broken, count: list[int] = count
        ) -> None:
            count[0] += 1
            if count[0] > broken:
                raise KeyboardInterrupt
            real(folder, fingerprint)

        with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
            # Between two changes of files, where nothing else is asked.
            interrupted.setattr(image_files, "_note", note)
            node.fit("new", "old")
        # A start from the old image in between fills it again.
        node.pull("/var/lib/containerd").mkdir(exist_ok=True)
        node.pull("/var/lib/containerd/of the start between").touch()
    node.fit("new", "old")
    assert [*node.pull("/var/lib/containerd").iterdir()] == []
    assert (node.previous_containerd() / "old").exists()
    node.fit("old", "old")
    assert [file.name for file in node.pull("/var/lib/containerd").iterdir()] == ["old"]


def test_an_update_under_way_is_read_from_the_record_as_it_was_written(
    world: World, newer: NodeImage
) -> None:
    cluster = made(world)
    world.calls.fail(lambda call: "drain" in call.words)
    with pytest.raises(EvictionTimeoutError):
        update(world, newer)
    state = recorded(cluster)
    assert state.update is not None
    assert state.update.upgraded == ["master"]
    written = json.loads(cluster.paths.state.read_text())["update"]
    assert written == stored.dump(state.update)
    assert stored.load(Progress, written) == state.update


def test_an_update_that_the_version_before_began_is_read() -> None:
    origin = {"fingerprint": "f", "folder": "/f", "versions": {"kubernetes": OLD}, "choice": None}
    after = origin | {"choice": {"source": "debian", "kubernetes": "1.20.3", "reason": "asked"}}
    # As dataclasses.asdict wrote it.
    written = {
        "before": origin, "after": after, "begun": True, "upgraded": ["master"], "renewed": [],
        "finished": [], "committed": False, "undoing": False, "allow_cgroup_v1": True,
    }  # fmt: skip
    found = stored.load(Progress, written)
    assert dataclasses.asdict(found) == written
    assert found.after.choice == Choice("debian", "1.20.3", "asked")


def test_an_etcd_that_gives_no_snapshot_changes_nothing(world: World, newer: NodeImage) -> None:
    made(world)
    before = world.snapshot()
    world.calls.fail(lambda call: "snapshot" in call.words)
    with pytest.raises(SykubeError, match="back on v1.20.2"):
        update(world, newer)
    assert differences(before, world.snapshot()) == []


# --- the command ---


def test_the_command_says_what_it_has_done(world: World, newer: NodeImage, sykube: Sykube) -> None:
    made(world)
    command = ("update", "--name", "fake", "--local-image", str(newer.sif))
    planned = sykube(*command, "--dry-run")
    assert planned.code == 0
    assert planned.out.splitlines()[0] == "v1.20.2 → v1.20.3"
    assert "  node1: kubeadm upgrade node" in planned.out.splitlines()
    done = sykube(*command, "--output", "json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["name"], found["changed"]) == ("fake", True)
    assert found["nodes"] == {"master": NEW, "node1": NEW}
    again = sykube(*command)
    assert again.code == 0
    assert "The cluster fake is up to date: Kubernetes v1.20.3." in again.err
    shown = sykube("status", "--name", "fake")
    assert [line.split()[4] for line in shown.out.splitlines() if "10.11.11." in line] == [NEW] * 2


def test_the_command_says_why_it_refuses(world: World, sykube: Sykube) -> None:
    made(world)
    done = sykube(
        "update", "--name", "fake", "--source", "debian", "--kubernetes-version", "1.19.1"
    )
    assert done.code == ExitCode.USAGE
    assert "Debian has no Kubernetes 1.19.1" in done.err


def test_a_way_back_is_shown_as_an_error_with_its_cause(
    world: World, newer: NodeImage, sykube: Sykube
) -> None:
    made(world)
    world.calls.fail(_kubeadm)
    done = sykube("update", "--name", "fake", "--local-image", str(newer.sif))
    assert done.code == ExitCode.FAILED
    assert "back on v1.20.2 and works as before" in done.err
    assert "/etc/sykube/update/kubeadm" in done.err
