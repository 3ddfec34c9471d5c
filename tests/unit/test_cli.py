"""The command line as a person types it: arguments, results, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from sykube.cli import access, context, main
from sykube.cluster import lifecycle
from sykube.cluster.lifecycle import InitOptions
from sykube.cluster.spec import ClusterSpec
from sykube.cluster.state import State
from sykube.errors import ExitCode
from sykube.host import paths, preflight
from sykube.node.engine import InstanceOptions
from tests.fakes import FakeInstance, World, add_image, make_subnets

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Sykube = Callable[..., Result]


@pytest.fixture
def sykube(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Sykube]:
    """Runs `sykube` with arguments in this process."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(context, "_ui", [])
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Result:
        context._ui.clear()
        monkeypatch.setattr(sys, "argv", ["sykube", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(int(ended.value.code or 0), out, err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def up(world: World, sykube: Sykube) -> World:
    """A host with the clusters `sykube` and `lab`."""
    for name in ("sykube", "lab"):
        spec = ClusterSpec(name=name, dns=("192.0.2.1",))
        lifecycle.init(spec, InitOptions(), world.ui())
    world.calls.all.clear()
    return world


@pytest.fixture
def recorded(world: World, sykube: Sykube) -> World:
    """The same two clusters as they look from outside, without the time that init takes."""
    for number, name in enumerate(("sykube", "lab")):
        folder = paths.DATA / name
        folder.mkdir(parents=True)
        (folder / "kubeconfig").write_text("the kubeconfig\n")
        ranges = make_subnets(f"10.11.{11 + number}.0/24")
        image = str(world.root / "cache/node-images/x")
        spec = ClusterSpec(name=name)
        state = State(spec, ranges, "apptainer", {}, "x", image, {}, "", ())
        state.save(folder / "state.json")
        nowhere = Path("/nonexistent")
        options = InstanceOptions(nowhere, nowhere, (), "", "", "", "")
        for node in ("master", "node1"):
            world.instances[f"{name}-{node}"] = FakeInstance(0, options)
        world.kernel.add_link(f"sk-{name}")
    return world


# --- wrong use ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "--no-such-option"],
        ["init", "extra"],
        ["init", "--workers", "many"],
        ["no-such-command"],
        ["delete", "--output", "json"],
        ["status", "-o", "xml"],
        ["exec"],
        ["exec", "master"],
        ["doctor", "--workers", "-1"],
        ["shell", "master", "extra"],
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
        (["init", "--dns", "x"], "'x' is not an IP address"),
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
    seen: list[ClusterSpec] = []

    def init(spec: ClusterSpec, *_: object) -> None:
        seen.append(spec)

    monkeypatch.setattr(lifecycle, "init", init)
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
    (spec,) = seen
    assert spec.dest == str(tmp_path / "data")
    assert (spec.name, spec.workers) == ("lab", 2)
    assert spec.options == ("--nv", "-B", "/a")
    assert spec.dns == ("192.0.2.1", "192.0.2.2")
    assert spec.ephemeral is False


# --- who and where ---

NEED_ROOT = [
    ["init"],
    ["init", "--dry-run"],
    ["delete"],
    ["status"],
    ["list"],
    ["kubectl", "get", "pods"],
    ["exec", "master", "true"],
    ["shell"],
    ["config"],
    ["doctor"],
    ["uninstall", "--yes"],
    ["node-image", "build"],
    ["node-image", "prune"],
]


@pytest.mark.parametrize("arguments", NEED_ROOT, ids=" ".join)
def test_without_root_the_hint_is_sudo(
    sykube: Sykube, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = sykube(*arguments)
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


def test_help_and_version_need_nobody(sykube: Sykube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = sykube("--help")
    assert result.code == 0
    for name in main._COMMANDS:
        assert re.search(rf"^  {name}  ", result.out, re.MULTILINE), name
    assert sykube("init", "-h").code in (0, 2)
    shown = json.loads(sykube("version", "--output", "json").out)
    assert shown["kubernetes"] == "1.20.2"
    assert sykube("version").out.splitlines()[1] == "kubernetes 1.20.2"


@pytest.mark.parametrize("name", sorted(main._COMMANDS))
def test_every_command_is_there_and_says_what_it_does(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and "--help" not in option.opts:
            assert option.help, f"{name} {option.opts}"


# --- init, delete and looking ---


def test_init_says_on_stderr_what_it_does_and_what_to_try(world: World, sykube: Sykube) -> None:
    result = sykube("init", "--name", "lab", "--dns", "192.0.2.1")
    assert result.code == 0, result.err
    assert result.out == ""
    assert "done: Laying the network" in result.err
    assert "sykube kubectl --name lab get nodes" in result.err
    assert (paths.LOGS / "lab.log").stat().st_mode & 0o777 == 0o600
    again = sykube("init", "--name", "lab", "--dns", "192.0.2.1")
    assert again.code == 0
    assert "The cluster lab is up." in again.err


def test_results_for_machines_are_json_and_nothing_else(world: World, sykube: Sykube) -> None:
    result = sykube("init", "--output", "json", "--dns", "192.0.2.1")
    shown = json.loads(result.out)
    assert (shown["name"], shown["created"]) == ("sykube", True)
    assert "Laying the network" in shown["seconds"]
    again = json.loads(sykube("init", "-o", "json", "-q", "--dns", "192.0.2.1").out)
    assert again["created"] is False
    (listed,) = json.loads(sykube("list", "-o", "json").out)
    assert listed == {"name": "sykube", "state": "running", "nodes": 2, "kubernetes": "v1.20.2"}
    assert json.loads(sykube("status", "-o", "json").out)["status"] == "well"
    assert json.loads(sykube("doctor", "-o", "json").out)["engine"] == "apptainer 1.4.5"
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
    assert lines[-1] == f"log: {paths.LOGS}/sykube.log"
    assert "made to fail at after:nodes" in (paths.LOGS / "sykube.log").read_text()


def test_an_interrupted_init_ends_with_130(world: World, sykube: Sykube) -> None:
    world.calls.fail(lambda call: call.words[0] == "start", lambda _: KeyboardInterrupt())
    result = sykube("init", "--dns", "192.0.2.1")
    assert result.code == ExitCode.INTERRUPTED
    assert "error: interrupted" in result.err
    assert world.instances == {}


def test_a_bug_is_one_clear_line(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(lifecycle, "init", bug)
    result = sykube("init")
    assert result.code == ExitCode.FAILED
    assert "sykube itself failed: ZeroDivisionError: division by zero" in result.err


def test_a_full_disk_is_said_without_a_traceback(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/var/lib/sykube/x")

    monkeypatch.setattr(lifecycle, "init", full)
    result = sykube("init")
    assert result.code == ExitCode.FAILED
    assert "error: /var/lib/sykube/x: No space left on device" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["delete"],
        ["status"],
        ["kubectl", "get", "pods"],
        ["exec", "master", "ls"],
        ["shell"],
        ["config"],
    ],
    ids=" ".join,
)
def test_a_cluster_that_is_not_there(recorded: World, sykube: Sykube, arguments: list[str]) -> None:
    result = sykube(arguments[0], "--name", "absent", *arguments[1:])
    assert result.code == ExitCode.NO_SUCH_CLUSTER
    assert "there is no cluster 'absent'" in result.err
    assert "lab, sykube" in result.err
    assert not (paths.LOGS / "absent.log").exists()


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


def test_status_ends_with_the_state_of_the_cluster(up: World, sykube: Sykube) -> None:
    result = sykube("status")
    assert result.code == 0
    assert result.out.splitlines()[0] == "cluster sykube: well (Kubernetes v1.20.2)"
    assert re.search(r"^  master +10\.11\.11\.2 +7 MB +Ready$", result.out, re.MULTILINE)
    assert "containerd running, kubelet running" in result.out
    assert "  API server: well\n" in result.out
    up.end("sykube-node1")
    result = sykube("status")
    assert result.code == ExitCode.DEGRADED
    assert re.search(r"^  node1 +10\.11\.11\.3 +7 MB +stopped$", result.out, re.MULTILINE)
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
    assert not paths.LOGS.exists()


@pytest.mark.parametrize("typed", ["", "n\n", "\n"])
def test_uninstall_asks_and_takes_no_answer_for_no(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    result = sykube("uninstall")
    assert result.code == ExitCode.INTERRUPTED
    assert result.out == ""
    assert (world.root / "cache").exists()


def test_uninstall_goes_on_when_told_so(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert sykube("uninstall").code == 0
    assert not (world.root / "cache").exists()


def test_doctor_ends_with_whether_the_host_is_ready(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sykube("doctor").code == 0
    bad = preflight.Finding("memory", preflight.Level.FAILURE, "too little", "Buy more.")
    monkeypatch.setattr(preflight, "examine", lambda **_: [bad])
    result = sykube("doctor")
    assert result.code == ExitCode.HOST_NOT_READY
    assert "failure  memory: too little" in result.out
    assert "→ Buy more." in result.out
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


# --- other programs, with the arguments that were meant for them ---


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What sykube has become instead of ending."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def replace(argv: list[object], env: dict[str, str]) -> None:
        found.append(([str(word) for word in argv], dict(env)))

    monkeypatch.setattr(access, "replace_process", replace)
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
    assert environment["KUBECONFIG"] == str(paths.DATA / name / "kubeconfig")


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
    assert result.out == (paths.DATA / "lab/kubeconfig").read_text()


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


def test_a_termination_is_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt):
        main._terminated(signal.SIGTERM, None)
