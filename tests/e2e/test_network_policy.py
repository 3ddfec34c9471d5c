"""NetworkPolicies on a real cluster: who reaches whom, and what happens when nobody looks after them.

A pod in each of nine places tries all the others, at the same time, as the test tells it to by a
folder that both see: no connection of the test's own depends on what is tested.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sykube.addons.storage import VOLUMES
from sykube.cluster.model import lookup
from sykube.host.host import Host
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node
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
AGENT, PROBER = (
    (Path(__file__).parent / f"netpol_{name}.py").read_text(encoding="utf-8")
    for name in ("agent", "prober")
)
MERGE = "application/merge-patch+json"
# For what is let through; on a machine that is busy it takes longer, and is tried again.
WAIT_S = 0.8
DENY_X = policy("x", "deny", {}, ingress=[], egress=[])
Target = tuple[str, str, str, int]
# What a kernel without nftables says to a socket of AF_NETLINK for NETLINK_NETFILTER, EPROTONOSUPPORT.
WITHOUT_NFTABLES = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 93,
            "args": [
                {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
                {"index": 2, "value": 12, "op": "SCMP_CMP_EQ"},
            ],
        }
    ],
}
SECCOMP = "/var/lib/kubelet/seccomp/e2e-nftables.json"


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


def probers(namespace: str, image: str) -> Json:
    """A prober on every node, also on one that is not Ready yet."""
    name = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": "prober",
        "image": image,
        "command": ["python3", "-u", "-c", PROBER, f"{namespace}-$(NODE)", "/shared/probers"],
        "env": [name],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    selected = {"prober": "yes"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"namespace": namespace, "name": "prober"},
        "spec": {
            "selector": {"matchLabels": selected},
            "template": {
                "metadata": {"labels": selected},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "enableServiceLinks": False,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [container],
                    "volumes": [{"name": "shared", "hostPath": {"path": f"{VOLUMES}/netpol"}}],
                },
            },
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

    def locate(self) -> None:
        """Wait until all pods are Ready, and note where they are."""
        eventually("the pods are Ready", lambda: all(map(self.is_ready, PODS)))
        self.addresses = {pod: self.get(pod)["status"]["podIP"] for pod in PODS}

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
        lab.locate()
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


def test_nodes_are_selected_by_their_addresses(lab: Lab) -> None:
    """Pods of the host network are their node; a node port shows the client, where it is Local."""
    made = lookup.load(Host(), NAME, Ui())
    near, far = made.nodes
    port = {"name": "tcp", "protocol": "TCP", "port": 8000, "targetPort": 80}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "x", "name": "node-port"},
        "spec": {
            "type": "NodePort",
            "externalTrafficPolicy": "Local",
            "selector": {"pod": "a"},
            "ports": [port],
        },
    }
    lab.api.apply(service)
    found = lab.api.get("/api/v1/namespaces/x/services/node-port")
    by_port = near.address, found["spec"]["ports"][0]["nodePort"]
    pod = lab.addresses["x/a"], 80
    assert node_of("x/a") == 0

    def from_node(node: Node) -> bool:
        connect = f"import socket; socket.create_connection({pod}, 1)"
        return node.run(["python3", "-c", connect], check=False).ok

    def let_in() -> tuple[bool, bool, bool]:
        return from_node(near), from_node(far), _connects(by_port)

    def only(address: str) -> Json:
        return policy(
            "x", "in", labels(pod="a"), ingress=[{"from": [{"ipBlock": {"cidr": f"{address}/32"}}]}]
        )

    eventually("all reach it", lambda: let_in() == (True, True, True))
    # The node of the pod always does: the kubelet's probes are that.
    with lab.policies(only("192.0.2.1")):
        eventually("nobody else does", lambda: let_in() == (True, False, False))
    with lab.policies(only(far.address)):
        eventually("the other node does", lambda: let_in() == (True, True, False))
    with lab.policies(only(made.state.subnets.gateway)):
        eventually("this host does", lambda: let_in() == (True, False, True))
    lab.api.delete(service)


def _connects(where: tuple[str, int]) -> bool:
    try:
        socket.create_connection(where, 1).close()
    except OSError:
        return False
    return True


def test_names_are_found_where_egress_leads_to_the_cluster_dns(lab: Lab) -> None:
    ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": "dns-tcp"}]
    system = {"namespaceSelector": {}, "podSelector": labels(**{"k8s-app": "kube-dns"})}
    dns = policy("x", "out", labels(pod="a"), egress=[{"to": [system], "ports": ports}])
    closed = policy("x", "out", labels(pod="a"), egress=[])
    out = ("out", lab.addresses["y/b"], "TCP", 80)
    name = "kubernetes.default.svc.cluster.local"

    def finds() -> bool:
        command = ("exec", "-n", "x", "a", "--", "timeout", "2", "getent", "ahostsv4", name)
        return bool(lab.cluster.kubectl(*command, check=False))

    with lab.policies(closed):
        eventually("nothing is found", lambda: not finds())
    with lab.policies(dns):
        eventually("the name is found", finds)
        assert not _any(lab, out, ("x/a",))


def test_a_connection_that_is_open_goes_on_and_new_ones_follow(lab: Lab) -> None:
    """Files say when they end, since a policy closes the way that a test could say so by.

    The server ends after the client, whose last words need it.
    """
    begun, stop, end = lab.folder / "begun", lab.folder / "stop", lab.folder / "end"
    address = lab.addresses["x/a"]
    serve = (
        "import contextlib, pathlib, socket, threading\n"
        "server = socket.create_server(('', 9000))\n"
        "def echo(client):\n"
        "    client.settimeout(None)\n"
        "    while piece := client.recv(1): client.sendall(piece)\n"
        "server.settimeout(0.2)\n"
        "while not pathlib.Path('/shared/end').exists():\n"
        "    with contextlib.suppress(TimeoutError):\n"
        "        threading.Thread(target=echo, args=server.accept()[:1], daemon=True).start()\n"
    )
    talk = (
        "import pathlib, socket, time\n"
        "def again():\n"
        "    client.sendall(b'.')\n"
        "    assert client.recv(1)\n"
        f"client = socket.create_connection(('{address}', 9000), 5)\n"
        "again()\n"
        "pathlib.Path('/shared/begun').touch()\n"
        "while not pathlib.Path('/shared/stop').exists():\n"
        "    time.sleep(0.05)\n"
        "    again()\n"
        "again()\n"
        "try:\n"
        f"    socket.create_connection(('{address}', 9000), 1)\n"
        "    print('a new one, too')\n"
        "except TimeoutError:\n"
        "    print('no new one')\n"
    )
    with ThreadPoolExecutor() as pool:
        server = pool.submit(_in_pod, lab, "x/a", serve, 60)
        eventually("it listens", lambda: _any(lab, ("echo", address, "TCP", 9000), ("y/a",)))
        client = pool.submit(_in_pod, lab, "y/a", talk, 60)
        try:
            eventually("they talk", begun.exists)
            with lab.policies(DENY_X):
                closed = ("closed", address, "TCP", 80)
                eventually("x is closed", lambda: not _any(lab, closed, ("y/a",)))
                stop.touch()
                assert client.result() == "no new one\n"
        finally:
            stop.touch()
            client.result()
            end.touch()
            server.result()


def _in_pod(lab: Lab, pod: str, program: str, seconds: int) -> str:
    """What a Python program in a pod prints, also to stderr, which has so long."""
    namespace, _, name = pod.partition("/")
    both = ("sh", "-c", 'exec "$@" 2>&1', "sh")
    command = (*both, "timeout", str(seconds), "python3", "-c", program)
    return lab.cluster.kubectl("exec", "-n", namespace, name, "--", *command, check=False)


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
            # On a busy machine some have no answer in time.
            assert counts[pod]["allowed"] > 250, pod
        ready = [pod for pod in PODS if not lab.is_ready(pod)]
        assert ready == []
    eventually("the next ones see that the policy is gone", lambda: _any(lab, denied, others))


def test_a_policy_that_is_changed_holds_as_it_is_now(lab: Lab) -> None:
    target = ("x/a", lab.addresses["x/a"], "TCP", 80)

    def callers() -> set[str]:
        lab.begin([target])
        return {pod for pod, counts in lab.reached().items() if counts[target[0]]}

    def only(namespace: str) -> Json:
        peers = [{"namespaceSelector": labels(ns=namespace)}]
        return policy("x", "changed", labels(pod="a"), ingress=[{"from": peers}])

    with lab.policies(only("y")):
        eventually("only y reaches it", lambda: callers() == {"x/a", "y/a", "y/b", "y/c"})
        lab.api.apply(only("z"))
        eventually("only z reaches it", lambda: callers() == {"x/a", "z/a", "z/b", "z/c"})


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
                # On a busy machine, what is let through may be tried in vain.
                assert counts[pod]["open"] > 150
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
        eventually("x is open", lambda: _any(lab, denied, ("y/a",)))
        said = lab.cluster.sykube("status", "--name", NAME).stdout
        assert "network policies: 2 NetworkPolicies are accepted and not enforced" in said
        lab.cluster.sykube("addons", "enable", "network-policy", "--name", NAME)
        eventually("x is closed again", lambda: not _any(lab, denied, ("y/a", "z/b")))
        everything = {probe for probe in every_probe() if probe.source[0] == "z" == probe.target[0]}
        eventually("the others reach each other", lambda: everything <= lab.matrix())


def test_what_the_api_server_refuses_never_becomes_a_policy(lab: Lab) -> None:
    """A port's name that no pod has is none of this: it may come."""
    bad: list[tuple[Json, str]] = [
        ({"cidr": ""}, "cidr"),
        ({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}, "except"),
    ]
    before = lab.api.get("/apis/networking.k8s.io/v1/networkpolicies")["items"]
    for block, field_name in bad:
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            rules = {direction: [{peers: [{"ipBlock": block}]}]}
            with pytest.raises(ApiError, match=field_name) as refused:
                lab.api.apply(policy("x", "bad", {}, **rules))
            assert refused.value.status == 422
    assert lab.api.get("/apis/networking.k8s.io/v1/networkpolicies")["items"] == before
    assert "network policies: enforced" in lab.cluster.sykube("status", "--name", NAME).stdout


@pytest.mark.long
def test_a_kernel_without_nftables_is_said_and_keeps_the_rules_that_it_has(lab: Lab) -> None:
    """Of one node; the other one's program goes on."""
    made = lookup.load(Host(), NAME, Ui())
    daemon_set = "/apis/apps/v1/namespaces/kube-system/daemonsets/network-policy"
    for node in made.nodes:
        rules = (
            WITHOUT_NFTABLES if node.instance == NODES[1] else {"defaultAction": "SCMP_ACT_ALLOW"}
        )
        node.run(["mkdir", "-p", str(Path(SECCOMP).parent)])
        node.write(SECCOMP, json.dumps(rules))
    place = "/spec/template/spec/securityContext/seccompProfile"

    def profile(value: Json) -> None:
        patch = [{"op": "replace", "path": place, "value": value}]
        lab.api.request("PATCH", daemon_set, patch, content_type="application/json-patch+json")

    denied = ("denied", lab.addresses["x/b"], "TCP", 80)
    assert node_of("x/b") == 1
    with lab.policies(DENY_X):
        eventually("x/b is closed", lambda: not _any(lab, denied, ("y/a", "y/b")))
        profile({"type": "Localhost", "localhostProfile": Path(SECCOMP).name})
        try:
            why = f"{NODES[1]}: "
            no_nftables = "Protocol not supported"
            eventually("status says so", lambda: no_nftables in _said(lab, "status", 4))
            # Also while it is started again.
            for said in [_said(lab, command, 4) for command in ("status", "doctor") * 3]:
                assert why in said and f"{NODES[0]}: " not in said
                assert no_nftables in said
            # Nor does it wait for what will not come.
            assert (
                f"not enforced on {NODES[1]}" in lab.cluster.sykube("start", "--name", NAME).stderr
            )
            assert not _any(lab, denied, ("y/a", "y/b"))
        finally:
            profile({"type": "RuntimeDefault"})
        eventually("all is well again", lambda: "enforced" in _said(lab, "status", 0), timeout=180)
        assert not _any(lab, denied, ("y/a", "y/b"))
    eventually("it follows again", lambda: _any(lab, denied, ("y/a",)))


def _said(lab: Lab, command: str, code: int) -> str:
    """The line of `status` or `doctor` that is about policies; nothing with another exit code."""
    done = lab.cluster.sykube(command, "--name", NAME, check=False)
    lines = [line for line in done.stdout.splitlines() if "network policies" in line]
    return lines[0] if lines and done.returncode == code else ""


@pytest.mark.long
def test_nothing_gets_through_while_nodes_come_and_go(lab: Lab) -> None:
    """A worker is added, one is killed and started again, the whole cluster stops and starts.

    On each node, one of x and one of y try each other 50 times a second as long as they run.
    """
    made = lookup.load(Host(), NAME, Ui())
    folder = lab.folder / "probers"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)

    def runs(node: str) -> int:
        """How often its two probers have begun, the fewer of them, and have got anywhere."""
        return min(
            sum(bool(found["reached"]) for found in _tries(folder, f"{namespace}-{node}"))
            for namespace in "xy"
        )

    added = f"{NAME}-node2"
    with lab.policies(DENY_X):
        for namespace in "xy":
            lab.api.apply(probers(namespace, lab.image))
        eventually("they have begun", lambda: all(runs(node) == 1 for node in NODES))
        lab.cluster.sykube("node", "add", "--name", NAME)
        eventually("those of the new node have begun", lambda: runs(added) == 1)
        lab.cluster.sykube("node", "delete", "node2", "--name", NAME)
        made.node("node1").kill()
        lab.cluster.sykube("start", "--name", NAME)
        eventually("they have begun again", lambda: runs(NODES[1]) == 2)
        for command in ("stop", "start"):
            lab.cluster.sykube(command, "--name", NAME)
        eventually("all have begun again", lambda: [runs(node) for node in NODES] == [2, 3])
        for name in [f"{namespace}-{node}" for node in (*NODES, added) for namespace in "xy"]:
            for found in _tries(folder, name):
                print(name, found)
                # A machine that is busy tries less often, and still all the time.
                assert found["rounds"] > 5 * found["seconds"], name
                closed = {each for each in found["reached"] if each.startswith("x-")}
                assert closed <= {name}, name
                if name.startswith("x-"):
                    assert {*found["reached"]} == {name}, name
        eventually("those of y reach each other", lambda: _meet(folder, "y", "y"))
    eventually("without the policy they reach those of x, too", lambda: _meet(folder, "y", "x"))
    for namespace in "xy":
        lab.api.delete(probers(namespace, lab.image))
    lab.locate()


def _tries(folder: Path, name: str) -> list[Json]:
    """What each run of a prober has said last."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"tries-{name}-[0-9]*"))]


def _meet(folder: Path, source: str, target: str) -> bool:
    """Whether the probers of a namespace that run now have reached those of another one on NODES."""
    last = [_tries(folder, f"{source}-{node}")[-1]["reached"] for node in NODES]
    return all({f"{target}-{node}" for node in NODES} <= {*each} for each in last)
