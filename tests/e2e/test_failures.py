"""Real clusters that are interrupted, killed, retained, and robbed of their records."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.cluster.model.state import clusters
from sykube.host.host import Host
from sykube.host.records import HostRecords
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.hostdiff import leaks_since

# One node in memory: what these tests look at is how it ends.
SMALL = ("--workers", "0", "--ephemeral", "--dns", "127.0.0.1")
# Each kubeadm in the node, from the moment in which the first has written half of its files.
KILL_KUBEADM = """
until [ -e /etc/kubernetes/admin.conf ]; do sleep 0.05; done
while :; do pkill -KILL -x kubeadm || true; sleep 0.05; done
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[TestCluster]:
    cluster = TestCluster("e2e-small", tmp_path)
    cluster.delete_quietly()
    cluster.before = host_before(cluster.name)
    yield cluster
    cluster.delete_quietly()


def started(cluster: TestCluster, seconds: float = 4) -> subprocess.Popen[str]:
    """An init that has come to kubeadm, so many seconds before."""
    init = subprocess.Popen(
        cluster.init_command(*SMALL),
        env=cluster.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    state = Path(f"/var/lib/sykube/{cluster.name}/state.json")

    def in_kubeadm() -> bool:
        assert init.poll() is None, init.stderr and init.stderr.read()
        if not state.exists():
            return False
        return bool(
            json.loads(state.read_text(encoding="utf-8"))["steps"].get("control-plane") == "started"
        )

    eventually("kubeadm init runs", in_kubeadm, timeout=1500)
    time.sleep(seconds)
    return init


def assert_no_leaks(cluster: TestCluster) -> None:
    assert cluster.before is not None
    leaks = leaks_since(cluster.before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_init_rolls_back(small: TestCluster, number: signal.Signals) -> None:
    with started(small) as init:
        init.send_signal(number)
        _, errors = init.communicate(timeout=120)
    assert init.returncode == 130
    assert "Rolling back" in errors
    assert_no_leaks(small)


@pytest.mark.parametrize("point", ["before:network", "after:nodes"])
def test_a_step_that_fails_rolls_back(small: TestCluster, point: str) -> None:
    failed = subprocess.run(
        small.init_command(*SMALL),
        env=small.environment | {"SYKUBE_FAIL_AT": point},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert failed.returncode == 1
    assert f"made to fail at {point}" in failed.stderr
    assert "Rolling back" in failed.stderr
    assert_no_leaks(small)


def test_a_step_that_fails_half_way_rolls_back(small: TestCluster) -> None:
    with started(small, seconds=0) as init:
        # It ends with the node.
        small.sykube("exec", "--name", small.name, "master", "sh", "-c", KILL_KUBEADM, check=False)
        _, errors = init.communicate(timeout=120)
    assert init.returncode == 1
    assert "kubeadm init" in errors
    assert "Rolling back" in errors
    assert_no_leaks(small)


def test_a_command_with_a_cluster_of_its_own_is_asked_to_end_and_leaves_nothing(
    small: TestCluster,
) -> None:
    """sykube run, which ends as its command does."""
    script = "trap 'exit 7' TERM; kubectl get nodes -o name && while :; do sleep 0.1; done"
    words = ["run" if word == "init" else word for word in small.init_command(*SMALL)]
    with subprocess.Popen(
        [*words, "--", "sh", "-c", script],
        env=small.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == f"node/{small.name}-master\n"
        run.terminate()
        rest, errors = run.communicate(timeout=120)
    assert run.returncode == 7, errors
    assert rest == ""
    assert_no_leaks(small)


def test_a_killed_init_can_be_deleted(small: TestCluster) -> None:
    with started(small) as init:
        init.kill()
    small.sykube("delete", "--name", small.name, "--yes")
    assert_no_leaks(small)


def test_a_retained_failure_resumes(small: TestCluster) -> None:
    failed = subprocess.run(
        small.init_command(*SMALL, "--retain"),
        env=small.environment | {"SYKUBE_FAIL_AT": "after:control-plane"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert failed.returncode == 1
    assert "made to fail at after:control-plane" in failed.stderr
    assert small.sykube("status", "--name", small.name, check=False).returncode == 4
    resumed = small.sykube("init", "--name", small.name, *SMALL, timeout=600)
    assert "Resuming" in resumed.stderr
    assert "Starting the nodes" not in resumed.stderr
    assert small.sykube("status", "--name", small.name).returncode == 0
    root = Path(f"/var/lib/sykube/{small.name}")
    assert root.is_mount(), "--ephemeral keeps it in memory"
    small.sykube("delete", "--name", small.name, "--yes")
    assert_no_leaks(small)


def test_delete_without_any_record(small: TestCluster, tmp_path: Path) -> None:
    """What was recorded can be lost; what can then not be put back is listed."""
    small.init(*SMALL[:2], "--dns", "127.0.0.1", "--dest", str(tmp_path / "data"))
    Path(f"/var/lib/sykube/{small.name}/state.json").unlink()
    records = HostRecords.load(Host())
    assert records is not None
    # The record is for all clusters of the host: with others there, the last one puts things back.
    alone = clusters(Host()) == []
    if alone:
        (records.host.records / "record.json").unlink()
    deleted = small.sykube("delete", "--name", small.name, "--yes", check=False)
    assert deleted.returncode == (1 if alone else 0)
    assert ("earlier sysctls" in deleted.stderr) is alone
    if alone:
        records.restore()
    assert_no_leaks(small)
