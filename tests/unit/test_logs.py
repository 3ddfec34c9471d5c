"""Logs of nodes: shown, followed over rotation, and exported without secrets."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sykube.cli import logs as command
from sykube.cluster.commands import export, lifecycle
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import logs
from sykube.cluster.operations.logs import LogSource
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.node.logfile import LogFile
from tests.fakes import World

TOKEN = "abcdef.0123456789abcdef"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIPlanted\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def made(world: World) -> World:
    lifecycle.init(
        world.host, ClusterSpec(name="fake", dns=("192.0.2.1",)), InitOptions(), world.ui()
    )
    for node in ("master", "node1"):
        log = log_folder(world.host, node) / "kubelet.log"
        log.with_name("kubelet.log.2").write_text(f"{node} one\n")
        log.with_name("kubelet.log.1").write_text(f"{node} two\n{node} three\n")
        log.write_text(f"{node} four\n{node} five\n")
    return world


def log_folder(host: Host, node: str) -> Path:
    return ClusterPaths(host, "fake").node(f"fake-{node}") / "log" / "sykube"


def run(host: Host, *arguments: str) -> Result:
    return CliRunner().invoke(
        command.logs, ["--name", "fake", *arguments], standalone_mode=False, obj=host
    )


def test_all_nodes_with_their_names(made: World) -> None:
    lines = run(made.host).output.splitlines()
    assert "[master/supervisord] fake-master has booted" in lines
    assert "[node1/kubelet] node1 five" in lines
    assert lines.index("[master/kubelet] master one") < lines.index("[node1/kubelet] node1 one")


def test_one_service_of_one_node_is_the_file_itself(made: World) -> None:
    shown = run(made.host, "node1", "--service", "kubelet").output
    assert shown.split("\n") == [
        "node1 one",
        "node1 two",
        "node1 three",
        "node1 four",
        "node1 five",
        "",
    ]
    assert run(made.host, "fake-node1", "--service", "kubelet").output == shown


def test_tail_goes_over_rotated_files(made: World) -> None:
    shown = run(made.host, "node1", "--service", "kubelet", "--tail", "3").output
    assert shown == "node1 three\nnode1 four\nnode1 five\n"


def test_logs_need_no_record_and_no_instance(made: World) -> None:
    ClusterPaths(made.host, "fake").state.write_text("broken")
    made.instances.clear()
    assert "node1 five" in run(made.host, "node1").output


def test_wrong_nodes_and_clusters_are_named(made: World) -> None:
    error = run(made.host, "node7").exception
    assert isinstance(error, UsageError)
    assert error.resolution == "Its nodes: master, node1"
    error = run(made.host, "--service", "keepalived").exception
    assert isinstance(error, SykubeError)
    assert error.brief == "there is no log of keepalived in the cluster fake"
    error = run(made.host, "--name", "other").exception
    assert isinstance(error, SykubeError)
    assert error.exit_code is ExitCode.NO_SUCH_CLUSTER
    ClusterPaths(made.host, "other").node_logs.mkdir(parents=True)
    error = run(made.host, "--name", "other").exception
    assert isinstance(error, SykubeError)
    assert str(ClusterPaths(made.host, "other").node_logs) in error.details
    assert isinstance(run(made.host, "node1", "--export", "/nonexistent/x").exception, UsageError)


def followed(path: Path, *turns: Callable[[], object], count: int = 1) -> list[str]:
    """What a follower hands out when things happen while it sleeps."""
    waiting = list(turns)
    lines: list[str] = []

    def sleep(_: float) -> None:
        if not waiting:
            raise KeyboardInterrupt
        waiting.pop(0)()

    with pytest.raises(KeyboardInterrupt):
        logs.follow(
            [LogSource("n", "s", LogFile(path))],
            count,
            lambda _source, line: lines.append(line),
            sleep,
        )
    return lines


def append(path: Path, text: str) -> Callable[[], object]:
    def write() -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    return write


def test_following_hands_out_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old\nlast\nunfini")
    added = followed(path, append(path, "shed\nnew\n"), append(path, ""), append(path, "newer\n"))
    assert added == ["last", "unfinished", "new", "newer"]


def test_following_goes_over_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old\n")

    def rotate() -> None:
        append(path, "before\n")()
        path.rename(path.with_name("x.log.1"))
        path.write_text("after\n")

    assert followed(path, rotate, append(path, "later\n")) == ["old", "before", "after", "later"]


def test_following_an_emptied_and_a_late_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("a long first line\n")
    emptied = followed(path, lambda: path.write_text("short\n"))
    assert emptied == ["a long first line", "short"]
    late = tmp_path / "late.log"
    assert followed(late, lambda: late.write_text("first\n")) == ["first"]


# --- export ---


@pytest.fixture
def exported(made: World, tmp_path: Path) -> Path:
    pod = log_folder(made.host, "node1").parent / "pods" / "default_app_1" / "app"
    pod.mkdir(parents=True)
    (pod / "0.log").write_text(f"the key\n{KEY}")
    (pod / "0.log.20260101-000000.gz").write_bytes(gzip.compress(f"older {TOKEN}\n".encode()))
    with (log_folder(made.host, "master") / "kubelet.log").open("a") as log:
        log.write(f"join {TOKEN} at http://me:hunter2@proxy.example/\n")
    ClusterPaths(made.host, "fake").log.parent.mkdir(parents=True, exist_ok=True)
    ClusterPaths(made.host, "fake").log.write_text("what sykube did\n")
    folder = tmp_path / "report" / "here"
    export.export(made.host, "fake", folder, made.ui())
    return folder


def test_export_holds_what_a_report_needs(exported: Path) -> None:
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert names >= {
        "sykube.json",
        "state.json",
        "status.json",
        "doctor.json",
        "host/facts.json",
        "sykube-log/fake.log",
        "nodes/master/programs/kubelet.log",
        "nodes/master/programs/kubelet.log.2",
        "nodes/node1/pods/default_app_1/app/0.log",
        "nodes/node1/pods/default_app_1/app/0.log.20260101-000000",
        "kubernetes/nodes.yaml",
    }
    assert not any("secret" in name for name in names)
    assert json.loads((exported / "state.json").read_text())["spec"]["name"] == "fake"
    assert "fake-node1" in (exported / "kubernetes/nodes.yaml").read_text()


def test_export_holds_no_secret_and_is_private(exported: Path) -> None:
    for path in [exported, *exported.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            text = path.read_text()
            assert "Planted" not in text
            assert "0123456789abcdef" not in text
            assert "hunter2" not in text
    assert "older REDACTED" in (
        exported / "nodes/node1/pods/default_app_1/app/0.log.20260101-000000"
    ).read_text()  # fmt: skip


def test_export_of_a_broken_cluster_says_what_is_missing(made: World, tmp_path: Path) -> None:
    made.kubernetes.clear()
    made.end("fake-node1")
    folder = tmp_path / "report"
    folder.mkdir(mode=0o755)
    missing = export.export(made.host, "fake", folder, made.ui())
    said = (folder / export.MISSING).read_text()
    assert said.splitlines()[0] in "\n".join(missing)
    assert "kubernetes: the API server at https://10.11.11.254:6443 does not answer" in said
    assert "nodes/node1: its instance does not run" in said
    assert (folder / "nodes/node1/programs/kubelet.log").exists()


def test_export_of_a_cluster_without_a_record(made: World, tmp_path: Path) -> None:
    ClusterPaths(made.host, "fake").state.write_text("broken")
    export.export(made.host, "fake", tmp_path / "report", made.ui())
    assert (tmp_path / "report/nodes/node1/programs/kubelet.log").exists()
    assert "the state of the cluster is damaged" in (tmp_path / "report/missing.txt").read_text()


def test_export_keeps_what_is_there_already(made: World, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        export.export(made.host, "fake", tmp_path, made.ui())
    with pytest.raises(UsageError, match="is not empty"):
        export.export(made.host, "fake", tmp_path / "mine", made.ui())
    with pytest.raises(SykubeError) as error:
        export.export(made.host, "other", tmp_path / "new", made.ui())
    assert error.value.exit_code is ExitCode.NO_SUCH_CLUSTER
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
