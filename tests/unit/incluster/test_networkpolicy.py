"""The program that enforces NetworkPolicies, with a kernel that is an interpreter of its rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from sykube import incluster
from sykube.incluster.api import Api
from sykube.incluster.networkpolicy import nft, policies, selectors
from sykube.incluster.networkpolicy.__main__ import Enforcer, serve
from sykube.incluster.networkpolicy.objects import Objects, Pod, pod_of
from sykube.incluster.networkpolicy.places import Claim, Places
from sykube.incluster.networkpolicy.rules import (
    ADDRESS_PORT,
    EGRESS,
    INGRESS,
    SELF,
    Compiler,
    Ruleset,
    Set,
)
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
from tests.unit.incluster.test_watch import POLICIES, QUICK, FakeApi, eventually

Json = dict[str, Any]
ADDRESSES = {pod: f"10.244.{node_of(pod)}.{2 + PODS.index(pod)}" for pod in PODS}
_RULE = re.compile(
    r"ip daddr \. (?P<named>\w+) dport (?P<where>@\S+)"
    r"|ip (?P<field>[sd]addr) (?P<not>!= )?(?P<what>@\S+|\{[^}]*\}|\S+)"
    r"|(?P<protocol>\w+) dport \{ (?P<numbers>[^}]*) \}"
    r"|meta l4proto (?P<whole>\w+)"
)


def made_pod(pod: str, extra: Mapping[str, Mapping[str, str]] = {}) -> Pod:
    namespace, _, name = pod.partition("/")
    ports = tuple((protocol, port_name(protocol, port), port) for protocol, port in PORTS)
    own = {"pod": name, **extra.get(pod, {})}
    return Pod(namespace, name, own, str(node_of(pod)), (), ADDRESSES[pod], True, ports)


def compiled(
    objects: Sequence[Json], node: int, extra: Mapping[str, Mapping[str, str]] = {}
) -> Ruleset:
    """The rules of a node with some policies."""
    pods = [made_pod(pod, extra) for pod in PODS]
    local = {pod.address: pod for pod in pods if pod.node == str(node)}
    namespaces = {
        each: {"ns": each, "kubernetes.io/metadata.name": each, **extra.get(each, {})}
        for each in NAMESPACES
    }
    found = [policies.read(each) for each in objects]
    return Compiler(pods, namespaces, local, str(node)).compile(found)


class Kernel:
    """Decides as nftables would by what it was told."""

    def __init__(self, rules: Ruleset) -> None:
        self.rules = rules

    def passes(self, source: str, target: str, protocol: str, port: int) -> bool:
        """Whether a packet is let out and in, where this node has to do with it."""
        if f"{source} . {target}" in self.rules.sets[SELF].elements:
            return True
        packet = (source, target, protocol, port)
        out = self._decide(EGRESS, source, packet)
        return out and self._decide(INGRESS, target, packet)

    def _decide(self, direction: str, address: str, packet: tuple[str, str, str, int]) -> bool:
        verdict = self.rules.maps[direction].get(address)
        if verdict is None:
            # Of another node, which decides.
            return True
        while verdict not in ("accept", "drop", "goto arriving"):
            chain = self.rules.chains[verdict.removeprefix("goto ")]
            verdict = next(v for v in (self._verdict(line, packet) for line in chain) if v)
        return verdict != "drop"

    def _verdict(self, line: str, packet: tuple[str, str, str, int]) -> str:
        conditions, verdict = re.fullmatch(r"(.*?) ?(accept|drop|goto \S+)", line).groups()  # type: ignore[union-attr]
        rest = _RULE.sub("", conditions).strip()
        assert not rest, f"unknown: {rest}"
        met = all(self._meets(each, packet) for each in _RULE.finditer(conditions))
        return verdict if met else ""

    def _meets(self, match: re.Match[str], packet: tuple[str, str, str, int]) -> bool:
        source, target, protocol, port = packet
        if match["field"]:
            address = source if match["field"] == "saddr" else target
            return self._within(address, match["what"]) is not bool(match["not"])
        if match["named"]:
            elements = self.rules.sets[match["where"][1:]].elements
            return protocol == match["named"] and f"{target} . {port}" in elements
        if match["whole"]:
            return protocol == match["whole"]
        ranges = [each.split("-") for each in match["numbers"].split(", ")]
        inside = any(int(each[0]) <= port <= int(each[-1]) for each in ranges)
        return protocol == match["protocol"] and inside

    def _within(self, address: str, what: str) -> bool:
        if what.startswith("@"):
            return address in self.rules.sets[what[1:]].elements
        listed = what.strip("{ }").split(", ")
        return any(IPv4Address(address) in IPv4Network(each) for each in listed)


def kernels(case: Case) -> list[Kernel]:
    return [Kernel(compiled(case.objects(ADDRESSES), node, case.labels)) for node in (0, 1)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_who_reaches_whom(case: Case) -> None:
    nodes = kernels(case)

    def passes(probe: Probe) -> bool:
        where = (ADDRESSES[probe.source], ADDRESSES[probe.target], probe.protocol.lower())
        return all(each.passes(*where, probe.port) for each in nodes)

    wrong = [probe for probe in every_probe() if passes(probe) != case.allows(probe)]
    assert wrong == []


def test_whoever_is_outside_of_the_cluster_is_denied_unless_a_range_has_it() -> None:
    block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25", "192.0.2.200/32"]}}
    kernel = Kernel(compiled([policy("x", "in", {}, ingress=[{"from": [block]}])], 0))
    there = (ADDRESSES["x/a"], "tcp", 80)
    assert kernel.passes("192.0.2.1", *there)
    assert not kernel.passes("192.0.2.130", *there)
    assert not kernel.passes("198.51.100.1", *there)


def test_pods_with_the_same_policies_share_a_chain_and_the_same_selectors_a_set() -> None:
    peers = {"namespaceSelector": labels(ns="y")}
    rules = compiled(
        [
            policy("x", str(n), {}, ingress=[{"from": [peers], "ports": [{"port": n}]}])
            for n in (1, 2)
        ],
        0,
    )
    assert len(rules.chains) == 1
    assert {*rules.maps[INGRESS].values()} == {"accept", f"goto {next(iter(rules.chains))}"}
    assert len(rules.sets) == 2 and SELF in rules.sets


def test_a_pod_on_its_nodes_network_and_one_that_has_ended_are_no_peers() -> None:
    base: Json = {"metadata": {"namespace": "x", "name": "p"}, "spec": {"nodeName": "n"}}
    running: Json = base | {"status": {"phase": "Running", "podIP": "10.244.0.9"}}
    assert pod_of(running).address == "10.244.0.9"
    host = running | {"spec": {"nodeName": "n", "hostNetwork": True}}
    ended = base | {"status": {"phase": "Succeeded", "podIP": "10.244.0.9"}}
    for each in (host, ended):
        assert (pod_of(each).address, pod_of(each).awaits) == ("", False)


def test_the_ports_of_sidecars_are_ports_of_the_pod() -> None:
    def container(name: str, **more: Any) -> Json:
        return {"ports": [{"name": name, "containerPort": 1}], **more}

    spec = {
        "containers": [container("web")],
        "initContainers": [container("side", restartPolicy="Always"), container("first")],
    }
    found = pod_of({"metadata": {"namespace": "x", "name": "p"}, "spec": spec})
    assert [name for _, name, _ in found.ports] == ["side", "web"]


# --- what cannot be enforced ---

BAD_RULES: tuple[tuple[Json, str], ...] = (
    ({"from": [{"ipBlock": {"cidr": ""}}]}, "ingress[0].from[0].ipBlock.cidr '' is no range"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}, "'10.0.0.0/33' is no range of addresses"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}, "'10.0.0.0' is no range of addresses"),
    (
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]},
        "ingress[0].from[0].ipBlock.except[0] 11.0.0.0/16 is not within 10.0.0.0/8",
    ),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]}}]}, "is not within"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}}]}, "is not within"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}, "beside a selector"),
    ({"from": [{}]}, "ingress[0].from[0] names nobody"),
    ({"from": [{"serviceSelector": {}}]}, "ingress[0].from[0] has the unknown field serviceSelector"),
    ({"except": []}, "ingress[0] has the unknown field except"),
    (
        {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}]},
        "ingress[0].from[0].podSelector has the unknown operator 'Gt'",
    ),
    ({"ports": [{"port": 80, "protocol": "DCCP"}]}, "ports[0] has the unknown protocol 'DCCP'"),
    ({"ports": [{"port": 80, "endPort": 79}]}, "ingress[0].ports[0] 80 to 79 is no range of ports"),
    ({"ports": [{"port": "http", "endPort": 90}]}, "has an endPort without a port's number"),
    ({"ports": [{"endPort": 90}]}, "has an endPort without a port's number"),
    ({"ports": [{"port": 70000}]}, "70000 to 70000 is no range of ports"),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "words"), BAD_RULES, ids=[words for _, words in BAD_RULES])
def test_what_is_not_understood_is_named_and_lets_nothing_through(rule: Json, words: str) -> None:
    obj = policy("x", "bad", {}, ingress=[rule])
    [problem] = policies.read(obj).problems
    assert words in problem
    kernel = Kernel(compiled([obj], 0))
    assert not kernel.passes(ADDRESSES["y/a"], ADDRESSES["x/a"], "tcp", 80)


def test_the_rest_of_a_policy_is_enforced_as_it_says() -> None:
    peers = [{"ipBlock": {"cidr": ""}}, {"podSelector": labels(pod="b")}]
    kernel = Kernel(compiled([policy("x", "half", {}, ingress=[{"from": peers}])], 0))
    assert kernel.passes(ADDRESSES["x/b"], ADDRESSES["x/a"], "tcp", 80)
    assert not kernel.passes(ADDRESSES["x/c"], ADDRESSES["x/a"], "tcp", 80)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"podSelector": {"matchFields": {}}, "ingress": [{}]},
            "podSelector has the unknown field",
        ),
        ({"podSelector": {}, "ingress": [{}], "tier": 3}, "spec has the unknown field tier"),
        ({"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress", "Audit"]}, "'Audit'"),
    ],
)
def test_a_spec_that_is_not_understood_is_for_all_pods_or_lets_nobody_in(
    spec: Json, words: str
) -> None:
    obj = {"metadata": {"namespace": "x", "name": "bad"}, "spec": spec}
    found = policies.read(obj)
    assert words in found.problems[0]
    if "podSelector" not in words:
        assert found.ingress == ()
    assert selectors.matches(found.pods, {"pod": "a"})


def test_ranges_of_ipv6_are_nobodys_and_no_mistake() -> None:
    peers = [{"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}}]
    found = policies.read(policy("x", "six", {}, ingress=[{"from": peers}]))
    assert found.problems == ()
    kernel = Kernel(compiled([policy("x", "six", {}, ingress=[{"from": peers}])], 0))
    assert not kernel.passes(ADDRESSES["y/a"], ADDRESSES["x/a"], "tcp", 80)


def test_without_types_a_policy_is_of_ingress_and_of_egress_where_it_has_some() -> None:
    def read(**spec: Any) -> policies.Policy:
        return policies.read({"metadata": {"namespace": "x", "name": "p"}, "spec": spec})

    assert (read().ingress, read().egress) == ((), None)
    both = read(egress=[{}])
    assert both.ingress == () and both.egress == (policies.Rule(),)


def test_names_of_ports_that_no_pod_has() -> None:
    found = [
        policies.read(policy("x", "p", {}, egress=[{"ports": [{"port": "a"}, {"port": "b"}]}]))
    ]
    assert policies.unused_names(found, {"b"}) == {("x", "p"): ["a"]}
    assert policies.unused_names(found, {"a", "b"}) == {}


# --- what nft is told ---


def test_only_what_is_different_is_told() -> None:
    open_to_b = policy(
        "x", "p", labels(pod="a"), ingress=[{"from": [{"podSelector": labels(pod="b")}]}]
    )
    closed = policy("x", "p", labels(pod="a"), ingress=[])
    before, after = compiled([closed], 0), compiled([open_to_b], 0)
    assert nft.change(after, after) == ""
    lines = nft.change(before, after).splitlines()
    words = [line.split(" ip sykube-policies")[0] for line in lines]
    # Sets before the chains that use them, chains before the map that leads there.
    assert words == [
        "add set", "add element", "add chain", "add rule", "add rule", "delete element",
        "add element", "flush chain", "delete chain",
    ]  # fmt: skip
    assert sum(ADDRESSES["x/a"] in line for line in lines) == 2
    assert not any("flush ruleset" in line or "delete table" in line for line in lines)


def test_a_pod_that_comes_is_elements_and_no_rule() -> None:
    obj = policy("x", "p", {}, ingress=[{"from": [{"namespaceSelector": {}}]}])
    pods = [made_pod(pod) for pod in PODS]
    local = {pod.address: pod for pod in pods if pod.node == "0"}
    spaces: dict[str, dict[str, str]] = {each: {} for each in NAMESPACES}
    found = [policies.read(obj)]
    fewer = {k: v for k, v in local.items() if k != ADDRESSES["x/c"]}
    gone = [pod for pod in pods if pod.address != ADDRESSES["x/c"]]
    before = Compiler(gone, spaces, fewer, "0").compile(found)
    after = Compiler(pods, spaces, local, "0").compile(found)
    lines = nft.change(before, after).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("add element") and ADDRESSES["x/c"] in line for line in lines)


def test_many_elements_are_several_lines() -> None:
    many = Ruleset({"s": Set(ADDRESS_PORT, frozenset(f"10.0.0.1 . {n}" for n in range(1201)))})
    lines = nft.change(Ruleset(), many).splitlines()
    assert [line.split(" ip ")[0] for line in lines] == ["add set", *["add element"] * 3]


def test_the_whole_replaces_what_is_there_in_one_transaction() -> None:
    script = nft.whole(compiled([], 0), "cni0")
    assert script.splitlines()[:4] == [
        "add table ip sykube-policies", "delete table ip sykube-policies",
        "add table bridge sykube-policies", "delete table bridge sykube-policies",
    ]  # fmt: skip
    assert 'iifname "cni0"' in script


# --- which pod has which address ---


class Node:
    """What CNI leaves on a node."""

    def __init__(self, folder: Path) -> None:
        self.addresses, self.results = folder / "networks", folder / "results"
        self.addresses.mkdir(parents=True)
        self.results.mkdir()
        (self.addresses / "lock").touch()
        (self.addresses / "last_reserved_ip.0").write_text("10.244.0.7")

    def take(self, address: str, sandbox: str) -> None:
        (self.addresses / address).write_text(f"{sandbox}\r\neth0")

    def finish(self, sandbox: str, pod: str, uid: str = "") -> None:
        namespace, _, name = pod.partition("/")
        words = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", name]]
        words += [["K8S_POD_UID", uid]] if uid else []
        file = self.results / f"sykube-pods-{sandbox}-eth0"
        file.write_text(json.dumps({"kind": "cniCacheV1", "cniArgs": words}))

    def places(self) -> Places:
        return Places(self.addresses, self.results, "sykube-pods")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_address_is_known_as_soon_as_cni_has_finished(node: Node) -> None:
    places = node.places()
    assert not places.refresh()
    node.take("10.244.0.2", "one")
    assert not places.refresh()
    (node.results / "sykube-pods-one-eth0").write_text("{")
    assert not places.refresh()
    node.finish("one", "x/a")
    assert places.refresh()
    assert places.claims == {"10.244.0.2": Claim("x", "a")}
    assert not places.refresh()
    (node.addresses / "10.244.0.2").unlink()
    assert places.refresh()
    assert places.claims == {}


def test_what_is_left_of_a_sandbox_before_says_nothing_of_an_address(node: Node) -> None:
    node.finish("before", "x/b")
    node.take("10.244.0.2", "now")
    places = node.places()
    places.refresh()
    assert places.claims == {}


def test_an_address_that_is_taken_and_has_no_sandbox_yet_is_looked_at_again(node: Node) -> None:
    (node.addresses / "10.244.0.2").touch()
    places = node.places()
    assert not places.refresh()
    node.take("10.244.0.2", "one")
    node.finish("one", "x/a")
    assert places.refresh()


def test_a_pod_of_the_same_name_is_another_one(node: Node) -> None:
    node.take("10.244.0.2", "one")
    node.finish("one", "x/a", "uid-before")
    places = node.places()
    places.refresh()
    new, old = (Pod("x", "a", {}, "n", (uid,)) for uid in ("uid-now", "uid-before"))
    assert places.local([new]) == {}
    assert places.local([old]) == {"10.244.0.2": old}


def test_without_the_folder_there_are_no_pods(tmp_path: Path) -> None:
    places = Places(tmp_path / "none", tmp_path / "none", "sykube-pods")
    assert not places.refresh()
    assert places.claims == {}


# --- the program ---


class Cluster:
    """Objects and a node, with an enforcer that tells scripts to a list."""

    def __init__(self, node: Node) -> None:
        self.node, self.objects, self.told = node, Objects(), []
        self.refuse = 0
        self.now = 0.0
        self.enforcer = Enforcer(
            "0", "cni0", self.objects, node.places(), self.run, lambda: self.now
        )

    told: list[str]

    def run(self, script: str) -> None:
        if self.refuse:
            self.refuse -= 1
            raise nft.NftError("no such table")
        self.told.append(script)

    def list(self, *objects: Json) -> None:
        self.objects.replace("networkpolicies", objects)

    def list_pods(self, *pods: str) -> None:
        self.objects.replace("pods", [api_pod(each) for each in pods])
        self.objects.replace(
            "namespaces", [{"metadata": {"name": n, "labels": {"ns": n}}} for n in NAMESPACES]
        )


def api_pod(pod: str, node: str = "0", **status: Any) -> Json:
    namespace, _, name = pod.partition("/")
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
        "spec": {"nodeName": node, "containers": []},
        "status": status,
    }


@pytest.fixture
def cluster(node: Node) -> Cluster:
    return Cluster(node)


DENY = policy("x", "deny", {}, ingress=[])


def test_without_a_policy_there_is_no_table(cluster: Cluster) -> None:
    cluster.list()
    cluster.enforcer.act()
    assert cluster.told == [nft.nothing()]
    cluster.enforcer.act()
    assert len(cluster.told) == 1


def test_it_tells_nothing_before_it_knows_all_pods(cluster: Cluster) -> None:
    cluster.list(DENY)
    cluster.enforcer.act()
    assert cluster.told == []
    cluster.list_pods()
    cluster.enforcer.act()
    [script] = cluster.told
    assert script.startswith("add table ip sykube-policies\ndelete table")


def test_a_pod_is_told_by_its_change_alone_and_the_last_policy_takes_all(cluster: Cluster) -> None:
    cluster.list(DENY)
    cluster.list_pods("x/a")
    cluster.enforcer.act()
    assert "10.244.0.2" not in cluster.told[0]
    cluster.node.take("10.244.0.2", "one")
    cluster.node.finish("one", "x/a")
    cluster.enforcer.act()
    assert "delete table" not in cluster.told[1]
    assert "add element ip sykube-policies ingress { 10.244.0.2 : goto ingress-" in cluster.told[1]
    cluster.list()
    cluster.enforcer.act()
    assert cluster.told[2] == nft.nothing()


def test_of_its_own_pods_it_does_not_believe_the_api(cluster: Cluster) -> None:
    """After a restart of the node the API has the addresses of before it for a while."""
    cluster.list(DENY)
    cluster.list_pods()
    cluster.objects.replace(
        "pods", [api_pod("x/a", podIP="10.244.0.2"), api_pod("x/b", "1", podIP="10.244.1.2")]
    )
    cluster.enforcer.act()
    assert "10.244.0.2" not in cluster.told[0]


def test_tables_that_somebody_flushed_are_made_again(cluster: Cluster) -> None:
    cluster.list(DENY)
    cluster.list_pods("x/a")
    cluster.enforcer.act()
    cluster.node.take("10.244.0.2", "one")
    cluster.node.finish("one", "x/a")
    cluster.refuse = 1
    cluster.enforcer.act()
    assert cluster.told[1].startswith("add table ip sykube-policies\ndelete table")
    assert "10.244.0.2" in cluster.told[1]


def test_what_a_kernel_never_takes_is_an_error(cluster: Cluster) -> None:
    cluster.list(DENY)
    cluster.list_pods()
    cluster.refuse = 2
    with pytest.raises(nft.NftError):
        cluster.enforcer.act()


def test_what_cannot_be_enforced_is_said_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    bad = policy(
        "x", "bad", {}, ingress=[{"from": [{"ipBlock": {"cidr": ""}}], "ports": [{"port": "web"}]}]
    )
    named = policy("x", "named", {}, ingress=[{"ports": [{"port": "web"}]}])
    cluster.list(bad, named)
    cluster.list_pods("x/a")
    cluster.enforcer.act()
    cluster.enforcer.act()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "lets nothing through: policy=x/bad ingress[0].from[0].ipBlock.cidr '' is no range of addresses",
        "lets nothing through: policy=x/named no pod has a port named 'web'",
    ]


def test_a_pod_whose_address_is_to_come_is_looked_for(cluster: Cluster) -> None:
    cluster.list(DENY)
    cluster.list_pods("x/a")
    cluster.enforcer.act()
    cluster.objects.changed.clear()
    cluster.node.take("10.244.0.2", "one")
    cluster.node.finish("one", "x/a")
    # No event of the API says so.
    cluster.enforcer.wait()
    cluster.enforcer.act()
    assert "10.244.0.2" in cluster.told[1]


def test_without_nftables_it_ends_and_says_so_by_its_exit_code(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "incluster.networkpolicy", "--api-server=http://127.0.0.1:9"]
    done = subprocess.run(
        [*program, "--node=n", "--bridge=cni0"],
        env={"PATH": str(tmp_path)},
        cwd=Path(incluster.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == nft.UNSUPPORTED
    said = done.stderr.splitlines()[-1]
    assert "NetworkPolicies are not enforced on this node: nft cannot be run" in said


def test_changes_that_policies_know_nothing_of_are_none(cluster: Cluster) -> None:
    cluster.list_pods("x/a")
    cluster.objects.changed.clear()
    cluster.objects.change("pods", api_pod("x/a", conditions=[{"type": "Ready"}]))
    assert not cluster.objects.changed.is_set()
    cluster.objects.change("pods", api_pod("x/a", podIP="10.244.0.9"))
    assert cluster.objects.changed.is_set()


def test_pods_are_followed_only_when_there_is_a_policy(cluster: Cluster) -> None:
    server = FakeApi()
    refused: list[nft.NftError] = []

    def follow() -> None:
        try:
            serve(Api(server.url, timing=QUICK), cluster.enforcer)
        except nft.NftError as error:
            refused.append(error)

    program = threading.Thread(target=follow)
    program.start()
    try:
        eventually(lambda: cluster.told == [nft.nothing()])
        eventually(lambda: server.watches("networkpolicies"))
        assert {path for path, _, _ in server.requests} == {f"{POLICIES}/networkpolicies"}
        server.put(DENY, "networkpolicies")
        eventually(lambda: len(cluster.told) == 2)
        assert "delete table" in cluster.told[1]
        assert server.lists("/api/v1/pods") and server.lists("/api/v1/namespaces")
        cluster.refuse = 1
        server.put(DENY, "networkpolicies", "DELETED")
        program.join(10)
        assert refused
    finally:
        server.close()
