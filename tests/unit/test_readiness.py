"""Whether a cluster works, and what is said when it does not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sykube.errors import SykubeError
from sykube.kubernetes import node_checks, readiness
from sykube.kubernetes.readiness import dns_answers
from tests.fakes import Calls
from tests.fakes.apiserver import (
    CONTROL_PLANE_LABEL,
    LACKS_NETWORK,
    NODES,
    FakeApi,
    Kubernetes,
    ready,
)
from tests.fakes.engine import ScriptedEngine
from tests.fakes.nodes import make_node


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
    assert readiness.nodes(api_with(node("a", ready())), ["a", "b", "c"]) == (
        "b: not registered; c: not registered"
    )
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
    """An API server with two Ready nodes, one of them a control plane, and the cluster DNS."""
    objects = {f"{NODES}/{name}": node(name, ready()) for name in ("a", "b")}
    objects[f"{NODES}/a"]["metadata"]["labels"] = {CONTROL_PLANE_LABEL: ""}
    objects["/apis/apps/v1/namespaces/kube-system/deployments/cluster-dns"] = {}
    return Kubernetes(objects)


def test_pods_of_the_system() -> None:
    assert readiness.system_pods(FakeApi(complete(), Calls()), 2) == ""


def ended(name: str, phase: str, **status: Any) -> dict[str, Any]:
    """A pod of kube-system that is over; as the kubelet leaves it."""
    return {
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
        "status": {"phase": phase, "conditions": [ready(False, "PodCompleted")], **status},
    }


@pytest.mark.parametrize(
    "over",
    [
        ended("backup-1", "Succeeded"),
        ended("backup-2", "Failed"),
        # The node's kubelet wrote no condition.
        ended("web-3", "Failed", reason="Evicted", conditions=[]),
        ended("web-4", "Failed", reason="NodeShutdown"),
    ],
    ids=["succeeded", "failed", "evicted", "shut-down"],
)
def test_pods_that_are_over_are_not_waited_for(
    over: dict[str, Any],
) -> None:
    server = complete()
    server.shown = lambda pods: [*pods, over]
    assert readiness.system_pods(FakeApi(server, Calls()), 2) == ""


def test_a_pod_that_is_over_is_none_of_those_that_must_be_there() -> None:
    server = complete()
    pods = server.pods()
    (proxy,) = (pod for pod in pods if pod["metadata"]["name"] == "kube-proxy-b")
    proxy["status"] |= {"phase": "Failed", "reason": "Evicted"}
    server.shown = lambda _: pods
    found = readiness.system_pods(FakeApi(server, Calls()), 2)
    assert found == "kube-proxy on 1 of 2 nodes"


def test_pods_of_the_system_that_are_missing() -> None:
    server = complete()
    server.broken.add("etcd")
    found = readiness.system_pods(FakeApi(server, Calls()), 3)
    assert found.split("; ") == ["etcd-a: Test", "kube-proxy on 2 of 3 nodes"]
    server.shown = lambda pods: pods[1:-1]
    found = readiness.system_pods(FakeApi(server, Calls()), 2)
    assert found.split("; ") == [
        "etcd on 0 of 1 control planes",
        "no pod of the cluster DNS",
        "cluster-dns: 0 of 1 pods",
    ]


def test_a_deployment_whose_pods_were_not_made_yet() -> None:
    """As after the first seconds of init --from: what it says of itself is of the snapshot."""
    server = complete()
    server.objects["/apis/apps/v1/namespaces/kube-system/deployments/balancer"] = {
        "metadata": {"name": "balancer"},
        "spec": {"replicas": 2},
        "status": {"availableReplicas": 2},
    }
    assert readiness.system_pods(FakeApi(server, Calls()), 2) == ""
    server.shown = lambda pods: pods[:-1]
    api = FakeApi(server, Calls())
    assert readiness.system_pods(api, 2) == "balancer: 1 of 2 pods"
    assert readiness.system_pods(api, 2, networked=False) == ""


def test_every_control_plane_has_all_of_its_pods() -> None:
    found = readiness.system_pods(FakeApi(complete(), Calls()), 2, control_planes=3)
    assert found.split("; ") == [
        f"{name} on 1 of 3 control planes"
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ]


LACKING = [
    (LACKS_NETWORK, True),
    # Kubernetes 1.20's words.
    (
        "runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
        "message:Network plugin returns error: cni config uninitialized",
        True,
    ),
    (f"[{LACKS_NETWORK}, CSINode is not yet initialized]", False),
    ("PLEG is not healthy", False),
]


@pytest.mark.parametrize(("message", "lacking"), LACKING)
def test_a_node_that_lacks_only_a_network_has_joined(message: str, lacking: bool) -> None:
    found = node("a", ready(False, message))
    assert readiness.lacks_network(found) is lacking
    assert readiness.has_joined({"a": found}, "a") is lacking


def test_nodes_that_have_joined() -> None:
    found = {"a": node("a", ready()), "b": node("b", None)}
    assert [readiness.has_joined(found, name) for name in "abc"] == [True, False, False]
    assert not readiness.lacks_network(found["a"])


def test_without_a_pod_network_only_pods_on_their_nodes_are_looked_at() -> None:
    server = complete()
    server.bare = {"a", "b"}
    api = FakeApi(server, Calls())
    assert "cluster-dns" in readiness.system_pods(api, 2)
    assert readiness.system_pods(api, 2, networked=False) == ""
    server.broken = {"etcd"}
    assert "etcd-a" in readiness.system_pods(api, 2, networked=False)


# --- DNS: the very query, sent to a server here ---


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
    def exchange(address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        """At the port of the server, which is not 53."""
        assert address == ("127.0.0.1", 53)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.settimeout(timeout)
            connection.sendto(request, ("127.0.0.1", server.port))
            return connection.recv(512)

    return dns_answers(exchange, "127.0.0.1", NAME)


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


def test_dns_that_answers_with_half_a_header() -> None:
    assert (
        dns_answers(lambda *_: b"\0\1\x81", "10.96.0.10", NAME)
        == f"no address for {NAME} (response code -1)"
    )


def test_dns_that_loses_a_query_is_asked_again() -> None:
    asked = []

    def exchange(*_: object) -> bytes:
        asked.append(1)
        if len(asked) == 1:
            raise TimeoutError("timed out")
        return b"\0\1\x81\x80\0\1\0\1"

    assert dns_answers(exchange, "10.96.0.10", NAME) == ""


def test_dns_that_does_not_answer() -> None:
    def silent(*_: object) -> bytes:
        raise TimeoutError("timed out")

    assert dns_answers(silent, "10.96.0.10", NAME) == f"no answer for {NAME}: timed out"


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
