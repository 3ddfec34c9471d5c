"""Command lines of the engine, and what it answers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.host.run import WITHOUT_PROXIES, CommandError, Completed
from sykube.node import engine as engine_module
from sykube.node import launch
from sykube.node.engine import CommandLineEngine, Instance, InstanceOptions, read_record
from sykube.node.node import Node
from tests.fakes import FakeHost, fill
from tests.fakes.engine import ScriptedEngine
from tests.fakes.nodes import make_node

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
def run(home: Path, tmp_path: Path) -> Recorder:
    recorder = Recorder()
    recorder.say("")
    # The first process of each instance that `record` notes.
    fill(tmp_path / "proc/7", {"comm": "appinit\n"})
    return recorder


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> FakeHost:
    recorder = Recorder()
    if "run" in request.fixturenames:
        recorder = request.getfixturevalue("run")
    # Each look at the clock is a second after the one before.
    return FakeHost(tmp_path, recorder, monotonic=itertools.count().__next__, sleep=lambda _: None)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"A": "b", "HOME": str(tmp_path / "home")}


@pytest.fixture
def engine(host: FakeHost, environment: dict[str, str]) -> CommandLineEngine:
    return CommandLineEngine(host, Path("/opt/apptainer"), Path(__file__), environment)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home folder of the engine's user."""
    monkeypatch.setenv("APPTAINER_BIND", "/of/the/caller")
    made = tmp_path / "home"
    made.mkdir()
    return made


def record(
    home: Path,
    name: str,
    text: str = "",
    engine: str = ".apptainer/instances/app",
    host: str = "host",
) -> Path:
    """What the engine notes of an instance."""
    file = home / engine / host / "root" / name / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or json.dumps({"name": name, "pid": 7, "image": "/i.sif", "ppid": 6}))
    return file


def test_a_configuration_that_is_not_there_yet_is_left_out(
    host: Host, run: Recorder, tmp_path: Path
) -> None:
    CommandLineEngine(host, Path("/opt/apptainer"), tmp_path / "absent", {}).exec("x", ["true"])
    assert run.calls[0][0][:2] == ["/opt/apptainer", "--silent"]


def test_start(engine: CommandLineEngine, run: Recorder) -> None:
    engine.start("lab-master", OPTIONS)
    ((argv, options),) = run.calls
    assert argv[:5] == [*BEFORE, "instance", "start"]
    assert argv[-2:] == ["/cache/node.sif", "lab-master"]
    # The user's own options come last, so that they win.
    assert argv[-5:-2] == ["--nv", "--bind", "/data"]
    # Apptainer would hand proxies on to the node.
    assert options["env"] == {**engine.environment, **WITHOUT_PROXIES}
    # Nor is anything of sykube's own caller.
    assert options["wrapper"] == launch.wrapper(settled=True)
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


def test_an_engine_with_its_own_configuration(host: Host, run: Recorder) -> None:
    CommandLineEngine(host, Path("/usr/bin/singularity"), None, {}).exec("x", ["true"])
    ((argv, _),) = run.calls
    assert argv[:3] == ["/usr/bin/singularity", "--silent", "exec"]


def test_exec(engine: CommandLineEngine, run: Recorder) -> None:
    run.say("answer")
    done = engine.exec(
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
        "env": {**engine.environment, **WITHOUT_PROXIES},
        "stdin": "text",
        "timeout": 5,
        "check": False,
        "secret": True,
        "wrapper": (),
    }


def test_becoming_a_command_in_an_instance(
    engine: CommandLineEngine, run: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[tuple[Sequence[str | Path], dict[str, str]]] = []
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    host = replace(engine.host, replace_process=lambda argv, env: became.append((argv, dict(env))))
    replace(engine, host=host).replace_with_exec("lab-master", ("bash", "-l"))
    ((argv, environment),) = became
    assert argv[:3] == BEFORE
    assert argv[-3:] == ["instance://lab-master", "bash", "-l"]
    assert environment["A"] == "b"
    assert {"APPTAINER_BIND", "https_proxy"}.isdisjoint(environment)
    assert not run.calls


def test_kill_returns_when_the_instance_is_gone(
    engine: CommandLineEngine, run: Recorder, home: Path
) -> None:
    ours, other = record(home, "lab-master"), record(home, "other")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            ours.unlink()

    killed: list[tuple[int, int]] = []
    host = replace(engine.host, sleep=sleep, kill=lambda *words: killed.append(words))
    replace(engine, host=host).kill("lab-master")
    assert killed == [(7, signal.SIGKILL)]
    assert run.calls == []
    assert len(slept) == 2
    assert other.exists()


def test_killing_what_is_not_there_is_no_error(
    engine: CommandLineEngine, run: Recorder, home: Path
) -> None:
    record(home, "other")
    engine.kill("lab-master")
    assert run.calls == []


def test_an_instance_that_ends_while_it_is_killed_is_no_error(
    engine: CommandLineEngine, run: Recorder, home: Path
) -> None:
    file = record(home, "lab-master")

    def ended(_pid: int, _signal: int) -> None:
        file.unlink()
        raise ProcessLookupError

    replace(engine, host=replace(engine.host, kill=ended)).kill("lab-master")
    assert run.calls == []


def test_an_instance_that_does_not_end_is_an_error(
    engine: CommandLineEngine, run: Recorder, home: Path
) -> None:
    record(home, "lab-master")
    engine = replace(engine, host=replace(engine.host, kill=lambda *_: None))
    with pytest.raises(SykubeError, match="the instance lab-master is") as raised:
        engine.kill("lab-master")
    assert "ps -o pid,wchan,args 7" in raised.value.resolution


def test_an_instance_is_found_by_the_engine_after_the_hosts_name_changed(
    engine: CommandLineEngine, run: Recorder, home: Path, tmp_path: Path
) -> None:
    """It looks below the host's present name alone."""
    became: list[Sequence[str | Path]] = []
    host = replace(engine.host, replace_process=lambda argv, _env: became.append(argv))
    engine = replace(engine, host=host)
    old, now = record(home, "lab-master", host="old"), os.uname().nodename
    record(home, "lab-node1", host=now)
    wrapper = launch.wrapper(hostname="old")
    assert "--hostname=old" in wrapper
    for name, expected in (("lab-master", wrapper), ("lab-node1", ())):
        engine.exec(name, ["true"])
        assert run.calls[-1][1]["wrapper"] == expected
        engine.replace_with_exec(name, ["bash"])
        assert tuple(became[-1][: len(expected)]) == expected
    # The engine refuses a second one of that name, as it would under the old one.
    engine.start("lab-master", OPTIONS)
    assert "--hostname=old" in run.calls[-1][1]["wrapper"]

    def kill(pid: int, _signal: int) -> None:
        shutil.rmtree(tmp_path / "proc" / str(pid))

    replace(engine, host=replace(host, kill=kill)).kill("lab-master")
    assert not old.exists(), "the monitor does not find it any more"


def test_the_monitor_is_left_to_clean_up(
    engine: CommandLineEngine, home: Path, run: Recorder, tmp_path: Path
) -> None:
    process(tmp_path, 6, 1, "Apptainer instance: root [lab-master]")
    process(tmp_path, 7, 6, "appinit")
    file = record(home, "lab-master")
    killed: list[int] = []
    slept: list[float] = []

    def kill(pid: int, _signal: int) -> None:
        killed.append(pid)
        shutil.rmtree(tmp_path / "proc" / str(pid))
        # It takes the node off the network.
        process(tmp_path, 8, 6, "/usr/lib/cni/bridge")

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            # Process 1 has not noticed yet.
            process(tmp_path, 6, 1, "", state="Z")

    replace(engine, host=replace(engine.host, kill=kill, sleep=sleep)).kill("lab-master")
    assert (killed, len(slept)) == ([7], 3)
    assert not file.exists()


def test_processes_that_do_not_end_are_an_error_that_names_them(
    engine: CommandLineEngine,
    run: Recorder,
    home: Path,
    tmp_path: Path,
) -> None:
    process(tmp_path, 10, 1, "Apptainer instance: root [lab-master]")
    engine = replace(engine, host=replace(engine.host, kill=lambda *_: None))
    with pytest.raises(SykubeError, match="the instance lab-master is there") as raised:
        engine.kill("lab-master")
    assert "ps -o pid,wchan,args 10" in raised.value.resolution
    process(tmp_path, 12, 1, "", state="Z")
    with pytest.raises(SykubeError) as raised:
        engine.kill("lab-master")
    assert raised.value.details == "process 1 does not wait for what has ended: 12"
    assert "docker run --init" in raised.value.resolution


def test_a_record_whose_process_is_another_instances_by_now(
    engine: CommandLineEngine, tmp_path: Path, home: Path
) -> None:
    process(tmp_path, 6, 1, "Apptainer instance: root [other]")
    process(tmp_path, 7, 6, "appinit")
    (tmp_path / "proc/7/comm").write_text("appinit\n")
    record(home, "lab-master", host="old")
    record(home, "other")
    assert set(engine.instances()) == {"other"}


def test_instances_of_either_engine(engine: CommandLineEngine, run: Recorder, home: Path) -> None:
    assert engine.instances() == {}
    record(home, "lab-master")
    record(home, "lab-node1", engine=".singularity/instances/sing")
    logs = home / ".apptainer/instances/logs/host/root/lab-master/other.json"
    logs.parent.mkdir(parents=True)
    logs.write_text("no record")
    assert engine.instances() == {
        name: Instance(name, 7, "/i.sif", "host") for name in ("lab-master", "lab-node1")
    }
    # It would remove the records of instances of other PID namespaces.
    assert run.calls == []


@pytest.mark.parametrize(
    ("release", "folder"),
    [
        ("apptainer-1.4.5", ".apptainer/instances/app"),
        ("singularity-ce-4.1.1", ".singularity/instances/sing"),
    ],
)
def test_records_as_the_engines_write_them(
    engine: CommandLineEngine, home: Path, tmp_path: Path, release: str, folder: str
) -> None:
    fill(tmp_path / "proc/157", {"comm": "appinit\n"})
    text = (Path(__file__).parent / "fixtures/engines" / release / "record.json").read_text()
    record(home, "lab-master", text, engine=folder)
    assert engine.instances() == {"lab-master": Instance("lab-master", 157, "/i.sif", "host")}
    logs = home / folder.split("/")[0] / "instances/logs/host/root"
    logs.mkdir(parents=True)
    (logs / "lab-master.err").write_text("why")
    named = json.loads(text)["logErrPath"].removeprefix("/root/")
    assert [str(log.relative_to(home)) for log in engine.leftovers("lab-master")] == [
        named.replace("/box/", "/host/")
    ]


@pytest.mark.parametrize("title", ["Apptainer", "Singularity"])
def test_the_monitor_of_either_engine_is_found(host: Host, tmp_path: Path, title: str) -> None:
    """By its title: ProgPrefix in internal/pkg/instance of both."""
    process(tmp_path, 10, 1, f"{title} instance: root [lab-master]")
    assert engine_module._monitors(host, "lab-master") == [10]


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "no record",
        "[]",
        "null",
        "{}",
        '{"name": "a", "image": "i"}',
        '{"name": "a", "pid": "x", "image": "i"}',
    ],
)
def test_a_record_of_another_form_is_an_error_that_names_it(home: Path, text: str) -> None:
    file = record(home, "lab-master", text)
    with pytest.raises(SykubeError, match="does not know") as raised:
        read_record(file)
    assert str(file) in raised.value.brief


def test_a_record_that_goes_while_it_is_read_is_none(home: Path) -> None:
    assert read_record(home / "absent.json") is None


@pytest.mark.parametrize(
    ("comm", "lives"), [("appinit\n", True), ("sinit\n", True), ("sshd\n", False), (None, False)]
)
def test_after_a_reboot_an_instances_process_is_another(
    engine: CommandLineEngine,
    tmp_path: Path,
    home: Path,
    comm: str | None,
    lives: bool,
) -> None:
    """The engine itself looks at the process number alone."""
    if comm:
        (tmp_path / "proc/7").mkdir(parents=True)
        (tmp_path / "proc/7/comm").write_text(comm)
    file = record(home, "lab-master")
    assert set(engine.instances()) == ({"lab-master"} if lives else set())
    if not lives:
        engine.kill("lab-master")
        assert not file.exists()
        assert isinstance(engine.host.run, Recorder)
        assert not [argv for argv, _ in engine.host.run.calls if "stop" in argv], (
            "it is another's process"
        )


def test_files_that_an_instance_leaves(engine: CommandLineEngine, tmp_path: Path) -> None:
    engine = replace(engine, environment={"HOME": str(tmp_path)})
    logs = tmp_path / ".apptainer/instances/logs/myhost/root"
    logs.mkdir(parents=True)
    for name in ("lab-node1.out", "lab-node1.err", "lab-node10.out", "lab-node1.json", "x.out"):
        (logs / name).write_text(f"text of {name}")
    other = tmp_path / ".singularity/instances/logs/myhost/root"
    other.mkdir(parents=True)
    (other / "lab-node1.out").write_text("older")
    assert sorted(engine.leftovers("lab-node1")) == [
        logs / "lab-node1.err",
        logs / "lab-node1.out",
        other / "lab-node1.out",
    ]
    assert engine.leftovers("absent") == []
    assert "text of lab-node1.err" in engine.output("lab-node1")


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
    assert worker.pull("/etc/sykube/hosts") == tmp_path / "config/hosts"
    assert worker.pull("/etc/hosts") == tmp_path / "overlay/upper/etc/hosts"


def test_an_engine_that_fails_is_shown_by_its_own_error(
    engine: CommandLineEngine, run: Recorder
) -> None:
    run.answers = [CommandError("apptainer failed with exit code 255", ["apptainer"], "FATAL: why")]
    with pytest.raises(CommandError) as raised:
        engine.exec("x", ["true"])
    assert "FATAL: why" in raised.value.details


def process(folder: Path, pid: int, parent: int, title: str, state: str = "S") -> None:
    """One as /proc shows it."""
    folder = folder / "proc"
    (folder / str(pid)).mkdir(parents=True, exist_ok=True)
    (folder / str(pid) / "cmdline").write_text(f"{title}\0\0")
    (folder / str(pid) / "stat").write_text(f"{pid} (a ) name) {state} {parent} 1 1")


@pytest.mark.parametrize("hangs", [False, True])
def test_an_instance_without_a_record_is_ended(
    engine: CommandLineEngine,
    run: Recorder,
    tmp_path: Path,
    hangs: bool,
) -> None:
    """By its child first, whose end the engine's monitor cleans up after."""
    process(tmp_path, 10, 1, "Apptainer instance: root [lab-master]")
    process(tmp_path, 11, 10, "appinit")
    process(tmp_path, 20, 1, "Apptainer instance: root [lab-master2]")
    process(tmp_path, 21, 20, "appinit")
    killed: list[int] = []

    def kill(pid: int, _signal: int) -> None:
        killed.append(pid)
        shutil.rmtree(tmp_path / "proc" / str(pid), ignore_errors=True)
        if pid == 11 and not hangs:
            shutil.rmtree(tmp_path / "proc/10")

    replace(engine, host=replace(engine.host, kill=kill)).kill("lab-master")
    assert killed == ([11, 10] if hangs else [11])


def test_those_of_users_clusters_of_the_same_name_are_let_be(host: Host, tmp_path: Path) -> None:
    """Root sees their processes; each user's are in a user namespace of that user's."""
    for pid, namespace in (("self", 1), ("10", 1), ("11", 2)):
        (tmp_path / f"proc/{pid}/ns").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/ns/user").symlink_to(f"user:[{namespace}]")
    for number in (10, 11):
        process(tmp_path, number, 1, "Apptainer instance: root [lab-master]")
    assert engine_module._monitors(host, "lab-master") == [10]
