"""`sykube bench` on a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.host.host import Host
from tests.e2e import release
from tests.e2e.cluster import TestCluster, eventually

SMALLEST = ("--runs", "3", "--anyway")
SERVERS = ("nats-server", "valkey-server")


@pytest.mark.long
def test_each_runtime_starts_and_stops_pods_and_nothing_is_left(
    cluster: TestCluster, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    words = ("bench", "start", "--name", cluster.name, "--pods", "2", *SMALLEST)
    done = cluster.sykube(*words, "--save", str(file), "-o", "json", timeout=900)
    found = json.loads(done.stdout)
    assert found == json.loads(file.read_text())
    assert found["versions"]["kubernetes"]
    for measure in found["measures"].values():
        assert {*measure["values"]} == {"runc", "crun", "apptainer"}
        for values in measure["values"].values():
            assert len(values) == 3
            assert all(0 < value < 300 for value in values)
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")
    # The same figures are the same.
    done = cluster.sykube("bench", "compare", str(file), str(file))
    assert "different" not in done.stdout
    assert "1.000 (" in done.stdout


def test_pods_talk_to_each_other(cluster: TestCluster) -> None:
    words = ("bench", "network", "--name", cluster.name, "--seconds", "0.1", *SMALLEST)
    found = json.loads(cluster.sykube(*words, "-o", "json", timeout=900).stdout)
    ways = {"pods of one node", "pods of two nodes", "pod to ClusterIP", "host to NodePort"}
    for measure in found["measures"].values():
        assert {*measure["values"]} == {"loopback", *ways}
        assert all(value > 0 for values in measure["values"].values() for value in values)
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")


@pytest.mark.long
def test_hpc_challenge_runs_alike_on_the_host_and_in_containers(
    cluster: TestCluster, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    words = ("bench", "hpcc", "--name", cluster.name, "--yes", "--size", "200", *SMALLEST)
    shapes = ("--shape", "2x1", "--shape", "2x2")
    done = cluster.sykube(*words, *shapes, "--save", str(file), "-o", "json", timeout=1800)
    found = json.loads(done.stdout)
    assert found == json.loads(file.read_text())
    places = {"host", "exec", "runc", "crun", "apptainer"}
    assert found["base"] == "host"
    names = {
        f"{what}-{shape}"
        for what in (
            *("hpl", "stream", "ptrans", "random_access", "fft", "ring_latency"),
            *("ring_bandwidth", "seconds"),
        )
        for shape in ("2x1", "2x2")
    }
    assert {*found["measures"]} == names
    for measure in found["measures"].values():
        assert {*measure["values"]} == places
        assert all(len(values) == 3 for values in measure["values"].values())
    assert "2x1 on cores" in found["pinned"]
    assert_nothing_is_left_of_hpcc(cluster)


@pytest.mark.long
@pytest.mark.parametrize("place", ["host", "exec", "runc", "apptainer"])
def test_an_interrupted_hpc_challenge_leaves_nothing(cluster: TestCluster, place: str) -> None:
    words = ("bench", "hpcc", "--name", cluster.name, "--yes", "--size", "6000", *SMALLEST)
    command = [*cluster.prefix, *release.command([*words, "--place", place], cluster.python)]
    with subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually("HPC Challenge runs", lambda: running_hpcc() >= 2, timeout=600)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    eventually("HPC Challenge has ended", lambda: not running_hpcc())
    assert_nothing_is_left_of_hpcc(cluster)


def running_hpcc() -> int:
    """How many of its processes there are on this machine, in any container."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += file.read_text(encoding="utf-8") == "hpcc\n"
        except OSError:
            # It has ended.
            continue
    return found


def assert_nothing_is_left_of_hpcc(cluster: TestCluster) -> None:
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")
    assert "hpcc" not in cluster.sykube("image", "list", "--name", cluster.name).stdout
    assert not [*(Host().cache / "tmp").glob("hpcc-*")]
    assert "hpcc-" not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_messages_go_through_a_broker_on_the_host_and_in_pods(
    cluster: TestCluster, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    places = ("host", "exec", "runc:nodes")
    found = json.loads(streamed(cluster, places, "--save", str(file)).stdout)
    assert found == json.loads(file.read_text())
    assert_are_delays(found, places)
    assert_nothing_is_left_of_stream(cluster)


@pytest.mark.long
def test_messages_go_through_a_broker_in_every_place(cluster: TestCluster) -> None:
    found = json.loads(streamed(cluster, (), "--fsync").stdout)
    pods = (
        f"{runtime}:{layout}"
        for runtime in ("runc", "crun", "apptainer")
        for layout in ("pod", "node", "nodes")
    )
    assert_are_delays(found, ("host", "exec", *pods))
    assert_nothing_is_left_of_stream(cluster)


@pytest.mark.long
def test_messages_go_through_valkey_and_through_faster_ones(cluster: TestCluster) -> None:
    places = ("host", "crun:nodes")
    found = json.loads(streamed(cluster, places, "--broker", "valkey", "--sweep").stdout)
    saturated = found["measures"].pop("saturated")["values"]
    assert all(each > 200 for place in places for each in saturated[place])
    assert_are_delays(found, places)
    assert_nothing_is_left_of_stream(cluster)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["broker", "sykube"])
@pytest.mark.parametrize("place", ["host", "exec", "runc:nodes", "apptainer:pod"])
def test_a_broker_that_dies_and_an_interruption_leave_nothing(
    cluster: TestCluster, place: str, number: signal.Signals
) -> None:
    words = ("bench", "stream", "--name", cluster.name, "--yes", *SMALLEST, "--place", place)
    command = [*cluster.prefix, *release.command([*words, "--rate", "20"], cluster.python)]
    with subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Which has its stream once messages are under way.
        eventually("messages go", lambda: brokers() and clients() == 2, timeout=600)
        for broker in brokers() if number == signal.SIGKILL else []:
            os.kill(broker, number)
        if number == signal.SIGINT:
            process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    if number == signal.SIGKILL:
        assert process.returncode == 1, errors
        assert f"messages did not get through in {place}" in errors
        assert "broker: it has ended" in errors
        assert "Traceback" not in errors
    else:
        assert process.returncode == 130, errors
    eventually("the brokers have ended", lambda: not brokers())
    assert_nothing_is_left_of_stream(cluster)


def streamed(
    cluster: TestCluster, places: Sequence[str], *options: str
) -> subprocess.CompletedProcess[str]:
    asked = ("--messages", "40", "--warm-up", "10", "--rate", "200", *SMALLEST, *options)
    chosen = [word for place in places for word in ("--place", place)]
    words = ("bench", "stream", "--name", cluster.name, "--yes", "-o", "json", *asked, *chosen)
    return cluster.sykube(*words, timeout=900)


def assert_are_delays(found: dict[str, Any], places: Sequence[str]) -> None:
    assert found["base"] == "host"
    assert "the broker to core" in found["pinned"]
    measures = {name: measure["values"] for name, measure in found["measures"].items()}
    assert {*measures} == {"warm_up", "p50", "p90", "p99", "p99.9"}
    for place in places:
        blocks = zip(
            *(measures[name][place] for name in ("p50", "p90", "p99", "p99.9")), strict=True
        )
        for delays in blocks:
            # Microseconds.
            assert 10 < delays[0] <= delays[1] <= delays[2] <= delays[3] < 60e6
    for values in measures.values():
        assert {*values} == {*places}
        assert all(len(each) == 3 for each in values.values())


def brokers() -> list[int]:
    """Processes of brokers on this machine, in any container."""
    return [pid for pid, words in command_lines() if words[0].endswith(SERVERS)]


def clients() -> int:
    """How many producers and consumers there are on this machine, in any container."""
    return sum(
        words[0].endswith("python3") and words[-2] in ("producer", "consumer")
        for _, words in command_lines()
        if len(words) == 5
    )


def command_lines() -> Iterator[tuple[int, list[str]]]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_text(encoding="utf-8", errors="replace").split("\0")[:-1]
        except OSError:
            # It has ended.
            continue
        if words:
            yield int(file.parent.name), words


def assert_nothing_is_left_of_stream(cluster: TestCluster) -> None:
    assert "sykube-bench" not in cluster.kubectl("get", "namespaces", "-o", "name")
    assert "stream" not in cluster.sykube("image", "list", "--name", cluster.name).stdout
    assert not [*(Host().cache / "tmp").glob("stream-*")]
    assert not brokers()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[TestCluster]:
    """A cluster beside the one that is measured."""
    made = TestCluster("e2e-second", tmp_path)
    made.delete_quietly()
    made.init("--workers", "1", "--yes")
    yield made
    made.delete_quietly()


@pytest.mark.long
def test_another_cluster_is_measured_by_its_context_in_the_same_run(
    cluster: TestCluster, second: TestCluster, tmp_path: Path
) -> None:
    files = f"{cluster.kubeconfig}:{second.kubeconfig}"
    asking = replace(cluster, own={"KUBECONFIG": files})
    places = ("host", "runc:nodes", "e2e-second:node", "e2e-second:nodes")
    archive = str(tmp_path / "stream.tar")
    cluster.sykube("bench", "image", "stream", "--yes", "--archive", archive)
    second.sykube("image", "load", "--name", second.name, archive, "--as", "stream:e2e")
    options = ("--context", "e2e-second", "--image", "stream:e2e")
    found = json.loads(streamed(asking, places, *options).stdout)
    assert_are_delays(found, places)
    assert "with stream:e2e" in found["versions"]["the context e2e-second"]
    assert_nothing_is_left_of_stream(cluster)
    assert "sykube-bench" not in second.kubectl("get", "namespaces", "-o", "name")
    options = ("--context", "e2e-second", "--image", "sykube.local/system:1")
    words = ("bench", "network", "--name", cluster.name, "--seconds", "0.1", *SMALLEST, *options)
    found = json.loads(asking.sykube(*words, "-o", "json", timeout=900).stdout)
    there = ("pods of one node", "pods of two nodes", "pod to ClusterIP")
    for measure in found["measures"].values():
        assert all(value > 0 for values in measure["values"].values() for value in values)
        assert {f"e2e-second: {place}" for place in there} < {*measure["values"]}
    # It has the image by another name, and there is no registry.
    asked = ("bench", "stream", "--name", cluster.name, "--yes", *SMALLEST)
    done = asking.sykube(*asked, "--context", "e2e-second", check=False, timeout=900)
    assert done.returncode == 1
    assert "pods of the context e2e-second cannot get the image sykube.local/stream" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_is_left_of_stream(cluster)
    assert "sykube-bench" not in second.kubectl("get", "namespaces", "-o", "name")


@pytest.mark.long
def test_contexts_that_cannot_be_measured_are_refused_before_anything_is_made(
    cluster: TestCluster, tmp_path: Path
) -> None:
    cluster.kubectl("create", "serviceaccount", "measures-nothing")
    try:
        path = "/api/v1/namespaces/default/serviceaccounts/measures-nothing/token"
        asked = '{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}'
        made = cluster.kubectl("create", "--raw", path, "-f", "-", stdin=asked)
        token = json.loads(made)["status"]["token"]
        admin = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
        there = admin["clusters"][0]["cluster"]
        clusters = {"there": there, "gone": {"server": "https://127.0.0.1:1"}}
        users = {"admin": admin["users"][0]["user"], "nobody": {"token": token}}
        contexts = {
            "itself": ("there", "admin"),
            "nobody": ("there", "nobody"),
            "gone": ("gone", "nobody"),
        }
        file = tmp_path / "kubeconfig"
        file.write_text(
            json.dumps({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": each} for name, each in clusters.items()],
                "users": [{"name": name, "user": each} for name, each in users.items()],
                "contexts": [
                    {"name": name, "context": {"cluster": where, "user": user}}
                    for name, (where, user) in contexts.items()
                ],
            })
        )  # fmt: skip
        asking = replace(cluster, own={"KUBECONFIG": str(file)})
        for context, code, said in (
            ("itself", 2, "the context itself is of the same cluster as the cluster e2e"),
            ("nobody", 1, "it may not: get namespaces, create namespaces, delete namespaces"),
            ("gone", 1, "the cluster of the context gone is not reached"),
        ):
            words = ("bench", "stream", "--name", cluster.name, *SMALLEST, "--context", context)
            done = asking.sykube(*words, check=False)
            assert done.returncode == code, done.stderr
            assert said in done.stderr
            assert "Traceback" not in done.stderr
            assert_nothing_is_left_of_stream(cluster)
    finally:
        cluster.kubectl("delete", "serviceaccount", "measures-nothing")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("start", "--runtime", "gvisor"), 2, "cannot run in 'gvisor'"),
        (("hpcc", "--place", "gvisor"), 2, "There are host, exec, runc, crun, apptainer"),
        (("hpcc", "--size", "1000000"), 6, "a matrix of order 1000000 needs"),
        (("stream", "--place", "gvisor:pod"), 2, "cannot be sent in 'gvisor:pod'"),
        (("stream", "--messages", "1000000", "--size", "1000000"), 1, "the disk is too small"),
        (("stream", "--context", "nowhere"), 2, "your kubeconfig has no context 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    cluster: TestCluster, options: tuple[str, ...], code: int, said: str
) -> None:
    what, *rest = options
    done = cluster.sykube("bench", what, "--name", cluster.name, *SMALLEST, *rest, check=False)
    assert done.returncode == code
    assert said in done.stderr


def test_an_input_that_hpc_challenge_would_hang_on_is_refused(
    cluster: TestCluster, tmp_path: Path
) -> None:
    file = tmp_path / "hpccinf.txt"
    file.write_text("garbage\n")
    words = ("bench", "hpcc", "--name", cluster.name, "--input", str(file), *SMALLEST)
    done = cluster.sykube(*words, check=False)
    assert done.returncode == 2
    assert "is no input of HPC Challenge" in done.stderr
