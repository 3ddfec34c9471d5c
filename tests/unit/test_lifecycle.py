"""Whole inits and deletes on a fake host, made to fail at each step and each call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.cluster.commands import lifecycle, removal, steps
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import DONE, State, clusters
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host import lock
from sykube.host.finding import Finding, Level
from sykube.host.paths import ClusterPaths
from sykube.image import build
from sykube.kubernetes.api import ApiError
from tests.fakes import Answer, Call, Injected, World
from tests.fakes.image import write_sif
from tests.fakes.node_programs import KUBELET_START
from tests.fakes.signatures import TRUSTED
from tests.unit.helpers import differences, fake_spec, init, unchanged

STEPS = [step.name for step in steps.ALL]
TITLES = {step.name: step.title for step in steps.ALL}
ROLLBACK = "Rolling back"


def fail_at(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", point)


def user_context(world: World) -> str:
    config = yaml.safe_load((world.root / "home/.kube/config").read_text())
    return str(config["current-context"])


# --- init and delete ---


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_init_makes_a_cluster_and_delete_leaves_nothing(world: World, workers: int) -> None:
    with unchanged(world):
        cluster = init(world, fake_spec(workers=workers))
        assert cluster is not None
        names = ["fake-master", *(f"fake-node{n}" for n in range(1, workers + 1))]
        assert sorted(world.instances) == names
        assert sorted(world.kubernetes["fake"].nodes) == names
        assert cluster.state.complete
        assert set(cluster.state.steps.values()) == {DONE}
        assert clusters(world.host) == ["fake"]
        assert user_context(world) == "fake"
        assert world.kernel.sysctl("net/ipv4/ip_forward") == "1"
        assert world.kernel.sysctl("fs/inotify/max_user_instances") == "1024"
        assert removal.delete(world.host, "fake", world.ui()) == []
    assert clusters(world.host) == []


@pytest.mark.parametrize(
    "enabled",
    [
        "cpu cpuset memory pids\n",
        "memory pids\n",
    ],
)
def test_init_and_delete_on_cgroup_v2(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str
) -> None:
    world = World(fast_path / "v2", cgroup_version=2)
    world.install(monkeypatch)
    (Path(world.cgroup_root) / "cgroup.subtree_control").write_text(enabled)
    with unchanged(world):
        init(world)
        assert (world.cgroup_root / "sykube/fake-node1/cgroup.procs").read_text().strip()
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_an_ephemeral_cluster_is_mounted_and_unmounted(world: World) -> None:
    with unchanged(world):
        cluster = init(world, fake_spec(ephemeral=True))
        assert cluster is not None
        assert world.kernel.mounts == {str(cluster.paths.root)}
        assert removal.delete(world.host, "fake", world.ui()) == []


@pytest.mark.parametrize(
    "existing",
    [True, False],
)
def test_a_cluster_elsewhere_is_a_link_and_goes_with_it(
    world: World, tmp_path: Path, existing: bool
) -> None:
    dest = world.root / "var/elsewhere"
    if existing:
        dest.mkdir()
        (dest / "of the user").touch()
    with unchanged(world):
        cluster = init(world, fake_spec(dest=str(dest)))
        assert cluster is not None
        assert cluster.paths.root.is_symlink()
        assert (dest / "fake/state.json").exists()
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_a_destination_with_something_in_it_is_refused_and_kept(world: World) -> None:
    file = world.root / "var/elsewhere/fake/precious"
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(SykubeError, match="is not empty"):
        init(world, fake_spec(dest=str(world.root / "var/elsewhere")))
    assert file.read_text() == "mine"


def test_a_folder_for_the_engines_networks_is_used_and_its_other_files_stay(world: World) -> None:
    folder = world.root / "etc/cni"
    folder.mkdir()
    (folder / "99-other.conflist").write_text("{}")
    with unchanged(world):
        init(world, fake_spec(network_dir=str(folder)))
        assert (folder / "50-sk-fake.conflist").exists()
        removal.delete(world.host, "fake", world.ui())


def test_nodes_get_their_files(world: World) -> None:
    cluster = init(world, fake_spec(workers=2))
    assert cluster is not None
    config = cluster.nodes[1].pull("/etc/sykube")
    assert (config / "routes").read_text().splitlines() == [
        "10.244.0.0/24 via 10.11.11.2",
        "10.244.2.0/24 via 10.11.11.4",
    ]
    assert "10.11.11.4 fake-node2" in (config / "hosts").read_text().splitlines()
    resolvers = (config / "resolv.conf").read_text().splitlines()
    assert resolvers == ["nameserver 10.11.11.1", "nameserver 192.0.2.53"]
    assert "SYKUBE_ENDPOINT=\n" in (config / "node.env").read_text()
    assert (
        "SYKUBE_ENDPOINT=10.11.11.254\n" in cluster.master.pull("/etc/sykube/node.env").read_text()
    )
    assert "SYKUBE_CGROUP=sykube/fake-node1\n" in (config / "node.env").read_text()
    shown = json.loads((config / "pod-network.conflist").read_text())
    assert shown["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]
    # No token and no configuration with one is left in a node.
    for instance in world.instances.values():
        assert not [path for path in instance.files if "kubeadm" in path]
    assert world.kubernetes["fake"].tokens() == {}


def test_workers_have_the_pod_subnets_that_their_cni_hands_out(world: World) -> None:
    init(world, fake_spec(workers=2))
    nodes = world.kubernetes["fake"].nodes
    assert nodes["fake-node2"]["spec"]["podCIDR"] == "10.244.2.0/24"


def test_the_state_and_the_kubeconfig_are_roots_alone(world: World) -> None:
    cluster = init(world)
    assert cluster is not None
    for file in (cluster.paths.state, cluster.paths.kubeconfig):
        assert file.stat().st_mode & 0o777 == 0o600


def test_dry_run_says_what_would_be_done_and_changes_nothing(world: World) -> None:
    with unchanged(world):
        found = lifecycle.dry_run(world.host, fake_spec(), world.ui())
    assert found["steps"] == [*dict.fromkeys(TITLES.values())]
    assert found["subnets"] == {
        "nodes": "10.11.11.0/24",
        "pods": "10.244.0.0/16",
        "services": "10.96.0.0/12",
    }
    assert found["engine"] == "apptainer 1.4.5"
    json.dumps(found)


# --- a failed init rolls back ---


@pytest.mark.parametrize("control_planes", [1, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_init_that_fails_at_a_step_leaves_nothing_and_the_next_one_succeeds(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, when: str, control_planes: int
) -> None:
    spec = fake_spec(control_planes=control_planes)
    fail_at(f"{when}:{step}", monkeypatch)
    with unchanged(world), pytest.raises(SykubeError, match=f"made to fail at {when}:{step}"):
        init(world, spec)
    assert clusters(world.host) == []
    monkeypatch.delenv("SYKUBE_FAIL_AT")
    assert init(world, spec) is not None
    assert clusters(world.host) == ["fake"]


@pytest.mark.parametrize("step", ["data", "network", "nodes", "kubeconfig"])
def test_init_whose_disk_is_full_in_the_middle_of_a_step_leaves_nothing(
    world: World, step: str
) -> None:
    title = next(each for each in steps.ALL if each.name == step).title

    def full(ended: str) -> None:
        if ended == title:
            raise OSError(28, "No space left on device", "/var")

    ui = world.ui()
    ui.at_end = full
    with unchanged(world), pytest.raises(OSError, match="No space left"):
        init(world, ui=ui)


_reference: list[Call] = []


def reference_calls(world: World) -> list[Call]:
    """Every call of an init that works, in its order, which is always the same in kind."""
    if not _reference:
        init(world)
        _reference.extend(world.calls.all)
        removal.delete(world.host, "fake", world.ui())
    return _reference


def saying(kind: type[BaseException]) -> Callable[[Call], BaseException]:
    return lambda call: kind(str(call))


def failing_at(
    world: World,
    calls: list[Call],
    number: int,
    error: Callable[[Call], BaseException] | None,
) -> None:
    """Let just that call of the next init fail."""
    world.calls.all.clear()
    world.calls.faults.clear()
    world.calls.fail_one_of(calls, number, error)


@pytest.mark.parametrize("title", ["", *dict.fromkeys(TITLES.values())])
def test_init_whose_call_to_the_outside_fails_leaves_nothing_and_the_next_one_succeeds(
    world: World, title: str
) -> None:
    """Each single call that a step makes: of a program, of the engine, of the API, of the DNS.

    It fails, then the next init is interrupted there, then the next one succeeds.
    """
    calls = reference_calls(world)
    before = world.snapshot()
    for number, call in enumerate(calls):
        if call.step != title:
            continue
        # What only cleans up after kubeadm does not make init fail, unless it is interrupted.
        cleans_up = "rm" in call.words or call.words[0] == "DELETE"
        errors: list[type[BaseException]] = [] if cleans_up else [Injected]
        for error in [*errors, KeyboardInterrupt]:
            failing_at(world, calls, number, saying(error))
            with pytest.raises(error) as raised:
                init(world)
            failed = next(each for each in world.calls.all if str(each) == str(raised.value))
            assert failed.key == call.key
            assert differences(before, world.snapshot()) == [], call
        world.calls.faults.clear()
        assert init(world) is not None, call
        removal.delete(world.host, "fake", world.ui())
        assert differences(before, world.snapshot()) == [], call


def test_every_step_that_does_more_than_write_files_has_calls_that_fail(world: World) -> None:
    """Otherwise the test above would test nothing for it."""
    found = {call.step for call in reference_calls(world)}
    files_alone = {TITLES["data"], TITLES["kubeconfig"]}
    assert set(TITLES.values()) - files_alone <= found


@pytest.mark.parametrize("step", ["control-plane", "join"])
@pytest.mark.parametrize("error", [Injected, KeyboardInterrupt])
def test_init_with_three_control_planes_whose_call_fails_leaves_nothing(
    world: World, step: str, error: type[BaseException]
) -> None:
    spec = fake_spec(control_planes=3, workers=0)
    init(world, spec)
    calls = list(world.calls.all)
    removal.delete(world.host, "fake", world.ui())
    before = world.snapshot()
    tried: set[tuple[str, ...]] = set()
    for number, call in enumerate(calls):
        cleans_up = "rm" in call.words or call.words[0] == "DELETE"
        # One of each kind for each node: there are eight keys to copy to each.
        if call.step != TITLES[step] or call.words[:3] in tried or cleans_up:
            continue
        tried.add(call.words[:3])
        failing_at(world, calls, number, lambda call: error(str(call)))
        with pytest.raises(error):
            init(world, spec)
        assert differences(before, world.snapshot()) == [], call


def test_init_of_three_control_planes_is_resumed_wherever_it_ended(world: World) -> None:
    spec = fake_spec(control_planes=3, workers=1)
    init(world, spec)
    calls = list(world.calls.all)
    removal.delete(world.host, "fake", world.ui())
    tried: set[tuple[str, ...]] = set()
    for number, call in enumerate(calls):
        if call.step != TITLES["control-plane"] or call.words[:6] in tried:
            continue
        tried.add(call.words[:6])
        failing_at(world, calls, number, lambda call: KeyboardInterrupt(str(call)))
        with pytest.raises(KeyboardInterrupt):
            init(world, spec, retain=True)
        assert init(world, spec) is not None, call
        server = world.kubernetes["fake"]
        wanted = {f"fake-{name}" for name in ("master", "master2", "master3")}
        assert {*server.members} == wanted, call
        assert {*server.nodes} == wanted | {"fake-node1"}, call
        removal.delete(world.host, "fake", world.ui())
    assert len(tried) > 15


def test_a_wait_that_times_out_is_an_error_and_rolls_back(world: World) -> None:
    def joining(_name: str, argv: list[str], _stdin: str | None) -> None:
        if tuple(argv[:4]) == KUBELET_START:
            world.kubernetes["fake"].broken.add("kube-scheduler")

    world.node_programs.first = joining
    with (
        unchanged(world),
        pytest.raises(SykubeError, match="pods Ready: not there after") as raised,
    ):
        init(world)
    assert "kube-scheduler" in raised.value.details


def test_a_node_that_does_not_boot_shows_its_first_words(world: World) -> None:
    world.stillborn = {"fake-master", "fake-node1"}
    for_cgroups = world.cgroup_hierarchies()
    with pytest.raises(SykubeError, match="does not boot") as raised:
        init(world)
    assert "the first words of fake-master" in raised.value.details
    # Its processes are still in its cgroups here: they are killed.
    assert world.killed
    assert not any((hierarchy / "sykube").exists() for hierarchy in for_cgroups)


def make_unfit(world: World) -> None:
    """A worker lacks a program."""

    def check(name: str, argv: list[str], _stdin: str | None) -> Answer | None:
        unfit = argv[:2] == ["sh", "check-node"] and name == "fake-node1"
        return (0, "the program conntrack is missing\n", "") if unfit else None

    world.node_programs.first = check


def test_a_node_that_is_not_fit_is_an_error_with_what_is_missing(world: World) -> None:
    make_unfit(world)
    with unchanged(world), pytest.raises(SykubeError, match="node1 is not fit") as raised:
        init(world)
    assert raised.value.details == "the program conntrack is missing"


def test_a_node_that_was_not_fit_is_checked_again_when_init_resumes(world: World) -> None:
    make_unfit(world)
    for _ in range(2):
        with pytest.raises(SykubeError, match="node1 is not fit"):
            init(world, retain=True)


def test_a_cluster_whose_first_record_cannot_be_written_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: State, path: Path) -> None:
        raise OSError(28, "No space left on device")

    # A disk that is full when the record is written, and only then.
    monkeypatch.setattr(State, "save", full)
    with unchanged(world), pytest.raises(OSError, match="No space left"):
        init(world, fake_spec(ephemeral=True))


@pytest.mark.parametrize("step", ["nodes", "kubeconfig"])
def test_the_logs_of_nodes_outlive_the_rollback(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old = world.host.logs / "fake/node7/of the failure before"
    old.mkdir(parents=True)
    fail_at(f"after:{step}", monkeypatch)
    with pytest.raises(SykubeError) as raised:
        init(world)
    for node in ("master", "node1"):
        log = world.host.logs / "fake" / node / "sykube/supervisord.log"
        assert log.read_text() == f"fake-{node} has booted\n"
    assert str(world.host.logs / "fake") in raised.value.resolution
    assert not old.exists()


@pytest.mark.parametrize(
    "point",
    [
        "before:data",
        "after:data",
        "before:network",
        "after:network",
        "after:kubeconfig",
    ],
)
def test_a_rollback_that_undid_everything_warns_of_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    fail_at(point, monkeypatch)
    ui = world.ui()
    with pytest.raises(SykubeError):
        init(world, ui=ui)
    assert ui.warnings == []


# --- the first error is the one that is shown ---


def in_rollback(call: Call, kind: str, *words: str) -> bool:
    return (
        call.step == ROLLBACK
        and call.kind == kind
        and [Path(word).name for word in call.words[: len(words)]] == list(words)
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("engine", ()),
        ("engine", ("kill",)),
        ("run", ()),
        ("run", ("ip",)),
        ("run", ("iptables",)),
        ("run", ("iptables-restore",)),
        ("run", ("umount",)),
        ("run", ("modprobe",)),
    ],
)
def test_errors_of_the_rollback_do_not_mask_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, words: tuple[str, ...]
) -> None:
    fail_at("after:ready", monkeypatch)
    world.calls.fail(lambda call: in_rollback(call, kind, *words), times=None)
    ui = world.ui()
    with pytest.raises(SykubeError, match="made to fail at after:ready"):
        init(world, fake_spec(ephemeral=True), ui)
    assert ui.warnings
    assert all(warning.startswith("not undone: ") for warning in ui.warnings)


@pytest.mark.parametrize("node", ["fake-master", "fake-node1"])
def test_one_failing_call_of_the_rollback_does_not_keep_the_other_steps_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    fail_at("after:ready", monkeypatch)
    world.calls.fail(lambda call: in_rollback(call, "engine", "kill") and node in call.words)
    with pytest.raises(SykubeError, match="made to fail"):
        init(world)
    assert "sk-fake" not in world.kernel.links
    assert not [chain for chain in world.kernel.tables["nat"] if "SYKUBE" in chain]
    # Whatever a person does about the rest, a second init is not in the way of it.
    monkeypatch.delenv("SYKUBE_FAIL_AT")
    world.end(next(iter(world.instances)))
    assert init(world) is not None


@pytest.mark.parametrize(
    "command",
    [
        ("kubeadm", "init", "--config"),
        KUBELET_START,
    ],
    ids=" ".join,
)
def test_a_node_that_dies_under_kubeadm_is_shown_by_kubeadms_error(
    world: World, command: tuple[str, ...]
) -> None:
    died: list[str] = []

    def dies(call: Call) -> bool:
        if call.words[2 : 2 + len(command)] == command:
            died.append(call.words[1])
        return call.kind == "engine" and call.words[0] == "exec" and call.words[1] in died

    world.calls.fail(dies, times=None)
    with unchanged(world), pytest.raises(Injected, match=" ".join(command)):
        init(world)


def test_a_control_plane_that_dies_under_kubeadm_is_shown_by_kubeadms_error(
    world: World,
) -> None:
    world.calls.fail(lambda call: call.words[1:4] == ("fake-master2", "kubeadm", "init"))
    world.calls.fail(
        lambda call: call.kind == "api" and call.words[0] == "DELETE",
        lambda call: ApiError("the API server does not answer", 0),
        times=None,
    )
    with pytest.raises(Injected, match="fake-master2 kubeadm init"):
        init(world, fake_spec(control_planes=3))


# --- --retain ---


@pytest.mark.parametrize(
    "point",
    ["before:data", "before:network", "before:nodes", *(f"after:{step}" for step in STEPS)],
)
def test_a_retained_cluster_is_left_alone_and_resumed(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    fail_at(point, monkeypatch)
    with unchanged(world):
        with pytest.raises(SykubeError, match="made to fail"):
            init(world, retain=True)
        assert not any(call.words[0] == "kill" for call in world.calls.all)
        assert clusters(world.host) == ["fake"]
        # kubeadm init starts from a clean node alone.
        renewed = "fake-master" if point == "after:control-plane" else ""
        resume(world, monkeypatch, STEPS[: STEPS.index(point.split(":")[1])], renewed)
        assert removal.delete(world.host, "fake", world.ui()) == []


def resume(
    world: World, monkeypatch: pytest.MonkeyPatch, done: list[str], renewed: str = ""
) -> None:
    """Init again; what was done is skipped, all else is applied.

    Args:
        renewed: the instance that may be made anew.
    """
    monkeypatch.delenv("SYKUBE_FAIL_AT", raising=False)
    world.calls.faults.clear()
    pids = {name: instance.pid for name, instance in world.instances.items()}
    ui = world.ui()
    cluster = init(world, ui=ui)
    assert cluster is not None
    assert cluster.state.complete
    titles = [title for name, title in TITLES.items() if name not in done or name == "ready"]
    assert ui.steps == [*dict.fromkeys(titles)]
    for name, pid in pids.items():
        assert name == renewed or world.instances[name].pid == pid, "a node was started again"


@pytest.mark.parametrize(
    ("step", "kind", "words", "renewed"),
    [
        ("network", "run", ("iptables-restore",), ""),
        ("nodes", "engine", ("start", "fake-node1"), ""),
        ("nodes", "engine", ("exec", "fake-node1", "sh", "-c"), ""),
        ("control-plane", "engine", ("exec", "fake-master", "kubeadm", "init"), "fake-master"),
        ("control-plane", "engine", ("exec", "fake-master", "cat"), "fake-master"),
        ("dns", "api", ("PATCH",), ""),
        ("join", "api", ("POST", "/api/v1/nodes"), ""),
        ("join", "engine", ("exec", "fake-node1", *KUBELET_START), "fake-node1"),
        ("ready", "dns", ("10.96.0.10", "53"), ""),
    ],
)
def test_a_cluster_retained_in_the_middle_of_a_step_is_resumed(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    kind: str,
    words: tuple[str, ...],
    renewed: str,
) -> None:
    world.calls.fail(
        lambda call: (
            call.step == TITLES[step] and call.kind == kind and call.words[: len(words)] == words
        )
    )
    with unchanged(world):
        with pytest.raises(Injected):
            init(world, retain=True)
        resume(world, monkeypatch, STEPS[: STEPS.index(step)], renewed)
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_a_retained_cluster_says_how_to_go_on_and_keeps_its_logs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at("after:nodes", monkeypatch)
    ui = world.ui()
    with pytest.raises(SykubeError):
        init(world, ui=ui, retain=True)
    assert ROLLBACK not in ui.steps
    assert any("--retain" in line for line in ui.said)
    assert (world.host.logs / "fake/master/sykube/supervisord.log").exists()


def test_a_retained_cluster_can_be_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at("before:ready", monkeypatch)
    with unchanged(world):
        with pytest.raises(SykubeError):
            init(world, retain=True)
        assert removal.delete(world.host, "fake", world.ui()) == []


# --- init on a cluster that is there ---


def test_init_on_a_cluster_that_is_up_changes_nothing(world: World) -> None:
    init(world)
    world.calls.all.clear()
    with unchanged(world):
        assert init(world) is None
    assert {call.words[0] for call in world.calls.all} == {"instances"}


def test_init_on_a_cluster_that_differs_shows_the_differences(world: World) -> None:
    init(world)
    with unchanged(world), pytest.raises(SykubeError, match="not as asked") as raised:
        init(world, fake_spec(workers=2, taint_master=True))
    assert raised.value.details.splitlines() == [
        "workers: 1 → 2 (sykube node add, delete)",
        "taintMaster: False → True",
    ]
    assert "sykube delete" in raised.value.resolution


def test_init_on_a_cluster_whose_nodes_do_not_run_says_which(world: World) -> None:
    init(world)
    world.end("fake-node1")
    with pytest.raises(SykubeError, match="do not run: node1") as raised:
        init(world)
    assert raised.value.exit_code is ExitCode.STOPPED


def test_init_beside_remains_without_a_record_names_the_cure(world: World) -> None:
    world.host.data.joinpath("fake").mkdir(parents=True)
    with unchanged(world), pytest.raises(SykubeError, match="remains") as raised:
        init(world)
    assert raised.value.resolution == "sykube delete --name fake"


# --- delete ---


def test_delete_of_a_cluster_that_is_not_there(world: World) -> None:
    init(world)
    with unchanged(world), pytest.raises(SykubeError, match="no cluster 'absent'") as raised:
        removal.delete(world.host, "absent", world.ui())
    assert raised.value.exit_code is ExitCode.NO_SUCH_CLUSTER
    assert "fake" in raised.value.details
    with pytest.raises(SykubeError) as raised:
        lookup.load(world.host, "absent", world.ui())
    assert raised.value.exit_code is ExitCode.NO_SUCH_CLUSTER


def set_context(world: World, name: str) -> None:
    """Make a context of the user's kubeconfig the current one."""
    file = world.root / "home/.kube/config"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"current-context": name}))


def lose_state(cluster: Cluster) -> None:
    cluster.paths.state.unlink()


def damage_state(cluster: Cluster) -> None:
    cluster.paths.state.write_text('{"version": 1, "spec"')


def lose_folder(cluster: Cluster) -> None:
    shutil.rmtree(cluster.paths.root)


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        (lose_state, 0),
        (damage_state, 1),
        (lose_folder, 0),
    ],
)
def test_delete_without_a_record_finds_what_there_is(
    world: World, damage: Callable[[Cluster], None], problems: int
) -> None:
    set_context(world, "")  # which one was current before is in the record alone
    with unchanged(world):
        cluster = init(world, fake_spec(workers=2))
        assert cluster is not None
        damage(cluster)
        ui = world.ui()
        assert len(removal.delete(world.host, "fake", ui)) == problems
        assert "has no record" in ui.warnings[0]


def test_delete_without_a_record_finds_the_context_of_a_cluster_with_another_subnet(
    world: World,
) -> None:
    set_context(world, "")
    with unchanged(world):
        cluster = init(world, fake_spec(node_subnet="10.77.0.0/24"))
        assert cluster is not None
        lose_state(cluster)
        removal.delete(world.host, "fake", world.ui())


def test_delete_says_what_could_not_be_undone_and_a_second_one_ends_it(world: World) -> None:
    with unchanged(world):
        init(world)
        world.calls.fail(lambda call: call.words[:3] == ("ip", "link", "delete"))
        problems = removal.delete(world.host, "fake", world.ui())
        assert len(problems) == 1
        assert problems[0].startswith("network: ")
        world.calls.faults.clear()
        # The host's settings were put back at the first.
        removal.delete(world.host, "fake", world.ui())


def test_delete_forgets_no_node_that_it_could_not_end(world: World) -> None:
    """Its files are in use, and without a record nothing would find it again."""
    with unchanged(world):
        cluster = init(world)
        assert cluster is not None
        world.calls.fail(lambda call: call.words == ("kill", "fake-node1"), times=None)
        first, second = removal.delete(world.host, "fake", world.ui())
        assert first.startswith("nodes: ")
        pid = world.instances["fake-node1"].pid
        assert second == f"fake-node1 cannot be ended: ps -o pid,stat,wchan,args {pid}"
        assert clusters(world.host) == ["fake"]
        assert cluster.node("node1").exists()
        world.calls.faults.clear()
        assert removal.delete(world.host, "fake", world.ui()) == []
        assert clusters(world.host) == []


def test_delete_finds_nodes_of_a_cluster_of_which_there_is_nothing_else(world: World) -> None:
    set_context(world, "")
    with unchanged(world):
        cluster = init(world)
        assert cluster is not None
        lose_folder(cluster)
        cluster.bridge.remove()
        assert removal.delete(world.host, "fake", world.ui()) == []
        assert not world.instances


def test_delete_twice_at_once_is_refused_by_the_lock(world: World) -> None:
    from sykube.cluster.model.state import locked

    init(world)
    with locked(ClusterPaths(world.host, "fake")), pytest.raises(SykubeError) as raised:
        removal.delete(world.host, "fake", world.ui())
    assert raised.value.exit_code is ExitCode.LOCKED


def test_delete_of_all_clusters_leaves_the_host_as_it_was(world: World) -> None:
    set_context(world, "")
    with unchanged(world):
        for name in ("one", "two", "three"):
            init(world, fake_spec(name))
        assert removal.delete_all(world.host, world.ui()) == []
    assert clusters(world.host) == []


def test_a_cluster_that_is_in_use_does_not_keep_the_others_from_being_deleted(
    world: World,
) -> None:
    from sykube.cluster.model.state import locked

    for name in ("one", "two", "three"):
        init(world, fake_spec(name))
    with locked(ClusterPaths(world.host, "three")):
        (problem,) = removal.delete_all(world.host, world.ui())
    assert problem.startswith("three: another sykube command works on")
    assert clusters(world.host) == ["three"]


def test_delete_gives_back_the_earlier_context(world: World) -> None:
    init(world)
    assert user_context(world) == "fake"
    removal.delete(world.host, "fake", world.ui())
    assert user_context(world) == "work"


# --- two clusters ---


def test_two_clusters_live_side_by_side_and_the_last_restores_the_host(world: World) -> None:
    forward = "net/ipv4/ip_forward"
    set_context(world, "")
    with unchanged(world):
        one, two = init(world, fake_spec("one")), init(world, fake_spec("two"))
        assert one is not None
        assert two is not None
        assert one.state.subnets.nodes != two.state.subnets.nodes
        with_one = {name for name in world.instances if name.startswith("two")}
        assert removal.delete(world.host, "one", world.ui()) == []
        assert world.kernel.sysctl(forward) == "1"
        assert world.kernel.sysctl("vm/overcommit_memory") == "1"
        assert "br_netfilter" in world.kernel.modules
        assert set(world.instances) == with_one
        assert "sk-two" in world.kernel.links
        assert removal.delete(world.host, "two", world.ui()) == []
        assert world.kernel.sysctl(forward) == "0"


def test_the_subnet_of_a_cluster_whose_bridge_is_gone_stays_its_own(world: World) -> None:
    """After a reboot no route of the host speaks for it."""
    one = init(world, fake_spec("one"))
    world.programs.run(["ip", "link", "delete", "dev", "sk-one"])
    two = init(world, fake_spec("two"))
    assert one is not None
    assert two is not None
    assert not one.state.subnets.nodes.overlaps(two.state.subnets.nodes)


@pytest.mark.parametrize(
    "order",
    [["two", "one"], ["one", "two"]],
)
def test_the_context_before_both_clusters_comes_back(world: World, order: list[str]) -> None:
    for name in ("one", "two"):
        init(world, fake_spec(name))
    for name in order:
        removal.delete(world.host, name, world.ui())
    assert user_context(world) == "work"


def test_a_second_cluster_that_fails_leaves_the_first_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(world, fake_spec("one"))
    fail_at("after:kubeconfig", monkeypatch)
    with unchanged(world), pytest.raises(SykubeError, match="made to fail"):
        init(world, fake_spec("two"))


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("one-two", "three"),
        ("one-two", "one"),
    ],
)
def test_a_cluster_is_not_touched_by_one_whose_name_begins_its_own(
    world: World, other: str, name: str
) -> None:
    init(world, fake_spec(other))
    with unchanged(world):
        init(world, fake_spec(name))
        assert removal.delete(world.host, name, world.ui()) == []


# --- before the first step ---


def finding(*packages: str) -> Finding:
    return Finding("programs", Level.FAILURE, "missing: iptables", "apt-get install", packages)


def test_a_host_that_is_not_ready_stops_init_before_any_change(
    world: World,
) -> None:
    world.present.remove("iptables")
    with unchanged(world), pytest.raises(HostError, match="not ready") as raised:
        init(world)
    assert "missing: iptables" in raised.value.details
    assert "apt-get install -y iptables" in raised.value.resolution


def test_missing_packages_are_installed_when_init_may(
    world: World,
) -> None:
    world.present.remove("iptables")

    def apt_get(words: list[str]) -> Answer:
        assert {"update", "install"} & {*words}
        world.present.update(words)
        return 0, "", ""

    world.programs.answers["apt-get"] = apt_get
    lifecycle.init(world.host, fake_spec(), InitOptions(yes=True), world.ui())
    installs = [argv for argv in world.programs.argvs if argv[0] == "apt-get"]
    assert installs[-1][-1] == "iptables"


def test_init_says_what_to_tell_firewalld_about_its_bridge(world: World) -> None:
    def firewalld(words: list[str]) -> Answer:
        assert words == ["--get-zone-of-interface=sk-fake"]
        return 2, "no zone\n", ""

    world.programs.answers["firewall-cmd"] = firewalld
    ui = world.ui()
    lifecycle.init(world.host, fake_spec(), InitOptions(), ui)
    (said,) = (each for each in ui.warnings if "firewalld" in each)
    assert "firewall-cmd --zone=trusted --change-interface=sk-fake --permanent" in said


def test_a_cached_node_image_needs_no_mirror(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host without Debian's sources."""
    monkeypatch.delenv("SYKUBE_MIRROR")
    assert lifecycle.dry_run(world.host, fake_spec(), world.ui())["nodeImage"] != "would be built"
    assert init(world) is not None
    shutil.rmtree(world.root / "cache/node-images")
    with pytest.raises(HostError, match="not ready") as raised:
        init(world, fake_spec("other"))
    assert "no Debian mirror" in raised.value.details


def test_a_missing_node_image_is_built_and_outlives_a_failed_init(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(world.root / "cache")
    fail_at("after:data", monkeypatch)
    with pytest.raises(SykubeError, match="made to fail"):
        init(world)
    built = [argv for argv in world.programs.argvs if argv[1] == "build"]
    names = [Path(argv[-1]).stem for argv in built]
    parts = {"kubernetes", "debian", "runtime", "system", "packages", "container-images"}
    assert {*names} == {*parts, "node"}
    assert len(names) == 7
    assert len(build.list_images(world.host)) == 1


@pytest.mark.parametrize("signed", [True, False])
def test_the_users_own_image_is_taken(world: World, tmp_path: Path, signed: bool) -> None:
    own = tmp_path / "own.sif"
    write_sif(own, "signed" if signed else "mine")
    trust: dict[str, Any] = {"fingerprint": TRUSTED} if signed else {"no_verify": True}
    cluster = init(world, fake_spec(local_image=str(own), **trust))
    assert cluster is not None
    assert cluster.image.sif.read_bytes() == own.read_bytes()
    assert not [argv for argv in world.programs.argvs if argv[1] == "build"]
    assert bool([argv for argv in world.programs.argvs if argv[1] == "verify"]) == signed
    # How it was chosen is no property of the cluster.
    assert init(world, fake_spec(local_image=str(own))) is None


@pytest.mark.parametrize("trust", [{}, {"fingerprint": TRUSTED}])
def test_an_own_image_that_nobody_signed_is_refused_before_any_change(
    world: World, tmp_path: Path, trust: dict[str, Any]
) -> None:
    write_sif(tmp_path / "own.sif", "mine")
    spec = fake_spec(local_image=str(tmp_path / "own.sif"), **trust)
    with unchanged(world), pytest.raises(SykubeError) as raised:
        init(world, spec)
    assert raised.value.exit_code is (ExitCode.UNTRUSTED if trust else ExitCode.USAGE)
    assert not [argv for argv in world.programs.argvs if "exec" in argv]
    if not trust:
        with pytest.raises(UsageError, match="whose signature"):
            lifecycle.dry_run(world.host, spec, world.ui())


def test_an_image_that_this_machine_built_needs_no_signature(world: World, tmp_path: Path) -> None:
    (image,) = build.list_images(world.host)
    (image.folder / "parts.json").write_text('{"definitions/node.def.j2": "x"}')
    shutil.copyfile(image.sif, tmp_path / "own.sif")
    cluster = init(world, fake_spec(local_image=str(tmp_path / "own.sif")))
    assert cluster is not None
    assert cluster.image == image


def test_with_an_own_image_nothing_is_downloaded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sif(tmp_path / "own.sif", "signed")
    world.present -= {"iptables", "apptainer"}
    spec = fake_spec(local_image=str(tmp_path / "own.sif"), fingerprint=TRUSTED)
    with unchanged(world), pytest.raises(HostError, match="not ready") as raised:
        lifecycle.init(world.host, spec, InitOptions(yes=True, ask=lambda _: True), world.ui())
    assert "missing: iptables" in raised.value.details
    assert "no Apptainer that sykube can use" in raised.value.details
    assert "apt-get install -y iptables" in raised.value.resolution
    assert "--yes" not in raised.value.resolution
    assert not any(argv[0] == "apt-get" for argv in world.programs.argvs)

    monkeypatch.delenv("SYKUBE_MIRROR")
    found = lifecycle.dry_run(world.host, spec, world.ui())
    assert found["engine"] == "none"
    bad = [each["what"] for each in found["findings"] if each["level"] == "failure"]
    assert bad == ["programs", "Debian mirror", "engine"]


def test_an_own_image_that_is_none_is_refused_before_any_change(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "own.sif").write_text("no image")
    with unchanged(world), pytest.raises(UsageError, match="is no SIF image"):
        init(world, fake_spec(local_image=str(tmp_path / "own.sif")))


# --- known to be wrong; each mark goes with the repair ---


def full_disk(self: State, path: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", [False, True])
def test_another_clusters_damaged_record_is_in_nobodys_way(world: World, failing: bool) -> None:
    damaged = init(world, fake_spec("one"))
    assert damaged is not None
    if not failing:
        init(world, fake_spec("two"))
        damage_state(damaged)
        assert removal.delete(world.host, "two", world.ui()) == []
        return

    def damage_and_fail(ended: str) -> None:
        if ended == steps.ALL[-1].title:
            damage_state(damaged)
            raise Injected("the first error")

    ui = world.ui()
    ui.at_end = damage_and_fail
    with pytest.raises(Injected, match="the first error"):
        init(world, fake_spec("two"), ui)


def test_a_folder_for_the_engines_networks_that_init_made_goes_again(world: World) -> None:
    with unchanged(world):
        init(world, fake_spec(network_dir=str(world.root / "etc/new/networks")))
        removal.delete(world.host, "fake", world.ui())


def test_the_first_cluster_whose_record_cannot_be_written_leaves_no_folder(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that is full when the record is written, and only then.
    monkeypatch.setattr(State, "save", full_disk)
    with unchanged(world), pytest.raises(OSError, match="No space left"):
        init(world)


def test_the_first_error_is_shown_when_its_folder_cannot_be_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that is full when the record is written, and only then.
    monkeypatch.setattr(State, "save", full_disk)
    world.calls.fail(lambda call: "umount" in call.words)
    with pytest.raises(OSError, match="No space left"):
        init(world, fake_spec(ephemeral=True))


def test_delete_removes_the_locks_of_an_init_that_was_killed_before_all_else(world: World) -> None:
    locks = world.host.locks
    with unchanged(world):
        locks.mkdir(parents=True, exist_ok=True)
        for name in ("fake.lock", "host.lock"):
            (locks / name).write_text("4711")
        with pytest.raises(SykubeError, match="there is no cluster 'fake'"):
            removal.delete(world.host, "fake", world.ui())


def test_delete_leaves_locks_that_are_held(world: World) -> None:
    file = ClusterPaths(world.host, "fake").lock
    with lock.exclusive(file, "the cluster"):
        with pytest.raises(SykubeError, match="there is no cluster 'fake'"):
            removal.delete(world.host, "fake", world.ui())
        assert file.exists()
