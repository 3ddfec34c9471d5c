"""Slurm clusters that scale by themselves: their limits, what may do it, and what it does."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.cluster.commands.slurm import limits, scaling, setup, status
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import ExitCode, UsageError
from sykube.slurm import manifests
from sykube.slurm.spec import SlurmSpec, parse_nodes
from tests.fakes import World
from tests.fakes.slurm import FakeSlurm
from tests.unit.helpers import Sykube, made
from tests.unit.test_slurm import containers, made_of, mounted, pods, role

POWER = Path(__file__).resolve().parents[2] / "definitions/slurm/slurm-power"
AUTO = SlurmSpec("slurm", "sykube.local/slurm:1", nodes=1, most=4, idle=30)
ZERO = dataclasses.replace(AUTO, nodes=0)
MANY = dataclasses.replace(AUTO, users="many", names=("ada", "bob"), auth="munge")
NONE = dataclasses.replace(AUTO, auth="none")
ALL = [AUTO, ZERO, MANY, NONE]


# --- limits ---


@pytest.mark.parametrize(
    ("text", "found"), [("2", (2, 0)), ("0-4", (0, 4)), ("2-2", (2, 2)), ("-1", (-1, 0))]
)
def test_a_number_of_nodes_or_the_least_and_the_most(text: str, found: tuple[int, int]) -> None:
    assert parse_nodes(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("many", "'many' is no number of nodes"),
        ("", "'' is no number of nodes"),
        ("1-", "'1-' is no number of nodes"),
        ("0..4", "'0..4' is no number of nodes"),
        ("0-0", "0-0 nodes: there are 1 to 64 at most"),
        ("0--2", "0--2 nodes: there are 1 to 64 at most"),
        ("-1-4", "-1 nodes: there are 0 to 64"),
        ("0-65", "65 nodes: there are 1 to 64"),
        ("4-2", "4-2 nodes: the least is more than the most"),
        ("0", "0 nodes: there are 1 to 64"),
    ],
)
@pytest.mark.parametrize("command", ["up", "render"])
def test_limits_that_cannot_be_are_one_clear_error(
    sykube: Sykube, world: World, command: str, text: str, why: str
) -> None:
    made(world, workers=0)
    named = ("--name", "fake") if command == "up" else ()
    done = sykube("slurm", command, "--nodes", text, *named)
    assert done.code == ExitCode.USAGE
    assert why in done.err
    assert done.err.count("error: ") == 1


def test_nodes_that_go_at_once_would_never_do_anything(sykube: Sykube) -> None:
    done = sykube("slurm", "render", "--nodes", "0-2", "--idle", "0")
    assert done.code == ExitCode.USAGE
    assert "--idle 0: 1 second at least" in done.err


def test_its_record_has_its_limits_and_one_of_before_scales_by_command() -> None:
    assert SlurmSpec.from_json(AUTO.to_json()) == AUTO
    before = SlurmSpec("slurm", "sykube.local/slurm:1").to_json()
    before = before.replace('"idle": 120, ', "").replace('"most": 0, ', "")
    assert "idle" not in before
    assert "most" not in before
    assert not SlurmSpec.from_json(before).is_automatic


# --- objects ---


@pytest.mark.parametrize("spec", ALL)
def test_there_is_an_object_for_each_node_that_may_come_and_no_pod_yet(spec: SlurmSpec) -> None:
    sets = {e["metadata"]["name"]: e["spec"] for e in made_of(spec, "StatefulSet")}
    assert sorted(sets) == ["c1", "c2", "c3", "c4", "slurmctld"]
    assert {sets[f"c{n}"]["replicas"] for n in range(1, 5)} == {0}
    # Else Slurm would wait until the machine itself has been booted.
    assert pods(spec)["c1"]["containers"][0]["args"] == ["slurmd", "-b"]


@pytest.mark.parametrize("spec", ALL)
def test_slurmctld_may_change_how_many_pods_nodes_have_and_nothing_else(spec: SlurmSpec) -> None:
    (rule,) = made_of(spec, "Role")[0]["rules"]
    assert rule == {
        "apiGroups": ["apps"],
        "resources": ["statefulsets/scale"],
        "resourceNames": ["c1", "c2", "c3", "c4"],
        "verbs": ["patch"],
    }
    (binding,) = made_of(spec, "RoleBinding")
    (account,) = made_of(spec, "ServiceAccount")
    assert [each["name"] for each in binding["subjects"]] == [account["metadata"]["name"]]
    assert made_of(spec, "ClusterRole") == made_of(spec, "ClusterRoleBinding") == []
    for name, pod in pods(spec).items():
        assert pod.get("serviceAccountName") == ("slurmctld" if name == "slurmctld" else None)
        assert not pod["automountServiceAccountToken"]
        for each in containers(pod):
            assert ("account" in mounted(each)) == (each["name"] == "slurmctld")


@pytest.mark.parametrize("spec", ALL)
def test_what_is_mounted_is_there(spec: SlurmSpec) -> None:
    for pod in pods(spec).values():
        names = [each["name"] for each in pod["volumes"]]
        assert {*names} == {name for each in containers(pod) for name in mounted(each)}


def test_slurm_is_told_of_the_least_the_most_and_the_time() -> None:
    conf = made_of(AUTO, "ConfigMap")[0]["data"]["slurm.conf"].splitlines()
    assert "SuspendTime=30" in conf
    assert "SuspendExcNodes=c[1-4]-0:1" in conf
    (slurmctld,) = pods(AUTO)["slurmctld"]["containers"]
    told = {each["name"]: each["value"] for each in slurmctld["env"]}
    assert told == {
        "SLURM_LEAST_NODES": "1",
        "SLURM_MOST_NODES": "4",
        "SLURM_NODE_SIZE": "CPUs=1 RealMemory=960",
    }
    assert "SuspendExcNodes" not in made_of(ZERO, "ConfigMap")[0]["data"]["slurm.conf"]


def test_one_that_scales_by_command_has_none_of_it() -> None:
    text = manifests.whole_text(dataclasses.replace(AUTO, most=0), "QQ==")
    for word in (
        "ServiceAccount\n",
        "Role",
        "Suspend",
        "SLURM_MOST",
        "slurm-account",
        "replicas: 0",
    ):
        assert word not in text


# --- what changes the number of pods ---


def power(
    folder: Path, name: str, nodes: str, answers: list[str], reason: str = "none"
) -> tuple[int, list[str], str]:
    """Run slurm-power by that name: its exit code, what the API was sent, and what was logged."""
    bin_ = folder / "bin"
    bin_.mkdir()
    (folder / "account").mkdir()
    for file, text in {"token": "secret", "namespace": "lab", "ca.crt": ""}.items():
        (folder / "account" / file).write_text(text)
    for number, answer in enumerate(answers):
        (folder / f"answer-{number}").write_text(answer)
    times = f"$(ls {folder} | grep -c sent-)"
    for program, does in {
        "scontrol": f"case $1.$2 in show.hostnames) printf '%s\\n' {nodes} ;;"
        f' show.node) echo "NodeName=$3 State=IDLE Reason={reason} [slurm]" ;;'
        f' *) echo "$@" >> {folder}/told ;; esac',
        "sleep": "exit 0",
        "openssl": f'n={times}; echo "$@" > {folder}/sent-$n; cat >> {folder}/sent-$n;'
        f" cat {folder}/answer-$n",
    }.items():
        (bin_ / program).write_text(f"#!/bin/sh\n{does}\n")
        (bin_ / program).chmod(0o755)
    script = POWER.read_text().replace("/etc/slurm-account", str(folder / "account"))
    (bin_ / name).write_text(script.replace("/proc/1/fd/2", str(folder / "log")))
    # As slurmctld calls it: without the variables of its own.
    done = subprocess.run(
        [shutil.which("sh") or "/bin/sh", str(bin_ / name), "c[1-2]-0"],
        env={"PATH": f"{bin_}:/usr/bin:/bin"},
        check=False,
    )
    log = folder / "log"
    sent = sorted(folder.glob("sent-*"), key=lambda file: int(file.name[5:]))
    return done.returncode, [e.read_text() for e in sent], log.read_text() if log.exists() else ""


OK = "depth=0\nverify return:1\nHTTP/1.0 200 OK\r\n\r\n{}"
BUSY = "HTTP/1.0 500 Internal Server Error\r\n\r\n"


@pytest.mark.parametrize(("name", "count"), [("slurm-resume", 1), ("slurm-suspend", 0)])
def test_slurm_has_the_pods_of_nodes_come_and_go(tmp_path: Path, name: str, count: int) -> None:
    code, sent, log = power(tmp_path, name, "c1-0 c2-0", [OK, OK])
    assert (code, log) == (0, "")
    for number, each in enumerate(sent, start=1):
        options, request = each.split("\n", 1)
        assert "-connect kubernetes.default.svc:443 " in options
        assert "-verify_return_error -verify_hostname kubernetes.default.svc" in options
        head, body = request.split("\n\n", 1)
        lines = head.splitlines()
        path = f"/apis/apps/v1/namespaces/lab/statefulsets/c{number}/scale"
        assert lines[0] == f"PATCH {path} HTTP/1.0"
        assert "Authorization: Bearer secret" in lines
        assert f"Content-Length: {len(body.strip())}" in lines
        assert yaml.safe_load(body) == {"spec": {"replicas": count}}
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        ("slurm-suspend", "its pod stops", "update nodename=c1-0 state=undrain\n"),
        ("slurm-suspend", "broken fan", ""),
        ("slurm-resume", "its pod stops", ""),
    ],
)
def test_a_node_whose_pod_was_deleted_can_come_again_once_it_has_gone(
    tmp_path: Path, name: str, reason: str, told: str
) -> None:
    power(tmp_path, name, "c1-0", [OK], reason)
    found = tmp_path / "told"
    assert (found.read_text() if found.exists() else "") == told


def test_an_api_that_is_away_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    code, sent, log = power(tmp_path, "slurm-resume", "c1-0", ["", BUSY, OK])
    assert (code, len(sent), log) == (0, 3, "")


def test_what_the_api_refuses_is_in_the_log_of_slurmctld(tmp_path: Path) -> None:
    refused = "HTTP/1.0 403 Forbidden\r\n\r\nstatefulsets c1 is forbidden"
    code, sent, log = power(tmp_path, "slurm-resume", "c1-0 c2-0", [*[refused] * 10, OK])
    assert (code, len(sent)) == (1, 11)
    assert log.startswith("slurm-resume: c1-0: ")
    assert "is forbidden" in log


def test_slurmctld_is_told_of_nodes_that_may_come_and_those_that_stay_come(tmp_path: Path) -> None:
    # c2-0 is known, from before.
    scontrol = (
        f'echo "$@" >> {tmp_path}/told; [ "$1 $3" != "show c1-0" ] && [ "$1 $3" != "show c3-0" ]'
    )
    waits = f'until grep -q "power_up" {tmp_path}/told; do :; done'
    role(
        tmp_path,
        "slurmctld",
        programs={"scontrol": scontrol, "slurmctld": waits, "mkdir": "exit 0", "chmod": "exit 0"},
        environment={
            "SLURM_LEAST_NODES": "1",
            "SLURM_MOST_NODES": "3",
            "SLURM_NODE_SIZE": "CPUs=1 RealMemory=448",
        },
    )
    told = (tmp_path / "told").read_text().splitlines()
    assert [each for each in told if not each.startswith(("show", "ping"))] == [
        "create nodename=c1-0 CPUs=1 RealMemory=448 state=cloud",
        "create nodename=c3-0 CPUs=1 RealMemory=448 state=cloud",
        "update nodename=c1-0 state=power_up",
    ]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("IDLE+DYNAMIC_NORM", ["update", "delete"]),
        # Slurm's own entry of it stays, and slurmd of the next pod gives it jobs again.
        ("IDLE+CLOUD+DYNAMIC_NORM", ["update"]),
        ("IDLE+CLOUD+DYNAMIC_NORM+POWERING_DOWN", []),
        ("IDLE+CLOUD+DYNAMIC_NORM+POWERED_DOWN", []),
        ("IDLE+DRAIN+DYNAMIC_NORM", []),
    ],
)
def test_a_pod_that_ends_asks_for_what_slurm_has_not_done(
    tmp_path: Path, state: str, told: list[str]
) -> None:
    scontrol = (
        f'case $1 in show) echo "NodeName=c1-0 State={state} ThreadsPerCore=1" ;;'
        f' *) echo "$1" >> {tmp_path}/told ;; esac'
    )
    role(tmp_path, "drain", programs={"scontrol": scontrol, "squeue": "exit 0"})
    found = tmp_path / "told"
    assert (found.read_text().split() if found.exists() else []) == told


# --- commands ---


@pytest.fixture
def slurm() -> FakeSlurm:
    """A Slurm cluster of which one node of four has a pod."""
    found = FakeSlurm()
    found.sets, found.asleep = {"c1"}, {"c2", "c3", "c4"}
    found.nodes = {f"c{number}-0": ("idle~", "") for number in range(1, 5)}
    found.nodes["c1-0"] = ("idle", "")
    node = {"status": {"allocatable": {"cpu": "2", "memory": f"{8 * 1024**2}Ki"}}}
    found.objects = {
        "/api/v1/nodes": {"items": [node]},
        "/apis/storage.k8s.io/v1/storageclasses": {"items": [{"metadata": {"name": "shared"}}]},
        "/api/v1/namespaces/slurm/configmaps/slurm": manifests.objects(AUTO, "QQ==", owned=True)[2],
    }
    return found


@pytest.fixture
def place(world: World, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Place:
    cluster = made(world, workers=0)
    world.programs.answers["kubectl"] = slurm.kubectl
    world.stride = 0.0
    there = Place(cluster, "slurm", slurm)

    @contextlib.contextmanager
    def found(*_: object) -> Iterator[Place]:
        yield there

    monkeypatch.setattr(setup, "at", found)
    monkeypatch.setattr(scaling, "at", found)
    monkeypatch.setattr(limits, "at", found)
    return there


@pytest.mark.parametrize("state", ["idle~", "idle#", "allocated#", "idle%", "allocated"])
def test_nodes_that_come_and_go_are_as_they_should_be(
    place: Place, slurm: FakeSlurm, state: str
) -> None:
    slurm.nodes["c2-0"] = (state, "")
    assert setup.whole_problem(place, AUTO) == ""
    assert place.numbers() == [1]


def test_a_pod_on_its_way_is_no_problem_until_slurm_gives_it_up(
    place: Place, slurm: FakeSlurm
) -> None:
    slurm.sets.add("c2")
    slurm.unready = {"c2-0": "0/1 nodes are available: 1 Insufficient memory."}
    slurm.nodes["c2-0"] = ("allocated#", "")
    assert setup.whole_problem(place, AUTO) == ""
    slurm.nodes["c2-0"] = ("down~", "ResumeTimeout reached")
    problem = setup.whole_problem(place, AUTO)
    assert problem == (
        "nodes of Slurm: c2-0: down~ (0/1 nodes are available: 1 Insufficient memory.)"
    )


def test_as_many_as_there_are_to_be_at_least_are_waited_for(place: Place, slurm: FakeSlurm) -> None:
    slurm.nodes["c1-0"] = ("idle#", "")
    assert setup.whole_problem(place, AUTO) == "0 of 1 nodes are there"
    assert setup.whole_problem(place, ZERO) == ""
    del slurm.nodes["c4-0"]
    assert setup.whole_problem(place, ZERO) == "nodes of Slurm: c4-0: not registered"


def up(place: Place, spec: SlurmSpec) -> SlurmSpec | None:
    return setup.up(place.cluster.host, "fake", spec, lambda _: False, place.cluster.ui)


def test_it_is_there_with_its_limits_and_another_up_ends_no_node(
    place: Place, slurm: FakeSlurm
) -> None:
    assert up(place, AUTO) is None
    slurm.asleep.remove("c4")
    slurm.nodes.pop("c4-0")
    slurm.objects["/api/v1/namespaces/slurm/secrets/slurm-key"] = {"data": {"slurm.key": "QQ=="}}
    setup.set_up(place, AUTO, new=False)
    assert (slurm.sets, slurm.asleep) == ({"c1"}, {"c2", "c3", "c4"})


@pytest.mark.parametrize("changed", [{"nodes": 0}, {"most": 3}, {"idle": 60}, {"most": 0}])
def test_other_limits_are_other_options(place: Place, changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has other options") as caught:
        up(place, dataclasses.replace(AUTO, **changed))
    assert caught.value.details.startswith(
        "scales: by itself, 1 to 4 nodes, idle for 30 s, and not "
    )


def test_there_must_be_room_for_the_most(place: Place, slurm: FakeSlurm) -> None:
    del slurm.objects["/api/v1/namespaces/slurm/configmaps/slurm"]
    with pytest.raises(UsageError, match="no room for 9 nodes of 1Gi, only for 8"):
        up(place, dataclasses.replace(AUTO, most=9))
    assert slurm.said == []


@pytest.mark.parametrize("count", [0, 3])
def test_its_number_of_nodes_is_not_set_by_hand(place: Place, slurm: FakeSlurm, count: int) -> None:
    with pytest.raises(UsageError, match="scales by itself: it has 1 to 4 nodes"):
        scaling.scale(place.cluster.host, "fake", "slurm", count, place.cluster.ui)
    assert slurm.said == slurm.deleted == []
    assert slurm.sets == {"c1"}


# --- other limits ---


@pytest.fixture
def keyed(place: Place, slurm: FakeSlurm) -> Place:
    slurm.objects["/api/v1/namespaces/slurm/secrets/slurm-key"] = {"data": {"slurm.key": "QQ=="}}
    return place


def limit(place: Place, least: int, most: int) -> scaling.Scaled:
    return limits.set_limits(place.cluster.host, "fake", "slurm", least, most, place.cluster.ui)


def test_it_may_get_more_nodes_and_keeps_those_that_it_has(keyed: Place, slurm: FakeSlurm) -> None:
    assert limit(keyed, 0, 6) == scaling.Scaled(added=("c5-0", "c6-0"))
    assert (slurm.sets, slurm.asleep) == ({"c1"}, {"c2", "c3", "c4", "c5", "c6"})
    assert keyed.spec() == dataclasses.replace(AUTO, nodes=0, most=6)
    assert slurm.ended == slurm.deleted == []


def test_nodes_above_the_most_go_when_their_jobs_have_ended(keyed: Place, slurm: FakeSlurm) -> None:
    slurm.asleep.remove("c4")
    slurm.sets.add("c4")
    slurm.nodes["c4-0"] = ("idle", "")
    slurm.work = {"c1-0": 99, "c4-0": 12}
    assert limit(keyed, 1, 2) == scaling.Scaled(removed=("c3-0", "c4-0"))
    assert (slurm.sets, slurm.asleep) == ({"c1"}, {"c2"})
    assert sorted(slurm.nodes) == ["c1-0", "c2-0"]
    assert slurm.ended == []


def test_what_was_interrupted_is_completed(keyed: Place, slurm: FakeSlurm) -> None:
    slurm.asleep.remove("c4")
    slurm.nodes["c4-0"] = ("drained~", "sykube slurm scale")
    assert limit(keyed, 1, 3) == scaling.Scaled(removed=("c4-0",))
    assert sorted(slurm.nodes) == ["c1-0", "c2-0", "c3-0"]


def test_whoever_stops_waiting_leaves_the_limits_as_they_were(
    keyed: Place, slurm: FakeSlurm
) -> None:
    slurm.asleep.remove("c4")
    slurm.sets.add("c4")
    slurm.nodes["c4-0"] = ("idle", "")
    slurm.work = {"c4-0": 10_000}

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    keyed.cluster.host = dataclasses.replace(keyed.cluster.host, sleep=interrupt)
    with pytest.raises(KeyboardInterrupt):
        limit(keyed, 0, 2)
    assert [slurm.nodes[f"c{n}-0"][0] for n in (3, 4)] == ["idle~", "idle"]
    assert keyed.spec() == AUTO
    assert slurm.deleted == []


@pytest.mark.parametrize(
    ("least", "most", "why"),
    [
        (3, 2, "3-2 nodes: the least is more than the most"),
        (0, 65, "65 nodes: there are 1 to 64"),
        (-1, 2, "-1 nodes: there are 0 to 64"),
        (0, 9, "no room for 9 nodes"),
    ],
)
def test_limits_that_it_cannot_have_change_nothing(
    keyed: Place, slurm: FakeSlurm, least: int, most: int, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        limit(keyed, least, most)
    assert slurm.said == slurm.deleted == []
    assert keyed.spec() == AUTO


def test_the_same_limits_are_no_change(keyed: Place, slurm: FakeSlurm) -> None:
    assert limit(keyed, 1, 4) == scaling.Scaled()
    assert slurm.said == []


def test_one_with_a_number_of_nodes_has_no_limits(keyed: Place, slurm: FakeSlurm) -> None:
    of_before = dataclasses.replace(AUTO, most=0)
    slurm.apply(manifests.objects(of_before, "QQ==", owned=True)[2])
    with pytest.raises(UsageError, match="has a number of nodes, and no limits"):
        limit(keyed, 0, 4)
    assert slurm.said == []


def test_limits_take_no_force(sykube: Sykube, world: World) -> None:
    made(world, workers=0)
    done = sykube("slurm", "scale", "0-2", "--force", "--name", "fake")
    assert done.code == ExitCode.USAGE
    assert "--force is for a number of nodes" in done.err


@pytest.mark.parametrize(
    ("status_", "why"),
    [
        ({"observedGeneration": 1, "currentRevision": "a", "updateRevision": "a"}, "of before"),
        ({"observedGeneration": 2, "currentRevision": "a", "updateRevision": "b"}, "of before"),
        ({"observedGeneration": 2, "currentRevision": "b", "updateRevision": "b"}, ""),
    ],
)
def test_a_slurmctld_with_other_options_is_waited_for(
    place: Place, slurm: FakeSlurm, status_: dict[str, Any], why: str
) -> None:
    slurm.objects["/apis/apps/v1/namespaces/slurm/statefulsets/slurmctld"] = {
        "metadata": {"generation": 2},
        "status": status_,
    }
    problem = setup.whole_problem(place, AUTO)
    assert why in problem
    assert bool(problem) == bool(why)


def test_status_has_its_limits(place: Place, slurm: FakeSlurm) -> None:
    found = status.collect(place)
    assert found.to_dict()["automatic"] == {"least": 1, "most": 4, "idle_seconds": 30}
    assert found.exit_code == ExitCode.OK
    assert [each.on for each in found.nodes] == ["lab-master", "", "", ""]
