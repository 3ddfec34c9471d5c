"""NetworkPolicies on a real cluster: who reaches whom, and what happens when nobody looks after them.

A pod in each of nine places tries all the others, at the same time, as the test tells it to by a
folder that both see: no connection of the test's own depends on what is tested.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sykube.addons.storage import VOLUMES
from sykube.cluster.model import lookup
from sykube.host.host import Host
from sykube.kubernetes.api import Api, ApiError
from sykube.ui import Ui
from tests.e2e.cluster import TestCluster, eventually
from tests.network_policies import (
    CASES,
    NAMESPACES,
    PODS,
    PORTS,
    Case,
    Probe,
    every_probe,
    labels,
    node_of,
    policy,
    port_name,
)

Json = dict[str, Any]
NAME = "e2e-dash"
NODES = (f"{NAME}-master", f"{NAME}-node1")
AGENT = (Path(__file__).parent / "netpol_agent.py").read_text(encoding="utf-8")
MERGE = "application/merge-patch+json"
# For what is let through; on a machine that is busy it takes longer, and is tried again.
WAIT_S = 0.8
DENY_X = policy("x", "deny", {}, ingress=[], egress=[])
Target = tuple[str, str, str, int]


def agent(pod: str, image: str, node: str) -> Json:
    namespace, _, name = pod.partition("/")
    container = {
        "name": "agent",
        "image": image,
        "command": ["python3", "-u", "-c", AGENT, pod, "/shared"],
        "ports": [
            {"name": port_name(protocol, port), "protocol": protocol, "containerPort": port}
            for protocol, port in PORTS
        ],
        # Every second: a probe that is denied is noticed before long.
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1},
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
            "containers": [container],
            "volumes": [{"name": "shared", "hostPath": {"path": f"{VOLUMES}/netpol"}}],
        },
    }


@dataclass
class Lab:
    """The pods, and how they are told what to try."""

    cluster: TestCluster
    api: Api
    folder: Path
    image: str
    addresses: dict[str, str] = field(default_factory=dict)
    _round: int = field(default_factory=lambda: int(time.time()))

    def start(self, *pods: str) -> None:
        for pod in pods:
            self.api.apply(agent(pod, self.image, NODES[node_of(pod) if pod in PODS else 0]))

    def get(self, pod: str) -> Json:
        namespace, _, name = pod.partition("/")
        found: Json = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return found

    def is_ready(self, pod: str) -> bool:
        conditions = self.get(pod).get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def begin(self, probes: list[Target], *, times: int = 1, every: float = 0.02) -> None:
        """Tell all pods to reach these; each is [what to call it, address, protocol, port]."""
        self._round += 1
        order = {
            "round": self._round, "probes": probes, "times": times, "every": every, "wait": WAIT_S,
        }  # fmt: skip
        new = self.folder / ".order"
        new.write_text(json.dumps(order))
        new.rename(self.folder / "order")

    def reached(self, pods: tuple[str, ...] = PODS) -> dict[str, dict[str, int]]:
        """How often each pod has reached each of what it was last told to."""
        files = {pod: self.folder / f"{self._round}-{pod.replace('/', '-')}" for pod in pods}
        eventually("all pods answer", lambda: all(file.exists() for file in files.values()))
        return {pod: json.loads(file.read_text()) for pod, file in files.items()}

    def matrix(self) -> set[Probe]:
        """What is reached now."""
        targets = [
            (f"{target} {protocol} {port}", self.addresses[target], protocol, port)
            for target in PODS
            for protocol, port in PORTS
        ]
        self.begin(targets)
        return {
            Probe(source, called.split()[0], called.split()[1], int(called.split()[2]))
            for source, counts in self.reached().items()
            for called, count in counts.items()
            if count
        }

    @contextmanager
    def policies(self, *objects: Json) -> Iterator[None]:
        for each in objects:
            self.api.apply(each)
        try:
            yield
        finally:
            for each in objects:
                self.api.delete(each)

    @contextmanager
    def labels(self, added: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
        def patch(wanted: Callable[[Mapping[str, str]], Mapping[str, str | None]]) -> None:
            for where, found in added.items():
                namespace, _, pod = where.partition("/")
                path = f"/api/v1/namespaces/{namespace}" + (f"/pods/{pod}" if pod else "")
                body = {"metadata": {"labels": wanted(found)}}
                self.api.request("PATCH", path, body, content_type=MERGE)

        patch(lambda found: found)
        try:
            yield
        finally:
            patch(lambda found: dict.fromkeys(found))


@pytest.fixture(scope="module")
def lab(observed: TestCluster) -> Iterator[Lab]:
    made = lookup.load(Host(), NAME, Ui())
    folder = made.paths.volumes / "netpol"
    folder.mkdir(mode=0o777, exist_ok=True)
    with made.api() as api:
        for name in NAMESPACES:
            metadata = {"name": name, "labels": {"ns": name}}
            api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        lab = Lab(observed, api, folder, observed.image)
        eventually("pods are accepted", lambda: _accepts(lab))
        eventually("the pods are Ready", lambda: all(map(lab.is_ready, PODS)))
        lab.addresses = {pod: lab.get(pod)["status"]["podIP"] for pod in PODS}
        yield lab
        for name in NAMESPACES:
            api.delete(f"/api/v1/namespaces/{name}")
    shutil.rmtree(folder)


def _accepts(lab: Lab) -> bool:
    """A namespace has its service account a moment later."""
    try:
        lab.start(*PODS)
    except ApiError:
        return False
    return True


def test_who_reaches_whom(lab: Lab) -> None:
    """Every case of the table that this Kubernetes knows."""
    minor = lab.cluster.minor
    assert _settled(lab, {*every_probe()}) == {*every_probe()}
    failed = []
    for case in [each for each in CASES if each.since <= minor]:
        started = time.monotonic()
        expected = {probe for probe in every_probe() if case.allows(probe)}
        with lab.policies(*case.objects(lab.addresses)), lab.labels(case.labels):
            found = _settled(lab, expected)
        print(f"{time.monotonic() - started:5.1f} s {case.title}")
        if found != expected:
            failed.append(_difference(case, expected, found))
    assert failed == []
    assert _settled(lab, {*every_probe()}) == {*every_probe()}


def _settled(lab: Lab, expected: set[Probe]) -> set[Probe]:
    deadline = time.monotonic() + 10
    while True:
        found = lab.matrix()
        if found == expected or time.monotonic() > deadline:
            return found


def _difference(case: Case, expected: set[Probe], found: set[Probe]) -> str:
    through, lost = sorted(found - expected), sorted(expected - found)
    return f"{case.title}: let through {through[:5]}, not let through {lost[:5]}"


def test_a_service_is_its_pods(lab: Lab) -> None:
    """By its address the policy sees who asks, and where it leads."""
    ports = [{"name": "tcp", "protocol": "TCP", "port": 8000, "targetPort": 80}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "x", "name": "a"},
        "spec": {"selector": {"pod": "a"}, "ports": ports},
    }
    lab.api.apply(service)
    address = lab.api.get("/api/v1/namespaces/x/services/a")["spec"]["clusterIP"]
    only_y = policy(
        "x", "in", labels(pod="a"), ingress=[{"from": [{"namespaceSelector": labels(ns="y")}]}]
    )
    out = policy("z", "out", labels(pod="a"), egress=[{"to": [{"podSelector": {}}]}])

    def callers() -> set[str]:
        lab.begin([("service", address, "TCP", 8000)])
        return {pod for pod, counts in lab.reached().items() if counts["service"]}

    eventually("everybody reaches the Service", lambda: callers() == {*PODS})
    with lab.policies(only_y):
        # Also itself.
        wanted = {"x/a", "y/a", "y/b", "y/c"}
        eventually("only y reaches it", lambda: callers() == wanted, timeout=20)
    with lab.policies(out):
        eventually("z/a does not get out", lambda: callers() == {*PODS} - {"z/a"}, timeout=20)
    lab.api.delete(service)


def test_nothing_gets_through_while_the_programs_are_killed(lab: Lab) -> None:
    """Nor do the kubelet's probes fail, or what is let through."""
    denied = ("denied", lab.addresses["x/a"], "TCP", 80)
    allowed = ("allowed", lab.addresses["y/a"], "TCP", 80)
    six = json.loads((lab.folder / "addresses-x-c").read_text())[0]
    by_link = ("by the link", six, "TCP", 80)
    others = tuple(pod for pod in PODS if pod[0] != "x")
    with lab.policies(DENY_X):
        eventually("x is closed", lambda: not _any(lab, denied, others))
        lab.begin([denied, allowed, by_link], times=500)
        lab.cluster.kubectl(
            *("delete", "pod", "-n", "kube-system", "-l", "k8s-app=network-policy"),
            *("--grace-period=0", "--force"),
        )
        counts = lab.reached()
        for pod in others:
            assert (counts[pod]["denied"], counts[pod]["by the link"]) == (0, 0), pod
            assert counts[pod]["allowed"] > 450, pod
        ready = [pod for pod in PODS if not lab.is_ready(pod)]
        assert ready == []
    eventually("the next ones see that the policy is gone", lambda: _any(lab, denied, others))


def _any(lab: Lab, target: Target, pods: tuple[str, ...]) -> bool:
    lab.begin([target])
    return any(lab.reached()[pod][target[0]] for pod in pods)


def test_a_pod_that_starts_is_denied_from_its_first_moment(lab: Lab) -> None:
    """Tried are the addresses that the node gives next, before one of them is the pod's."""
    node = lab.api.get(f"/api/v1/nodes/{NODES[0]}")["spec"]["podCIDR"].rpartition(".")[0]
    script = "cat /run/cni/networks/sykube-pods/last_reserved_ip.0"
    last = lab.cluster.sykube("exec", "--name", NAME, "master", "sh", "-c", script).stdout
    begin = int(last.rpartition(".")[2])
    coming = [f"{node}.{2 + (begin - 1 + n) % 252}" for n in range(4)]
    open_one = ("open", lab.addresses["y/a"], "TCP", 80)
    with lab.policies(DENY_X):
        eventually(
            "x is closed", lambda: not _any(lab, ("x", lab.addresses["x/a"], "TCP", 80), ("y/a",))
        )
        lab.begin([*((each, each, "TCP", 80) for each in coming), open_one], times=300)
        lab.start("x/new")
        counts = lab.reached()
        eventually("the pod is Ready", lambda: lab.is_ready("x/new"))
        address = lab.get("x/new")["status"]["podIP"]
        assert address in coming
        for pod in PODS:
            if pod[0] != "x":
                assert counts[pod][address] == 0
                assert counts[pod]["open"] > 250
    eventually("it can be reached", lambda: _any(lab, ("new", address, "TCP", 80), ("y/a",)))
    lab.api.delete("/api/v1/namespaces/x/pods/new")


def test_status_says_what_policies_are_worth_and_disabling_what_is_lost(lab: Lab) -> None:
    named = policy("y", "named", labels(pod="a"), ingress=[{"ports": [{"port": "nobody-has"}]}])
    denied = ("denied", lab.addresses["x/a"], "TCP", 80)
    with lab.policies(DENY_X, named):
        said = lab.cluster.sykube("status", "--name", NAME).stdout
        assert "network policies: 2 enforced, but let nothing through here: y/named" in said
        doctor = lab.cluster.sykube("doctor", "--name", NAME, check=False).stdout
        assert "no pod has a port named 'nobody-has'" in doctor
        off = lab.cluster.sykube("addons", "disable", "network-policy", "--name", NAME)
        assert "no longer enforced: NetworkPolicy x/deny, y/named" in off.stderr
        assert _any(lab, denied, ("y/a",))
        said = lab.cluster.sykube("status", "--name", NAME).stdout
        assert "network policies: 2 NetworkPolicies are accepted and not enforced" in said
        lab.cluster.sykube("addons", "enable", "network-policy", "--name", NAME)
        eventually("x is closed again", lambda: not _any(lab, denied, ("y/a", "z/b")))
        everything = {probe for probe in every_probe() if probe.source[0] == "z" == probe.target[0]}
        assert everything <= lab.matrix()
