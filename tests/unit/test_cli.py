"""The command line as a person types it: arguments, results, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sykube.cli import hints, main
from sykube.cli.commands import COMMANDS
from sykube.cluster.commands import lifecycle
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State, locked
from sykube.errors import ExitCode
from sykube.host.paths import ClusterPaths
from sykube.host.run import CommandError
from tests import containers
from tests.containers import Image
from tests.fakes import World
from tests.fakes.image import add_image
from tests.unit.helpers import Sykube

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def up(world: World, sykube: Sykube) -> World:
    """A host with the clusters `sykube` and `lab`."""
    for name in ("sykube", "lab"):
        spec = ClusterSpec(name=name, dns=("192.0.2.1",))
        lifecycle.init(world.host, spec, InitOptions(), world.ui())
    world.calls.all.clear()
    return world


# --- wrong use ---


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["strat"], "Did you mean `sykube start`?"),
        (["create", "cluster"], "Did you mean `sykube init`?"),
        (["get", "pods"], "Did you mean `sykube list` or `sykube kubectl get`?"),
        (["xyzzy"], "No such command 'xyzzy'.\n"),
        (["stop", "lab"], "argument (lab)\nA cluster is named by an option: sykube stop --name"),
        (["list", "lab"], "argument (lab)\n"),
    ],
)
def test_a_command_of_another_tool_and_a_cluster_without_its_option_have_a_hint(
    world: World, sykube: Sykube, arguments: list[str], hint: str
) -> None:
    result = sykube(*arguments)
    assert result.code == ExitCode.USAGE
    assert hint in result.err


def test_what_is_named_instead_of_another_tools_command_is_there() -> None:
    assert not hints.ELSEWHERE.keys() & COMMANDS.keys()
    named = re.findall(
        r"`sykube ([\w-]+)", " ".join(hints.for_command(each, COMMANDS) for each in hints.ELSEWHERE)
    )
    assert len(named) > len(hints.ELSEWHERE)
    assert set(named) <= COMMANDS.keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "--no-such-option"],
        ["init", "extra"],
        ["init", "--workers", "many"],
        ["no-such-command"],
        ["delete", "--output", "json"],
        ["status", "-o", "xml"],
        ["run"],
        ["run", "--workers", "0"],
        ["exec"],
        ["exec", "master"],
        ["doctor", "--workers", "-1"],
        ["shell", "master", "extra"],
        ["stop", "--grace", "-1"],
        ["stop", "--grace", "soon"],
        ["stop", "--drain-timeout", "0"],
        ["start", "--drain"],
        ["pause", "node1"],
        ["node", "add", "--count", "0"],
        ["node", "delete"],
        ["node", "delete", "node1", "--timeout", "0"],
        ["autostart", "start"],
        ["delete", "node1"],
        ["image", "load"],
        ["image", "delete"],
        ["image", "list", "extra"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2_and_changes_nothing(
    world: World, sykube: Sykube, arguments: list[str]
) -> None:
    before = world.snapshot()
    result = sykube(*arguments)
    assert result.code == ExitCode.USAGE
    assert result.out == ""
    assert "Error: " in result.err
    assert world.snapshot() == before
    assert world.calls.all == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init", "--workers", "-1"], "the number of workers must be from 0 to"),
        (["init", "--workers", "1000"], "not 1000"),
        (["init", "--name", "A_b"], "'A_b' is not a DNS label"),
        (["delete", "--name", "../etc"], "'../etc' is not a DNS label"),
        (["status", "--name", "A"], "is not a DNS label"),
        (["kubectl", "--name", "A", "get", "pods"], "is not a DNS label"),
        (["init", "--node-subnet", "10.0.0.0/30"], "too small"),
        (["init", "--config", "/no/such/file"], "cannot read /no/such/file"),
        (["init", "--dns", "x"], "'x' is neither an IP address nor 'none'"),
    ],
)
def test_bad_values_are_exit_code_2_with_what_is_wrong(
    world: World, sykube: Sykube, arguments: list[str], words: str
) -> None:
    result = sykube(*arguments)
    assert result.code == ExitCode.USAGE
    assert words in result.err
    assert world.calls.all == []


def test_options_with_an_open_quote_are_wrong_use(world: World, sykube: Sykube) -> None:
    assert sykube("init", "--options", "--bind '/a").code == ExitCode.USAGE


def test_relative_paths_are_those_of_the_callers_folder(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def recorded(name: str) -> ClusterSpec:
        state = State.load(ClusterPaths(world.host, name).state)
        assert state
        return state.spec

    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("name: lab\nworkers: 3\n")
    arguments = [
        "--config",
        "c.yaml",
        "--dest",
        "data",
        "--workers",
        "2",
        "--options",
        "--nv -B /a",
    ]
    assert sykube("init", *arguments, "--dns", "192.0.2.1", "--dns", "192.0.2.2").code == 0
    spec = recorded("lab")
    assert spec.dest == str(tmp_path / "data")
    assert (spec.name, spec.workers) == ("lab", 2)
    assert spec.options == ("--nv", "-B", "/a")
    assert spec.dns == ("192.0.2.1", "192.0.2.2")
    assert spec.ephemeral is False
    assert spec.pod_network == "bridge"
    (tmp_path / "cni.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
    networks = (("one", "none", "none"), ("two", "cni.yaml", str(tmp_path / "cni.yaml")))
    for name, given, pod_network in networks:
        done = sykube("init", "--name", name, "--pod-network", given, "--dns", "192.0.2.1")
        assert done.code == 0, done.err
        assert recorded(name).pod_network == pod_network


# --- who and where ---

NEED_ROOT = [
    ["init"],
    ["init", "--dry-run"],
    ["run", "true"],
    ["delete"],
    ["status"],
    ["list"],
    ["kubectl", "get", "pods"],
    ["exec", "master", "true"],
    ["shell"],
    ["config"],
    ["doctor"],
    ["stop"],
    ["start"],
    ["restart"],
    ["pause"],
    ["unpause"],
    ["node", "add"],
    ["node", "delete", "node1"],
    ["node", "list"],
    ["autostart", "enable"],
    ["autostart", "disable"],
    ["delete", "--all"],
    ["uninstall", "--yes"],
    ["node-image", "build"],
    ["node-image", "prune"],
]


@pytest.mark.parametrize("arguments", NEED_ROOT, ids=" ".join)
def test_without_root_the_hint_is_sudo(sykube: Sykube, arguments: list[str]) -> None:
    result = sykube(*arguments, user=1000)
    assert result.code == ExitCode.USAGE
    assert "needs root" in result.err
    assert "sudo" in result.err
    assert result.out == ""


@pytest.mark.parametrize("arguments", NEED_ROOT, ids=" ".join)
def test_on_a_foreign_processor_the_host_is_not_ready(
    sykube: Sykube, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("SYKUBE_TEST_MACHINE", "riscv64")
    result = sykube(*arguments)
    assert result.code == ExitCode.HOST_NOT_READY
    assert "riscv64" in result.err


def test_help_and_version_need_nobody(sykube: Sykube) -> None:
    result = sykube("--help", user=1000)
    assert result.code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name}  ", result.out, re.MULTILINE), name
    assert sykube("init", "-h").code in (0, 2)
    shown = json.loads(sykube("version", "--output", "json").out)
    assert shown["kubernetes"] == "1.20.2"
    assert sykube("version").out.splitlines()[1] == "kubernetes 1.20.2"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_there_and_says_what_it_does(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert command.get_short_help_str(limit=1000) == COMMANDS[name][1]
    for option in command.params:
        if isinstance(option, click.Option) and "--help" not in option.opts:
            assert option.help, f"{name} {option.opts}"


# --- init, delete and looking ---


def test_init_says_on_stderr_what_it_does_and_what_to_try(world: World, sykube: Sykube) -> None:
    result = sykube("init", "--name", "lab", "--dns", "192.0.2.1")
    assert result.code == 0, result.err
    assert result.out == ""
    assert "done: Setting up the network" in result.err
    assert "sykube kubectl --name lab get nodes" in result.err
    assert (world.host.logs / "lab.log").stat().st_mode & 0o777 == 0o600
    again = sykube("init", "--name", "lab", "--dns", "192.0.2.1")
    assert again.code == 0
    assert "The cluster lab is up." in again.err


def test_init_without_a_pod_network_says_what_to_do_next(world: World, sykube: Sykube) -> None:
    result = sykube("init", "--name", "lab", "--dns", "192.0.2.1", "--pod-network", "none")
    assert result.code == 0, result.err
    assert "no CNI plugin is installed (--pod-network none)" in result.err
    assert "docs/pod-network.md" in result.err
    assert "sykube kubectl --name lab apply -f YOUR-CNI.yaml" in result.err


def test_results_for_machines_are_json_and_nothing_else(world: World, sykube: Sykube) -> None:
    result = sykube("init", "--output", "json", "--dns", "192.0.2.1")
    shown = json.loads(result.out)
    assert (shown["name"], shown["created"]) == ("sykube", True)
    assert "Setting up the network" in shown["seconds"]
    again = json.loads(sykube("init", "-o", "json", "-q", "--dns", "192.0.2.1").out)
    assert again["created"] is False
    (listed,) = json.loads(sykube("list", "-o", "json").out)
    assert listed == {"name": "sykube", "state": "running", "nodes": 2, "kubernetes": "v1.20.2"}
    assert json.loads(sykube("status", "-o", "json").out)["status"] == "healthy"
    assert json.loads(sykube("doctor", "-o", "json").out)["engine"]["version"] == "apptainer 1.4.5"
    (image,) = json.loads(sykube("node-image", "list", "-o", "json").out)
    assert image["versions"]["kubernetes"] == "v1.20.2"
    dry = json.loads(sykube("init", "--name", "other", "--dry-run", "-o", "json").out)
    assert dry["subnets"]["nodes"] == "10.11.12.0/24"


def test_quiet_says_nothing(world: World, sykube: Sykube) -> None:
    result = sykube("init", "-q", "--dns", "192.0.2.1")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_a_failed_init_says_why_and_where_the_log_is(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:nodes")
    result = sykube("init", "--dns", "192.0.2.1")
    assert result.code == ExitCode.FAILED
    lines = result.err.splitlines()
    assert "error: made to fail at after:nodes" in lines
    assert any(line.startswith("what to do: ") for line in lines)
    assert lines[-1] == f"log: {world.host.logs}/sykube.log"
    assert "made to fail at after:nodes" in (world.host.logs / "sykube.log").read_text()


def test_an_interrupted_init_ends_with_130(world: World, sykube: Sykube) -> None:
    world.calls.fail(lambda call: call.words[0] == "start", lambda _: KeyboardInterrupt())
    result = sykube("init", "--dns", "192.0.2.1")
    assert result.code == ExitCode.INTERRUPTED
    assert "error: interrupted" in result.err
    assert world.instances == {}


def test_a_bug_is_one_clear_line(world: World, sykube: Sykube) -> None:
    world.calls.fail(lambda _: True, lambda _: ZeroDivisionError("division by zero"))
    result = sykube("init")
    assert result.code == ExitCode.FAILED
    assert "sykube itself failed: ZeroDivisionError: division by zero" in result.err


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/var/lib/sykube/x"),
        OSError(122, "Disk quota exceeded"),
        CommandError("apptainer failed", ["sh"], "cannot create x: No space left on device"),
        CommandError("unsquashfs failed", ["sh"], "cannot create x: Disk quota exceeded"),
    ],
    ids=["disk", "quota", "in a node", "quota in a program"],
)
def test_a_full_disk_is_said_without_a_traceback(
    error: Exception, world: World, sykube: Sykube
) -> None:
    world.calls.fail(lambda call: call.words[0] == "start", lambda _: error)
    result = sykube("init")
    assert result.code == ExitCode.FAILED
    assert result.err.count("No space left on device") + result.err.count("quota exceeded") == 1
    assert "what to do: A disk is full, or a quota used up. Make room in" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["delete"],
        ["status"],
        ["kubectl", "get", "pods"],
        ["exec", "master", "ls"],
        ["shell"],
        ["config"],
        ["stop"],
        ["start"],
        ["restart"],
        ["pause"],
        ["unpause"],
        ["node", "add"],
        ["node", "delete", "node1"],
        ["node", "list"],
        ["autostart", "enable"],
        ["autostart", "disable"],
        ["addons", "list"],
        ["addons", "enable", "storage"],
        ["addons", "disable", "storage"],
        ["runtimes"],
        ["port", "list"],
        ["port", "add", "8080:80"],
        ["port", "delete", "8080"],
        ["service", "web"],
        ["image", "load", "web.tar"],
        ["image", "list"],
        ["image", "delete", "web"],
        ["certs", "list"],
        ["certs", "renew"],
        ["update"],
        ["snapshot", "save"],
        ["logs"],
        ["env"],
        ["dashboard"],
    ],
    ids=" ".join,
)
def test_a_cluster_that_is_not_there(recorded: World, sykube: Sykube, arguments: list[str]) -> None:
    command, rest = arguments[:1], arguments[1:]
    if isinstance(main.cli.get_command(click.Context(main.cli), command[0]), click.Group):
        command, rest = arguments[:2], arguments[2:]
    result = sykube(*command, "--name", "absent", *rest)
    assert result.code == ExitCode.NO_SUCH_CLUSTER
    assert "there is no cluster 'absent'" in result.err
    assert "lab, sykube" in result.err
    assert not (recorded.host.logs / "absent.log").exists()


def test_delete_and_list(up: World, sykube: Sykube) -> None:
    assert [line.split()[0] for line in sykube("list").out.splitlines()] == ["lab", "sykube"]
    assert sykube("delete", "--name", "lab").code == 0
    (line,) = sykube("list").out.splitlines()
    assert line.split() == ["sykube", "running", "2", "nodes", "v1.20.2"]
    up.calls.fail(lambda call: call.words[:3] == ("ip", "link", "delete"))
    result = sykube("delete", "-y")
    assert result.code == ExitCode.FAILED
    assert "not all is as it was" in result.err
    assert "network: " in result.err


@pytest.mark.parametrize("which", ["--all", "--name=lab"])
def test_delete_that_cannot_end_a_node_says_that_the_cluster_is_still_there(
    up: World, sykube: Sykube, which: str
) -> None:
    up.calls.fail(lambda call: call.words == ("kill", "lab-node1"), times=None)
    result = sykube("delete", which)
    assert result.code == ExitCode.FAILED
    assert "not deleted: lab; " in result.err
    assert "lab-node1 cannot be ended: ps " in result.err
    assert "lab" in sykube("list").out.split()


def test_files_have_the_modes_that_sykube_names_and_kubectls_those_of_the_caller(
    up: World, sykube: Sykube
) -> None:
    seen: list[int] = []

    def look(*_: object) -> None:
        seen.append(os.umask(0))
        os.umask(seen[-1])

    up.programs.become = look
    before = os.umask(0o027)
    try:
        sykube("list")
        look()
        os.umask(0o027)
        sykube("kubectl", "get", "nodes")
    finally:
        os.umask(before)
    assert seen == [0o022, 0o027]


def test_status_ends_with_the_state_of_the_cluster(up: World, sykube: Sykube) -> None:
    result = sykube("status")
    assert result.code == 0
    assert result.out.splitlines()[0] == "cluster sykube: healthy (Kubernetes v1.20.2)"
    assert re.search(r"^  master +10\.11\.11\.2 +1 MB +v1\.20\.2 +Ready$", result.out, re.MULTILINE)
    assert "containerd running, kubelet running" in result.out
    assert "  API server: healthy\n" in result.out
    up.end("sykube-node1")
    result = sykube("status")
    assert result.code == ExitCode.DEGRADED
    assert re.search(
        r"^  node1 +10\.11\.11\.3 +1 MB +v1\.20\.2 +stopped$", result.out, re.MULTILINE
    )
    up.end("sykube-master")
    assert sykube("status").code == ExitCode.STOPPED
    assert sykube("status", "--name", "lab").code == 0


def test_uninstall_refuses_while_there_are_clusters(up: World, sykube: Sykube) -> None:
    result = sykube("uninstall", "--yes")
    assert result.code == ExitCode.FAILED
    assert "lab, sykube" in result.err
    assert (up.root / "cache/node-images").exists()
    for name in ("sykube", "lab"):
        sykube("delete", "--name", name)
    assert sykube("uninstall", "--yes").code == 0
    assert not (up.root / "cache").exists()
    assert not up.host.logs.exists()


@pytest.mark.parametrize("typed", ["", "n\n", "\n"])
def test_uninstall_asks_and_takes_no_answer_for_no(
    world: World, sykube: Sykube, typed: str
) -> None:
    result = sykube("uninstall", stdin=io.StringIO(typed))
    assert result.code == ExitCode.INTERRUPTED
    assert result.out == ""
    assert (world.root / "cache").exists()


def test_uninstall_goes_on_when_told_so(world: World, sykube: Sykube) -> None:
    assert sykube("uninstall", stdin=io.StringIO("y\n")).code == 0
    assert not (world.root / "cache").exists()


def test_doctor_ends_with_whether_the_host_is_ready(world: World, sykube: Sykube) -> None:
    assert sykube("doctor").code == 0
    world.present.remove("ip")
    result = sykube("doctor")
    assert result.code == ExitCode.HOST_NOT_READY
    assert "failure  programs: missing: ip" in result.out
    assert "→ apt-get install -y iproute2" in result.out
    assert json.loads(sykube("doctor", "-o", "json").out)["findings"][0]["level"] == "failure"


def test_prune_keeps_the_images_of_clusters_and_the_newest(up: World, sykube: Sykube) -> None:
    cache = up.root / "cache"
    used = next((cache / "node-images").iterdir())
    os.utime(used / "complete", (1_000, 1_000))
    old, new = add_image(cache, "0" * 16), add_image(cache, "f" * 16)
    os.utime(old.folder / "complete", (2_000, 2_000))
    assert sykube("node-image", "prune").out.split() == [str(old.folder)]
    assert sykube("node-image", "prune", "--all").out.split() == [str(new.folder)]
    assert used.exists()


# --- the power switch ---


def test_stop_and_start_say_what_they_did_and_repeat_without_harm(
    up: World, sykube: Sykube
) -> None:
    for command, words in (
        ("stop", "The cluster lab is stopped."),
        ("stop", "The cluster lab was stopped already."),
        ("start", "The cluster lab is up."),
        ("start", "The cluster lab is up, as it was."),
        ("restart", "The cluster lab is up."),
    ):
        result = sykube(command, "--name", "lab")
        assert (result.code, result.out) == (0, ""), result.err
        assert result.err.splitlines()[-1] == words
    assert len(up.instances) == 4


def test_restart_is_a_stop_and_a_start(up: World, sykube: Sykube) -> None:
    pids = {name: instance.pid for name, instance in up.instances.items()}
    assert sykube("restart", "--grace", "0").code == 0
    renewed = {name for name, instance in up.instances.items() if instance.pid != pids[name]}
    assert renewed == {"sykube-master", "sykube-node1"}


def test_the_options_of_stop_reach_nodes_and_kubectl(up: World, sykube: Sykube) -> None:
    assert sykube("stop", "--grace", "7", "--drain", "--drain-timeout", "9").code == 0
    graces = [c.words[-1] for c in up.calls.all if "stop-containers" in c.words]
    assert graces == ["7"] * 4
    (drained,) = [call for call in up.calls.all if "drain" in call.words]
    assert drained.words[-1] == "--timeout=9s"


def test_pause_and_unpause_say_what_they_did(up: World, sykube: Sykube) -> None:
    result = sykube("pause")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines()[-1] == "The cluster sykube is paused."
    assert sykube("status").code == ExitCode.STOPPED
    result = sykube("unpause")
    assert result.err.splitlines()[-1] == "The cluster sykube goes on."
    assert sykube("status").code == 0
    assert sykube("unpause").code == ExitCode.FAILED


def test_a_cluster_that_is_stopped_cannot_be_paused_and_its_status_says_so(
    up: World, sykube: Sykube
) -> None:
    sykube("stop")
    result = sykube("pause")
    assert result.code == ExitCode.STOPPED
    assert "what to do: sykube start" in result.err
    shown = sykube("status")
    assert shown.code == ExitCode.STOPPED
    assert shown.out.splitlines()[0] == "cluster sykube: stopped (Kubernetes v1.20.2)"
    # What cannot be known of a stopped cluster is not said to be well.
    assert "healthy" not in shown.out
    assert json.loads(sykube("status", "-o", "json").out)["status"] == "stopped"


@pytest.mark.parametrize("command", ["stop", "start", "restart", "pause", "unpause"])
def test_while_another_command_works_on_the_cluster_it_is_exit_code_7(
    up: World, sykube: Sykube, command: str
) -> None:
    with locked(ClusterPaths(up.host, "sykube")):
        result = sykube(command)
    assert result.code == ExitCode.LOCKED
    assert "another sykube command works on the cluster sykube" in result.err


# --- nodes that come and go ---


def test_nodes_join_and_leave(up: World, sykube: Sykube) -> None:
    result = sykube("node", "add", "--name", "lab", "--count", "2")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines()[-1] == "node2, node3 joined the cluster lab."
    result = sykube("node", "delete", "node2", "--name", "lab", "--timeout", "5")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines()[-1] == "node2 left the cluster lab."
    (drained,) = [call for call in up.calls.all if "drain" in call.words]
    assert drained.words[-1] == "--timeout=5s"
    lines = sykube("node", "list", "--name", "lab").out.splitlines()
    assert [line.split()[0] for line in lines] == ["master", "node1", "node3"]
    assert lines[-1].split() == ["node3", "10.11.12.5", "1", "MB", "Ready"]


def test_nodes_for_machines(up: World, sykube: Sykube) -> None:
    assert json.loads(sykube("node", "add", "-o", "json").out) == ["node2"]
    shown = json.loads(sykube("node", "list", "-o", "json").out)
    assert [each["name"] for each in shown] == ["master", "node1", "node2"]
    assert {each["state"] for each in shown} == {"running"}


def test_a_node_that_does_not_run_leaves_by_force(up: World, sykube: Sykube) -> None:
    up.end("sykube-node1")
    assert sykube("node", "delete", "node1").code == ExitCode.STOPPED
    assert sykube("node", "delete", "node1", "--force").code == 0


@pytest.mark.parametrize("node", ["master", "node7"])
def test_a_node_that_cannot_leave_is_wrong_use(up: World, sykube: Sykube, node: str) -> None:
    result = sykube("node", "delete", node)
    assert result.code == ExitCode.USAGE
    assert "only workers can be removed" in result.err


def test_an_interrupted_add_ends_with_130_and_without_the_node(up: World, sykube: Sykube) -> None:
    up.calls.fail(lambda call: call.words[0] == "start", lambda _: KeyboardInterrupt())
    assert sykube("node", "add").code == ExitCode.INTERRUPTED
    assert "sykube-node2" not in up.instances


# --- autostart ---


def test_autostart_is_switched_on_and_off(up: World, sykube: Sykube) -> None:
    up.systemd = True
    up.path("/run/systemd/system").mkdir(parents=True)
    result = sykube("autostart", "enable")
    assert (result.code, result.out) == (0, "")
    assert "/etc/systemd/system/sykube-sykube.service" in result.err
    assert "does not run here" not in result.err
    words = [sykube("autostart", "disable").err.splitlines()[-1] for _ in range(2)]
    assert words == [
        "The cluster sykube no longer starts with the host.",
        "The cluster sykube did not start with the host.",
    ]


def test_autostart_says_where_systemd_does_not_run(up: World, sykube: Sykube) -> None:
    up.systemd = True
    result = sykube("autostart", "enable")
    assert result.code == 0
    assert "systemd does not run here" in result.err


def test_autostart_on_a_host_without_systemd_is_exit_code_6(up: World, sykube: Sykube) -> None:
    result = sykube("autostart", "enable")
    assert result.code == ExitCode.HOST_NOT_READY
    assert "sykube start" in result.err


def test_autostart_of_a_cluster_that_init_did_not_finish_is_refused(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:nodes")
    sykube("init", "--retain", "--dns", "192.0.2.1")
    assert sykube("autostart", "enable").code == ExitCode.DEGRADED


# --- all clusters ---


def test_list_says_how_each_cluster_is(up: World, sykube: Sykube) -> None:
    sykube("stop", "--name", "lab")
    sykube("pause")
    lines = [line.split() for line in sykube("list").out.splitlines()]
    assert lines == [
        ["lab", "stopped", "2", "nodes", "v1.20.2"],
        ["sykube", "paused", "2", "nodes", "v1.20.2"],
    ]
    shown = json.loads(sykube("list", "-o", "json").out)
    assert [each["state"] for each in shown] == ["stopped", "paused"]


def test_images_are_loaded_listed_and_removed(up: World, sykube: Sykube, tmp_path: Path) -> None:
    image = Image([containers.tar({"a": b"one"})], {})
    file = containers.docker_archive(tmp_path / "web.tar", image, "web:latest")
    result = sykube("image", "load", str(file), "--node", "node1")
    assert (result.code, result.out) == (0, "")
    assert "node1: docker.io/library/web:latest is loaded." in result.err
    assert "imagePullPolicy: IfNotPresent" in result.err
    result = sykube("image", "load", str(file), "-o", "json")
    (loaded,) = json.loads(result.out)
    assert (loaded["loaded"], loaded["present"]) == (["master"], ["node1"])
    (listed,) = json.loads(sykube("image", "list", "-o", "json").out)
    assert listed["nodes"] == ["master", "node1"]
    for key in ("image", "id", "digest", "bytes"):
        assert listed[key] == loaded[key]
    line = sykube("image", "list").out.split()
    assert line[:2] == ["docker.io/library/web:latest", image.id.removeprefix("sha256:")[:12]]
    assert json.loads(sykube("image", "delete", "web", "-o", "json").out) == ["master", "node1"]
    assert json.loads(sykube("image", "list", "-o", "json").out) == []


def test_delete_of_all_leaves_no_cluster(up: World, sykube: Sykube) -> None:
    result = sykube("delete", "--all", "--yes")
    assert (result.code, result.out) == (0, ""), result.err
    assert sykube("list").out == ""
    assert up.instances == {}
    again = sykube("delete", "--all", "--yes")
    assert again.code == 0
    assert "There is no cluster." in again.err


@pytest.mark.parametrize("typed", ["n\n", "\n", ""])
def test_delete_of_all_asks_at_a_terminal_and_takes_no_answer_for_no(
    up: World, sykube: Sykube, typed: str
) -> None:
    terminal = io.StringIO(typed)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    result = sykube("delete", "--all", stdin=terminal)
    assert result.code == ExitCode.INTERRUPTED
    assert "Delete lab, sykube?" in result.err
    assert len(up.instances) == 4


def test_delete_of_all_says_which_one_was_in_use(up: World, sykube: Sykube) -> None:
    with locked(ClusterPaths(up.host, "lab")):
        result = sykube("delete", "--all", "--yes")
    assert result.code == ExitCode.FAILED
    assert "lab: another sykube command works on the cluster lab" in result.err
    assert [line.split()[0] for line in sykube("list").out.splitlines()] == ["lab"]


# --- other programs, with the arguments that were meant for them ---


@pytest.fixture
def became(world: World) -> list[tuple[list[str], dict[str, str]]]:
    """What sykube has become instead of ending."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def replace(argv: list[object], env: dict[str, str]) -> None:
        found.append(([str(word) for word in argv], dict(env)))

    world.programs.become = replace
    return found


@pytest.mark.parametrize(
    ("typed", "name", "expected"),
    [
        (["get", "pods"], "sykube", ["get", "pods"]),
        (["-n", "kube-system", "get", "pods"], "sykube", ["-n", "kube-system", "get", "pods"]),
        (["get", "pods", "-n", "kube-system", "-o", "json"], "sykube", None),
        (["--name", "lab", "get", "pods"], "lab", ["get", "pods"]),
        (["--name=lab", "-nx", "get", "pods"], "lab", ["-nx", "get", "pods"]),
        (["--namespace", "x", "get", "pods"], "sykube", None),
        (["--namespace=x", "--v=6", "-v", "6", "get", "pods"], "sykube", None),
        (["get", "pods", "--name", "theirs"], "sykube", None),
        (["exec", "-it", "pod", "--", "ls", "-l", "--", "x"], "sykube", None),
        (["--", "get", "pods"], "sykube", ["get", "pods"]),
        (["--name", "lab", "--", "--name", "theirs"], "lab", ["--name", "theirs"]),
        (["--help"], "sykube", None),
        (["get", "-h"], "sykube", None),
        (["-q"], "sykube", None),
        (["--output", "json", "version"], "sykube", None),
        (["create", "cm", "x", "--from-literal", "a b=$c"], "sykube", None),
        (["apply", "-f", "-"], "sykube", None),
        ([], "sykube", []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_kubectl_gets_its_arguments_untouched(
    recorded: World,
    sykube: Sykube,
    became: list[tuple[list[str], dict[str, str]]],
    typed: list[str],
    name: str,
    expected: list[str] | None,
) -> None:
    result = sykube("kubectl", *typed)
    assert result.code == 0, result.err
    ((argv, environment),) = became
    assert Path(argv[0]).name == "kubectl"
    assert argv[1:] == (typed if expected is None else expected)
    assert environment["KUBECONFIG"] == str(recorded.host.data / name / "kubeconfig")


def test_kubectl_runs_with_the_callers_environment(
    recorded: World,
    sykube: Sykube,
    became: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDITOR", "vi")
    monkeypatch.setenv("KUBECONFIG", "/of/the/user")
    sykube("kubectl", "edit", "cm", "x")
    assert became[0][1]["EDITOR"] == "vi"
    assert became[0][1]["KUBECONFIG"] != "/of/the/user"


@pytest.mark.parametrize(
    ("typed", "instance", "expected"),
    [
        (["master", "ls", "-l"], "sykube-master", ["ls", "-l"]),
        (["node1", "--", "ls", "-l"], "sykube-node1", ["ls", "-l"]),
        (["sykube-node1", "ls"], "sykube-node1", ["ls"]),
        (["--name", "lab", "node1", "ls", "--name", "x"], "lab-node1", ["ls", "--name", "x"]),
        (["master", "sh", "-c", "echo $HOME; ls -- x"], "sykube-master", None),
        (["master", "--", "grep", "--", "-x", "f"], "sykube-master", ["grep", "--", "-x", "f"]),
        (["--", "master", "ls", "-l"], "sykube-master", ["ls", "-l"]),
        (["master", "ls", "--help"], "sykube-master", ["ls", "--help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exec_passes_a_command_on_untouched(
    recorded: World, sykube: Sykube, typed: list[str], instance: str, expected: list[str] | None
) -> None:
    result = sykube("exec", *typed)
    assert result.code == 0, result.err
    call = recorded.calls.all[-1]
    assert call.words == ("replace_with_exec", instance, *(expected or typed[1:]))


def test_exec_without_a_command_after_the_dashes_is_wrong_use(
    recorded: World, sykube: Sykube
) -> None:
    assert sykube("exec", "master", "--").code == ExitCode.USAGE


@pytest.mark.parametrize("typed", [[], ["master"], ["node1"], ["node1", "--name", "lab"]])
def test_shell_opens_a_login_shell(recorded: World, sykube: Sykube, typed: list[str]) -> None:
    assert sykube("shell", *typed).code == 0
    name = "lab" if "lab" in typed else "sykube"
    node = typed[0] if typed else "master"
    assert recorded.calls.all[-1].words == ("replace_with_exec", f"{name}-{node}", "bash", "-l")


@pytest.mark.parametrize("command", [["exec", "node7", "ls"], ["shell", "node7"]])
def test_a_node_that_the_cluster_has_not(
    recorded: World, sykube: Sykube, command: list[str]
) -> None:
    result = sykube(*command)
    assert result.code == ExitCode.USAGE
    assert "no node 'node7'" in result.err
    assert "master, node1" in result.err


def test_a_node_that_does_not_run(recorded: World, sykube: Sykube) -> None:
    del recorded.instances["sykube-node1"]
    for command in (["exec", "node1", "ls"], ["shell", "node1"]):
        result = sykube(*command)
        assert result.code == ExitCode.STOPPED
        assert "what to do: sykube start" in result.err


def test_kubectl_of_a_cluster_that_is_stopped_says_so_at_once(
    recorded: World, sykube: Sykube, became: list[tuple[list[str], dict[str, str]]]
) -> None:
    recorded.kernel.remove_link("sk-lab")
    result = sykube("kubectl", "--name", "lab", "get", "pods")
    assert result.code == ExitCode.STOPPED
    assert "what to do: sykube start --name lab" in result.err
    assert became == []


def test_the_kubeconfig_goes_to_stdout(recorded: World, sykube: Sykube) -> None:
    result = sykube("config", "--name", "lab")
    assert result.out == (recorded.host.data / "lab/kubeconfig").read_text()


def test_a_cluster_without_a_control_plane_yet(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:nodes")
    assert sykube("init", "--retain", "--dns", "192.0.2.1").code == ExitCode.FAILED
    for command in (["kubectl", "get", "pods"], ["config"]):
        result = sykube(*command)
        assert result.code == ExitCode.DEGRADED
        assert "no control plane yet" in result.err
    assert sykube("exec", "master", "ls").code == 0


# --- as a real process ---


def test_the_program_itself(tmp_path: Path) -> None:
    environment = os.environ | {
        "SYKUBE_TEST_MACHINE": "riscv64",
        "HOME": str(tmp_path),
        "SYKUBE_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sykube", "list"],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.HOST_NOT_READY
    assert done.stdout == ""
    assert done.stderr.startswith("error: the processor of this machine (riscv64)")


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["version"], ExitCode.OK),
        (["completion", "bash", "--nonsense"], ExitCode.USAGE),
        (["status", "--name", "No_Name"], ExitCode.USAGE),
    ],
)
def test_streams_that_nobody_hears_change_no_result(
    words: list[str], code: int, streams: str
) -> None:
    # With it Python holds nothing back that it would say at its end.
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "sykube", *words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert bool(done.stdout) == (code == ExitCode.OK and ">&- 2" not in streams)


def test_a_file_that_is_opened_does_not_stand_in_for_a_closed_stream(tmp_path: Path) -> None:
    program = (
        "import os, sys; from sykube.cli import streams; streams.open_closed()\n"
        "with open(sys.argv[1], 'w') as file: assert file.fileno() > 2; os.write(2, b'words')\n"
    )
    words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", program]
    subprocess.run([*words, tmp_path / "file"], cwd=REPOSITORY, check=True)
    assert (tmp_path / "file").read_bytes() == b""


def test_a_termination_is_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt):
        main._terminated(signal.SIGTERM, None)
