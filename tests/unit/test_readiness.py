"""Whether a cluster works, and what is said when it does not."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster import lifecycle, status
from sykube.cluster.lifecycle import InitOptions
from sykube.cluster.spec import ClusterSpec
from sykube.errors import ExitCode, SykubeError
from sykube.host.run import CommandError, Completed
from sykube.kubernetes import node_checks, readiness
from sykube.kubernetes.readiness import dns_answers
from tests.fakes import (
    NODES,
    Calls,
    FakeApi,
    Kubernetes,
    ScriptedEngine,
    World,
    make_node,
    ready,
)


def node(name: str, condition: dict[str, str] | None, pods: str = "") -> dict[str, Any]:
    conditions = [{"type": "DiskPressure", "status": "False"}, *([condition] if condition else [])]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pods} if pods else {},
        "status": {"conditions": conditions},
    }


def api_with(*nodes: dict[str, Any]) -> FakeApi:
    return FakeApi(
        Kubernetes({f"{NODES}/{each['metadata']['name']}": each for each in nodes}), Calls()
    )


def test_nodes_that_are_ready() -> None:
    assert readiness.nodes(api_with(node("a", ready()), node("b", ready())), ["a", "b"]) == ""
    # Others are no concern of the one who asks.
    assert readiness.nodes(api_with(node("a", ready()), node("b", None)), ["a"]) == ""


def test_nodes_that_are_not() -> None:
    assert readiness.nodes(api_with(node("a", ready())), ["a", "b", "c"]) == "not registered: b, c"
    api = api_with(
        node("a", ready(False, "cni plugin not initialized")),
        node("b", None),
        {"metadata": {"name": "c"}, "spec": {}, "status": {}},
        node("d", {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}),
        node("e", {"type": "Ready", "status": "False"}),
    )
    assert readiness.nodes(api, list("abcde")).split("; ") == [
        "a: cni plugin not initialized",
        "b: no status yet",
        "c: no status yet",
        "d: NodeStatusUnknown",
        "e: not Ready",
    ]


def complete() -> Kubernetes:
    """An API server with two Ready nodes and the cluster DNS."""
    objects = {f"{NODES}/{name}": node(name, ready()) for name in ("a", "b")}
    objects["/apis/apps/v1/namespaces/kube-system/deployments/cluster-dns"] = {}
    return Kubernetes(objects)


def test_pods_of_the_system() -> None:
    assert readiness.system_pods(FakeApi(complete(), Calls()), 2) == ""


def test_pods_of_the_system_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = complete()
    server.broken.add("etcd")
    found = readiness.system_pods(FakeApi(server, Calls()), 3)
    assert "kube-proxy on 2 of 3 nodes" in found
    assert found.startswith("etcd: ")
    pods = server.pods()
    monkeypatch.setattr(server, "pods", lambda: pods[1:-1])
    found = readiness.system_pods(FakeApi(server, Calls()), 2)
    assert found == "no pod of etcd; no pod of the cluster DNS"


def test_pod_subnets_are_those_that_cni_hands_out() -> None:
    api = api_with(node("a", ready(), "10.244.0.0/24"), node("x", ready(), "10.9.0.0/24"))
    readiness.check_pod_subnets(api, {"a": "10.244.0.0/24"})
    with pytest.raises(SykubeError, match="a has the pod subnet 10.244.0.0/24, not 10.244.1.0/24"):
        readiness.check_pod_subnets(api, {"a": "10.244.1.0/24"})
    with pytest.raises(SykubeError, match="pod subnet , not"):
        readiness.check_pod_subnets(api_with(node("a", ready())), {"a": "10.244.0.0/24"})


def test_discovery_is_signed_with_the_token_in_use() -> None:
    server = complete()
    api = FakeApi(server, Calls())
    assert readiness.discovery(api, "abcdef") != ""
    api.request(
        "POST",
        "/api/v1/namespaces/kube-system/secrets",
        {"metadata": {"name": "s"}, "stringData": {"token-id": "abcdef", "token-secret": "s"}},
    )
    assert readiness.discovery(api, "abcdef") == ""
    assert readiness.discovery(api, "ghijkl") != ""


# --- DNS: the very program that runs in a node, against a server here ---


class DnsServer:
    """Answers on loopback; `reply` makes the answer from the query."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.queries: list[bytes] = []
        self.rcode, self.answers = 0, 1
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self.socket.recvfrom(512)
            except OSError:
                return
            self.queries.append(query)
            head = query[:2] + struct.pack(">HHHHH", 0x8180 | self.rcode, 1, self.answers, 0, 0)
            self.socket.sendto(head + query[12:], client)


@pytest.fixture
def server() -> Iterator[DnsServer]:
    made = DnsServer()
    yield made
    made.socket.close()


NAME = "kubernetes.default.svc.cluster.local"


def ask(server: DnsServer) -> str:
    return dns_answers(os.getpid(), "127.0.0.1", NAME)


def test_dns_that_answers(server: DnsServer) -> None:
    dns_message = pytest.importorskip("dns.message")
    assert ask(server) == ""
    question = dns_message.from_wire(server.queries[0]).question
    assert [str(each) for each in question] == [f"{NAME}. IN A"]


def test_dns_that_knows_no_such_name(server: DnsServer) -> None:
    server.rcode = 3
    assert ask(server) == f"no address for {NAME} (response code 3)"


def test_dns_that_answers_without_an_address(server: DnsServer) -> None:
    server.answers = 0
    assert ask(server) == f"no address for {NAME} (response code 0)"


def test_dns_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> bytes:
        raise TimeoutError("timed out")

    monkeypatch.setattr(netns, "exchange", silent)
    assert dns_answers(7, "10.96.0.10", NAME) == f"no answer for {NAME}: timed out"


# --- a node ---


def test_a_node_that_is_fit() -> None:
    engine = ScriptedEngine(stdout="\n")
    node_checks.run_checks(make_node(engine))
    ((name, *argv),) = engine.argvs
    # Its own name is what its host name is compared with.
    assert (name, argv[-1]) == ("fake-master", "fake-master")


def test_a_node_that_is_not_says_all_that_is_missing() -> None:
    engine = ScriptedEngine(stdout="the program tc is missing\nthe host name is x, not y\n")
    with pytest.raises(SykubeError, match="node1 is not fit for Kubernetes") as raised:
        node_checks.run_checks(make_node(engine, name="node1"))
    assert raised.value.details.splitlines() == [
        "the program tc is missing",
        "the host name is x, not y",
    ]


def test_the_checks_are_a_script_that_a_shell_reads(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-n", "-c", node_checks._SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- status ---


def look(world: World) -> status.Status:
    return status.look(lifecycle.load("fake", world.ui()))


@pytest.fixture
def up(world: World) -> World:
    lifecycle.init(ClusterSpec(name="fake", dns=("192.0.2.1",)), InitOptions(), world.ui())
    return world


def test_a_cluster_that_is_well(up: World) -> None:
    found = look(up)
    assert found.exit_code is ExitCode.OK
    assert found.summary == "well"
    shown = found.to_dict()
    assert shown["status"] == "well"
    assert [each["name"] for each in shown["nodes"]] == ["master", "node1"]
    assert [each.summary for each in found.nodes] == ["Ready", "Ready"]


def test_a_cluster_without_one_of_its_nodes(up: World) -> None:
    up.end("fake-node1")
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert [each.summary for each in found.nodes] == ["Ready", "stopped"]


def test_a_cluster_without_its_master(up: World) -> None:
    up.end("fake-master")
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert "does not answer" in found.api
    assert found.dns == "the master does not run"


def test_a_cluster_that_is_stopped(up: World) -> None:
    for name in list(up.instances):
        up.end(name)
    found = look(up)
    assert found.exit_code is ExitCode.STOPPED
    assert found.summary == "stopped"


def test_a_cluster_with_a_pod_that_is_not_ready(up: World) -> None:
    up.kubernetes["fake"].broken.add("kube-scheduler")
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert "kube-scheduler" in found.pods


def test_a_cluster_whose_dns_check_hangs_is_degraded(up: World) -> None:
    up.calls.fail(
        lambda call: "python3" in call.words,
        lambda call: CommandError("python3 did not end within 10 s", call.words, ""),
        times=None,
    )
    assert look(up).exit_code is ExitCode.DEGRADED


def test_a_cluster_without_dns_is_degraded(up: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "in_node", lambda *_: (1, "", "timed out"))
    found = look(up)
    assert found.exit_code is ExitCode.DEGRADED
    assert found.dns.endswith("timed out")
