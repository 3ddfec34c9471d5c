"""A cluster's record and its lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.cluster.model import state as state_module
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import DONE, STARTED, State, clusters, locked
from sykube.errors import ExitCode, SykubeError
from sykube.host import files
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from tests.fakes.nodes import make_subnets

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def places(host: Host) -> None:
    (host.root / "run").mkdir(parents=True)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def make_state() -> State:
    return State(
        spec=ClusterSpec(name="fake", workers=2, dns=("192.0.2.1",)),
        subnets=make_subnets(),
        engine="/usr/bin/apptainer",
        engine_environment={"APPTAINER_DROP_CAPS": "CAP_BPF"},
        image="0123456789abcdef",
        image_folder="/var/cache/sykube/node-images/0123456789abcdef",
        versions={"kubernetes": "v1.20.2"},
        loopback_resolver="127.0.0.53",
        resolvers=("10.11.11.1", "192.0.2.53"),
        steps={"data": DONE, "network": STARTED},
        kubeconfig="/root/.kube/config",
        previous_context="work",
    )


def test_a_state_survives_being_stored(stored: Path) -> None:
    make_state().save(stored)
    assert State.load(stored) == make_state()
    assert stored.stat().st_mode & 0o777 == 0o600


def test_there_is_none_before_the_first_save(stored: Path) -> None:
    assert State.load(stored) is None
    assert State.load(stored.parent / "no folder" / "state.json") is None


def test_a_state_is_complete_when_the_last_step_is_done() -> None:
    state = make_state()
    assert not state.complete
    state.steps["kubeconfig"] = STARTED
    assert not state.complete
    state.steps["kubeconfig"] = DONE
    assert state.complete


@pytest.mark.parametrize("breaks", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_state_before_and_nothing_else(
    stored: Path, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    state = make_state()
    state.save(stored)
    state.steps["network"] = DONE

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if breaks == "fsync":
        # A disk that is full is met by the system's calls.
        monkeypatch.setattr(os, "fsync", full)
    else:
        # A disk that is full is met by the system's calls.
        monkeypatch.setattr(os, "replace", full)
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        state.save(stored)
    loaded = State.load(stored)
    assert loaded is not None
    assert loaded.steps["network"] == STARTED
    assert list(stored.parent.glob("*state*")) == [stored]
    assert list(stored.parent.glob(".*state*")) == []


def test_a_file_is_replaced_and_never_written_in_place(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    reader = file.open()
    files.write_atomically(file, "new", mode=0o640)
    assert reader.read() == "old"
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.glob(".file*")) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"words"',
        '{"version": 1}',
        '{"version": "x"}',
        json.dumps(
            {"version": 1, "spec": {}, "subnets": {"nodes": "x", "pods": "", "services": ""}}
        ),
    ],
)
def test_a_damaged_state_is_an_error_with_a_cure(stored: Path, text: str) -> None:
    stored.write_text(text, encoding="utf-8")
    with pytest.raises(SykubeError, match="is damaged") as raised:
        State.load(stored)
    assert str(stored) in raised.value.brief
    assert "sykube delete" in raised.value.resolution


def test_a_damaged_state_with_bytes_that_are_no_text(stored: Path) -> None:
    stored.write_bytes(b"\xff\xfe{}")
    with pytest.raises(SykubeError, match="is damaged"):
        State.load(stored)


def test_a_state_of_a_later_version_is_not_guessed_at(stored: Path) -> None:
    make_state().save(stored)
    later = json.loads(stored.read_text(encoding="utf-8")) | {"version": state_module.VERSION + 1}
    stored.write_text(json.dumps(later), encoding="utf-8")
    with pytest.raises(SykubeError, match="by a later version"):
        State.load(stored)


def test_clusters_are_the_folders_with_a_state(host: Host) -> None:
    assert clusters(host) == []
    for name in ("b", "a", "host"):
        (host.data / name).mkdir(parents=True)
        (host.data / name / "state.json").touch()
    (host.data / "half-made").mkdir()
    (host.data / "file").touch()
    assert clusters(host) == ["a", "b"]


# --- the lock ---

_HOLDER = """
import sys
from pathlib import Path
from sykube.cluster.model.state import locked
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
host = Host(Path(sys.argv[1]))
with locked(ClusterPaths(host, "fake")):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(host: Host) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the cluster `fake`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(host.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        stream.close()


def test_a_lock_that_another_process_holds(host: Host, holder: subprocess.Popen[str]) -> None:
    lock = ClusterPaths(host, "fake").lock
    with pytest.raises(SykubeError) as raised, locked(ClusterPaths(host, "fake")):
        raise AssertionError("the lock was given twice")
    assert raised.value.exit_code is ExitCode.LOCKED
    assert str(holder.pid) in raised.value.details.split()
    assert "fake" in raised.value.brief
    assert lock.exists()
    # Another cluster is none of its business.
    with locked(ClusterPaths(host, "other")):
        pass
    assert lock.exists()
    assert holder.stdin
    holder.stdin.close()
    assert holder.wait() == 0
    assert not lock.parent.exists()
    with locked(ClusterPaths(host, "fake")):
        assert lock.read_text() == str(os.getpid())


def test_the_lock_of_a_killed_process_is_taken_over(
    host: Host, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    lock = ClusterPaths(host, "fake").lock
    assert lock.exists()
    with locked(ClusterPaths(host, "fake")):
        assert lock.read_text() == str(os.getpid())
    assert not lock.parent.exists()


def test_the_lock_is_gone_after_an_error(host: Host) -> None:
    with pytest.raises(KeyboardInterrupt), locked(ClusterPaths(host, "fake")):
        assert ClusterPaths(host, "fake").lock.exists()
        raise KeyboardInterrupt
    assert not host.locks.exists()


def test_a_lock_file_that_was_removed_under_the_waiter_is_made_anew(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The holder before unlinks the file between our opening and locking it."""
    lock = ClusterPaths(host, "fake").lock
    flock = fcntl.flock
    raced: list[int] = []

    def race(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not raced:
            raced.append(descriptor)
            lock.unlink()
            lock.write_text("another's")

    # Between two calls to the system: nothing else comes in there.
    monkeypatch.setattr(fcntl, "flock", race)
    with locked(ClusterPaths(host, "fake")):
        assert lock.read_text() == str(os.getpid())
