"""Command lines of the engine, and what it answers."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import SykubeError
from sykube.host.run import CommandError, Completed
from sykube.node import engine as engine_module
from sykube.node.engine import CommandLineEngine, Instance, InstanceOptions, parse_instances
from sykube.node.node import Node
from tests.fakes import ScriptedEngine, make_node

ENGINE = CommandLineEngine(Path("/opt/apptainer"), Path(__file__), {"A": "b"})
OPTIONS = InstanceOptions(
    image=Path("/cache/node.sif"),
    overlay=Path("/d/overlay"),
    binds=((Path("/d/containerd"), "/var/lib/containerd"), (Path("/d/log"), "/var/log")),
    network="sk-lab",
    address="10.11.11.2/24",
    gateway="10.11.11.1",
    hostname="lab-master",
    extra=("--nv", "--bind", "/data"),
)
BEFORE = ["/opt/apptainer", "--config", __file__]


class Recorder:
    """Stands in for run: answers from a list, the last answer for ever."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, Any]]] = []
        self.answers: list[Completed | CommandError] = []

    def __call__(self, argv: Sequence[str | Path], **options: Any) -> Completed:
        self.calls.append(([str(word) for word in argv], options))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, CommandError):
            raise answer
        return answer

    def say(self, *outputs: str) -> None:
        self.answers = [Completed((), 0, output, "") for output in outputs]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    recorder.say(listed())
    monkeypatch.setattr(engine_module, "run", recorder)
    monkeypatch.setattr(engine_module, "_lives", lambda _instance: True)
    return recorder


def listed(*names: str) -> str:
    entries = [{"instance": name, "pid": 7, "img": "/i.sif"} for name in names]
    return json.dumps({"instances": entries})


def test_a_configuration_that_is_not_there_yet_is_left_out(run: Recorder, tmp_path: Path) -> None:
    run.say(listed())
    CommandLineEngine(Path("/opt/apptainer"), tmp_path / "absent", {}).instances()
    assert run.calls[0][0][:2] == ["/opt/apptainer", "instance"]


def test_start(run: Recorder) -> None:
    ENGINE.start("lab-master", OPTIONS)
    _, (argv, options) = run.calls
    assert argv[:5] == [*BEFORE, "instance", "start"]
    assert argv[-2:] == ["/cache/node.sif", "lab-master"]
    # The user's own options come last, so that they win.
    assert argv[-5:-2] == ["--nv", "--bind", "/data"]
    assert options["env"] == {"A": "b"}
    pairs = list(zip(argv, argv[1:], strict=False))
    for pair in (
        ("--overlay", "/d/overlay"),
        ("--bind", "/d/containerd:/var/lib/containerd,/d/log:/var/log"),
        ("--bind", "/sys/fs/cgroup"),
        ("--network", "sk-lab"),
        ("--network-args", "IP=10.11.11.2/24,GATEWAY=10.11.11.1"),
        ("--hostname", "lab-master"),
    ):
        assert pair in pairs
    for flag in ("--cleanenv", "--no-home", "--net", "--keep-privs"):
        assert flag in argv
    mounts = argv[argv.index("--no-mount") + 1].split(",")
    assert {"tmp", "cwd", "bind-paths"} <= set(mounts)


def test_an_engine_with_its_own_configuration(run: Recorder) -> None:
    run.say(listed())
    CommandLineEngine(Path("/usr/bin/singularity"), None, {}).instances()
    ((argv, _),) = run.calls
    assert argv == ["/usr/bin/singularity", "instance", "list", "--json"]


def test_exec(run: Recorder) -> None:
    run.say("answer")
    done = ENGINE.exec(
        "lab-master", ["cat", "-n"], stdin="text", timeout=5, check=False, secret=True
    )
    assert done.stdout == "answer"
    ((argv, options),) = run.calls
    assert argv[:3] == BEFORE
    assert argv[-3:] == ["instance://lab-master", "cat", "-n"]
    assert "exec" in argv
    assert "--cleanenv" in argv
    assert argv[argv.index("--pwd") + 1] == "/"
    assert options == {
        "env": {"A": "b"},
        "stdin": "text",
        "timeout": 5,
        "check": False,
        "secret": True,
    }


def test_becoming_a_command_in_an_instance(run: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        engine_module, "replace_process", lambda argv, env: became.append((argv, dict(env)))
    )
    monkeypatch.setenv("APPTAINER_BIND", "/of/the/caller")
    ENGINE.replace_with_exec("lab-master", ("bash", "-l"))
    ((argv, environment),) = became
    assert argv[:3] == BEFORE
    assert argv[-3:] == ["instance://lab-master", "bash", "-l"]
    assert environment["A"] == "b"
    assert "APPTAINER_BIND" not in environment
    assert not run.calls


def test_kill_returns_when_the_instance_is_gone(
    run: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    both = listed("lab-master", "other")
    run.say(both, "", both, listed("lab-master"), listed("other"))
    ENGINE.kill("lab-master")
    stops = [argv for argv, _ in run.calls if "stop" in argv]
    assert len(stops) == 1
    assert stops[0][-1] == "lab-master"
    assert stops[0][stops[0].index("--signal") + 1] == "SIGKILL"
    assert len(slept) == 2


def test_killing_what_is_not_there_is_no_error(run: Recorder) -> None:
    run.say(listed("other"))
    ENGINE.kill("lab-master")
    assert not [argv for argv, _ in run.calls if "stop" in argv]


def test_an_instance_that_ends_while_it_is_killed_is_no_error(run: Recorder) -> None:
    run.answers = [
        Completed((), 0, listed("lab-master"), ""),
        Completed((), 255, "", "no instance found"),
        Completed((), 0, listed(), ""),
    ]
    ENGINE.kill("lab-master")
    assert all(options.get("check", True) is False for argv, options in run.calls if "stop" in argv)


def test_an_instance_that_does_not_end_is_an_error(
    run: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_GONE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    run.say(listed("lab-master"))
    with pytest.raises(SykubeError, match="the instance lab-master is") as raised:
        ENGINE.kill("lab-master")
    assert "lab-master" in raised.value.resolution


@pytest.mark.parametrize("text", ['{"instances": null}', '{"instances": []}'])
def test_no_instances(run: Recorder, text: str) -> None:
    run.say(text)
    assert ENGINE.instances() == {}


def test_instances(run: Recorder) -> None:
    entry = {"instance": "lab-master", "pid": 4711, "img": "/i.sif", "ip": "", "logErrPath": "/e"}
    run.say(json.dumps({"instances": [entry]}))
    assert ENGINE.instances() == {"lab-master": Instance("lab-master", 4711, "/i.sif")}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no instances",
        "[]",
        "null",
        "{}",
        '{"instances": [{"instance": "a", "img": "i"}]}',
        '{"instances": [{"instance": "a", "pid": "x", "img": "i"}]}',
        '{"instances": ["a"]}',
        '{"instances": 5}',
    ],
)
def test_a_list_of_another_form_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(SykubeError, match="does not know") as raised:
        parse_instances(text)
    assert raised.value.details == text


@pytest.mark.parametrize(
    ("comm", "lives"), [("appinit\n", True), ("sinit\n", True), ("sshd\n", False), (None, False)]
)
def test_after_a_reboot_an_instances_process_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comm: str | None, lives: bool
) -> None:
    """The engine itself looks at the process number alone."""
    recorder = Recorder()
    recorder.say(listed("lab-master"))
    monkeypatch.setattr(engine_module, "run", recorder)
    monkeypatch.setattr(engine_module, "PROC", tmp_path)
    monkeypatch.setattr(engine_module, "clean_environment", lambda *_: {"HOME": str(tmp_path)})
    if comm:
        (tmp_path / "7").mkdir()
        (tmp_path / "7/comm").write_text(comm)
    record = tmp_path / ".apptainer/instances/app/host/root/lab-master/lab-master.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert set(ENGINE.instances()) == ({"lab-master"} if lives else set())
    if not lives:
        ENGINE.kill("lab-master")
        assert not record.exists()
        assert not [argv for argv, _ in recorder.calls if "stop" in argv], "it is another's process"


def test_files_that_an_instance_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "clean_environment", lambda *_: {"HOME": str(tmp_path)})
    logs = tmp_path / ".apptainer/instances/logs/myhost/root"
    logs.mkdir(parents=True)
    for name in ("lab-node1.out", "lab-node1.err", "lab-node10.out", "lab-node1.json", "x.out"):
        (logs / name).write_text(f"text of {name}")
    other = tmp_path / ".singularity/instances/logs/myhost/root"
    other.mkdir(parents=True)
    (other / "lab-node1.out").write_text("older")
    assert sorted(ENGINE.leftovers("lab-node1")) == [
        logs / "lab-node1.err",
        logs / "lab-node1.out",
        other / "lab-node1.out",
    ]
    assert ENGINE.leftovers("absent") == []
    assert "text of lab-node1.err" in ENGINE.output("lab-node1")


# --- a node, the only way into an instance ---


def node(**answer: Any) -> tuple[Node, ScriptedEngine]:
    engine = ScriptedEngine(**answer)
    return make_node(engine), engine


def test_a_file_is_written_through_standard_input_alone() -> None:
    one, engine = node()
    one.write("/etc/a b/secret", "hush", mode="0600")
    ((name, *argv),) = engine.argvs
    assert name == "fake-master"
    assert engine.stdins == ["hush"]
    assert "hush" not in " ".join(argv)
    assert "'/etc/a b/secret'" in argv[-1]
    assert "chmod 0600" in argv[-1]
    # Never readable by others, not even for a moment.
    assert "umask 077" in argv[-1]


def test_a_written_file_is_what_a_shell_makes_of_it(tmp_path: Path) -> None:
    """The script itself, run by a real shell."""
    import subprocess

    one, engine = node()
    one.write(f"{tmp_path}/it's", "text\n", mode="0640")
    subprocess.run(engine.argvs[0][1:], input="text\n", text=True, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["it's"]
    assert (tmp_path / "it's").read_text() == "text\n"
    assert (tmp_path / "it's").stat().st_mode & 0o777 == 0o640


def test_a_file_is_read() -> None:
    one, engine = node(stdout="text")
    assert one.read("/etc/x", secret=True) == "text"
    assert engine.argvs == [["fake-master", "cat", "/etc/x"]]


def test_only_the_master_is_the_control_plane(tmp_path: Path) -> None:
    assert make_node(None).is_control_plane
    worker = make_node(None, tmp_path, "node1")
    assert not worker.is_control_plane
    assert worker.config == tmp_path / "config"
    assert worker.overlay == tmp_path / "overlay"


@pytest.mark.parametrize("call", [lambda e: e.instances(), lambda e: e.exec("x", ["true"])])
def test_an_engine_that_fails_is_shown_by_its_own_error(
    run: Recorder, call: Callable[[CommandLineEngine], object]
) -> None:
    run.answers = [CommandError("apptainer failed with exit code 255", ["apptainer"], "FATAL: why")]
    with pytest.raises(CommandError) as raised:
        call(ENGINE)
    assert "FATAL: why" in raised.value.details


def process(folder: Path, pid: int, parent: int, title: str) -> None:
    """One as /proc shows it."""
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "cmdline").write_text(f"{title}\0\0")
    (folder / str(pid) / "stat").write_text(f"{pid} (a ) name) S {parent} 1 1")


@pytest.mark.parametrize("hangs", [False, True])
def test_an_instance_without_a_record_is_ended(
    run: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hangs: bool
) -> None:
    """By its child first, whose end the engine's monitor cleans up after."""
    process(tmp_path, 10, 1, "Apptainer instance: root [lab-master]")
    process(tmp_path, 11, 10, "appinit")
    process(tmp_path, 20, 1, "Apptainer instance: root [lab-master2]")
    process(tmp_path, 21, 20, "appinit")
    killed: list[int] = []

    def kill(pid: int, _signal: int) -> None:
        killed.append(pid)
        shutil.rmtree(tmp_path / str(pid), ignore_errors=True)
        if pid == 11 and not hangs:
            shutil.rmtree(tmp_path / "10")

    monkeypatch.setattr(engine_module, "PROC", tmp_path)
    monkeypatch.setattr(engine_module, "_GONE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(engine_module.os, "kill", kill)
    run.say(listed())
    ENGINE.kill("lab-master")
    assert killed == ([11, 10] if hangs else [11])
