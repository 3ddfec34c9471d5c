"""Addresses of LoadBalancer Services, the nodes they lead to, and who answers for them."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from sykube.incluster.api import ApiError
from sykube.incluster.loadbalancer import places
from sykube.incluster.loadbalancer.__main__ import Controller
from sykube.incluster.loadbalancer.addresses import CONDITION, Decision, Pool, decide, status_of
from sykube.incluster.loadbalancer.arp import Table, frame, parse
from sykube.incluster.reconcile import Objects

Json = dict[str, Any]
POOL = Pool.parse("10.11.11.143-10.11.11.146")
LAST, THIRD = "10.11.11.146", "10.11.11.145"


def service(
    name: str = "web",
    kind: str = "LoadBalancer",
    addresses: tuple[str, ...] = (),
    *,
    annotations: Json | None = None,
    conditions: tuple[Json, ...] = (),
    **spec: Any,
) -> Json:
    ingress = [{"ip": each, "ipMode": "VIP"} for each in addresses]
    return {
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": annotations,
        },
        "spec": {"type": kind, "clusterIP": "10.96.0.7", **spec},
        "status": {"loadBalancer": {"ingress": ingress}, "conditions": list(conditions)},
    }  # fmt: skip


def decided(*services: Json, taken: tuple[str, ...] = ()) -> dict[str, str]:
    """What each Service has, or why not, by its name."""
    found = decide(services, set(taken), POOL)
    return {each.service["metadata"]["name"]: each.address or each.problem for each in found}


# --- addresses ---


def test_each_has_an_address_of_its_own_and_not_its_cluster_address() -> None:
    assert decided(service("a"), service("b")) == {"a": LAST, "b": THIRD}


def test_an_address_is_kept() -> None:
    assert decided(service("a"), service("b", addresses=(LAST,))) == {"a": THIRD, "b": LAST}


def test_the_cluster_address_of_before_is_replaced() -> None:
    assert decided(service(addresses=("10.96.0.7",))) == {"web": LAST}


def test_of_two_with_one_address_the_older_keeps_it() -> None:
    younger = service("a", addresses=(LAST,))
    younger["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    assert decided(younger, service("b", addresses=(LAST,))) == {"a": THIRD, "b": LAST}


def test_a_nodes_own_address_goes_to_no_service() -> None:
    assert decided(service(addresses=(LAST,)), taken=(LAST,)) == {"web": THIRD}


def test_the_address_that_is_asked_for() -> None:
    first = "10.11.11.143"
    assert decided(service("a"), service("b", loadBalancerIP=first))["b"] == first
    # Also where it has another one.
    assert decided(service(addresses=(LAST,), loadBalancerIP=first)) == {"web": first}


@pytest.mark.parametrize("asked", ["10.11.11.7", "192.0.2.1", "fd00::1", "nonsense"])
def test_an_address_outside_the_range_is_refused(asked: str) -> None:
    found = decided(service(loadBalancerIP=asked))
    assert found == {
        "web": f"spec.loadBalancerIP {asked} is not one of 10.11.11.143 to 10.11.11.146"
    }


def test_an_address_in_use_is_refused() -> None:
    found = decided(service("a", addresses=(LAST,)), service("b", loadBalancerIP=LAST))
    assert found["b"] == f"spec.loadBalancerIP {LAST} is in use"


def test_all_addresses_are_in_use() -> None:
    found = decided(*(service(f"s{number}") for number in range(5)))
    assert found["s3"] == "10.11.11.143"
    assert found["s4"] == "all addresses from 10.11.11.143 to 10.11.11.146 are in use"


RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def test_source_ranges_that_nobody_would_hold_to_are_refused() -> None:
    asked = {RANGES: "192.0.2.0/24"}
    found = decided(service(annotations=asked, addresses=(LAST,)))["web"]
    assert found == f"the annotation {RANGES} has no effect: use spec.loadBalancerSourceRanges"
    ranges = ["192.0.2.0/24"]
    assert decided(service(annotations=asked, loadBalancerSourceRanges=ranges)) == {"web": LAST}


OTHERS = {"type": "example.org/Other", "status": "True"}
MARK = {"type": CONDITION, "status": "True", "reason": "HasAddress", "message": ""}


@pytest.mark.parametrize(
    "other",
    [
        service(loadBalancerClass="another.example"),
        service(addresses=("192.0.2.1",)),
        service("web", "NodePort", ("192.0.2.1",)),
    ],
)
def test_what_other_controllers_do_is_left_alone(other: Json) -> None:
    assert decided(other) == {}


def test_an_address_of_another_range_that_was_ours_is_replaced() -> None:
    """A cluster made of a snapshot has another subnet."""
    assert decided(service(addresses=("10.11.99.146",), conditions=(MARK,))) == {"web": LAST}


def test_what_was_a_load_balancer_loses_its_address() -> None:
    before = service("web", "NodePort", (LAST,), conditions=(OTHERS, MARK))
    (decision,) = decide([before], set(), POOL)
    assert status_of(decision) == {"loadBalancer": {"ingress": []}, "conditions": [OTHERS]}
    assert status_of(Decision(service("web", "ClusterIP"))) is None


def test_a_status_says_what_it_has_and_is_written_once() -> None:
    written = status_of(Decision(service(conditions=(OTHERS,)), LAST))
    assert written is not None
    assert written["loadBalancer"] == {"ingress": [{"ip": LAST}]}
    other, ours = written["conditions"]
    assert other == OTHERS
    assert ours.pop("lastTransitionTime").endswith("Z")
    assert ours == MARK
    after = service(addresses=(LAST,), conditions=(OTHERS, {**MARK, "lastTransitionTime": "t"}))
    assert status_of(Decision(after, LAST)) is None
    refused = status_of(Decision(after, problem="no more"))
    assert refused is not None
    assert refused["loadBalancer"] == {"ingress": []}
    assert refused["conditions"][1]["message"] == "no more"


@pytest.mark.parametrize("text", ["", "10.0.0.1", "10.0.0.2-10.0.0.1", "a-b"])
def test_wrong_ranges(text: str) -> None:
    with pytest.raises(ValueError):
        Pool.parse(text)


# --- nodes ---


def node(name: str, *, ready: str = "True", control_plane: bool = False) -> Json:
    label = "node.kubernetes.io/exclude-from-external-load-balancers"
    return {
        "metadata": {"name": name, "uid": name, "labels": {label: ""} if control_plane else None},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": name},
                {"type": "InternalIP", "address": f"10.11.11.{2 + ord(name[-1]) - ord('a')}"},
            ],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def endpoints(*names: str) -> Json:
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "e"},
        "subsets": [
            {
                "addresses": [{"ip": "10.244.0.9", "nodeName": each} for each in names],
                "notReadyAddresses": [{"ip": "10.244.0.8", "nodeName": "c"}],
            }
        ],
    }


LOCAL: Json = {"externalTrafficPolicy": "Local"}


def chosen(made: Json, *nodes: Json, pods: Json | None = None, now: str = "") -> str:
    return places.choose(made, LAST, pods, [places.node_of(each) for each in nodes], now)


def test_the_policy_local_leads_to_a_node_with_a_pod_that_is_ready() -> None:
    nodes = [node(name) for name in "abc"]
    for name in "ab":
        assert chosen(service(**LOCAL), *nodes, pods=endpoints(name)) == name
        # The pod went to another node.
        assert chosen(service(**LOCAL), *nodes, pods=endpoints(name), now="c") == name
    assert chosen(service(**LOCAL), *nodes, pods=endpoints()) == ""
    assert chosen(service(**LOCAL), *nodes) == ""


def test_an_address_stays_on_its_node_as_long_as_that_is_ready() -> None:
    for now in "abc":
        assert chosen(service(), node("a"), node("b"), node("c"), now=now) == now
    assert chosen(service(), node("a", ready="Unknown"), node("b"), now="a") == "b"
    assert chosen(service(), node("a", ready="False")) == ""


def test_control_planes_are_for_where_there_are_no_workers() -> None:
    master = node("a", control_plane=True)
    for number in range(143, 160):
        nodes = [places.node_of(each) for each in (master, node("b"))]
        assert places.choose(service(), f"10.11.11.{number}", None, nodes) == "b"
    assert chosen(service(), master) == "a"
    assert chosen(service(**LOCAL), master, node("b"), pods=endpoints("a")) == "a"


def test_addresses_are_spread_over_nodes() -> None:
    nodes = [places.node_of(node(name)) for name in "abc"]
    found = [
        places.choose(service(), address, None, nodes) for address in (f"x{n}" for n in range(30))
    ]
    assert {found.count(name) > 3 for name in "abc"} == {True}


# --- ARP ---

OWN, NODE, HOST = b"\2own00", b"\2node0", b"\2host0"
BROADCAST = b"\xff" * 6
HERE, THERE, GATEWAY = "10.11.11.2", "10.11.11.3", "10.11.11.1"


def table() -> Table:
    made = Table(OWN)
    made.update(HERE, [HERE, THERE], {LAST: THERE, THIRD: HERE})
    made.hears(said(2, NODE, THERE, HERE))
    return made


def said(operation: int, mac: bytes, sender: str, target: str) -> Any:
    packet = parse(frame(operation, mac, BROADCAST, mac, sender, target))
    assert packet is not None
    return packet


def test_a_frame_is_what_rfc_826_says() -> None:
    ip = socket.inet_aton
    sent = frame(1, OWN, BROADCAST, NODE, THERE, LAST)
    head = struct.pack("!6s6sHHHBBH", BROADCAST, OWN, 0x0806, 1, 0x0800, 6, 4, 1)
    assert sent == head + NODE + ip(THERE) + b"\0" * 6 + ip(LAST)
    sent = frame(2, OWN, HOST, NODE, LAST, GATEWAY)
    assert sent[-20:] == NODE + ip(LAST) + HOST + ip(GATEWAY)
    assert sent[:14] == HOST + OWN + b"\x08\x06"


@pytest.mark.parametrize("wrong", [b"", b"\0" * 42, frame(1, OWN, HOST, OWN, HERE, THERE)[:30]])
def test_other_frames_are_none(wrong: bytes) -> None:
    assert parse(wrong) is None


@pytest.mark.parametrize(("address", "mac"), [(LAST, NODE), (THIRD, OWN)])
def test_who_asks_for_an_address_is_told_the_nodes(address: str, mac: bytes) -> None:
    answer = frame(2, OWN, HOST, mac, address, GATEWAY)
    assert table().hears(said(1, HOST, GATEWAY, address)) == [answer]


@pytest.mark.parametrize("other", ["10.11.11.144", GATEWAY, THERE])
def test_other_addresses_are_none_of_its_concern(other: str) -> None:
    assert table().hears(said(1, HOST, GATEWAY, other)) == []
    assert table().hears(said(2, HOST, GATEWAY, LAST)) == []


def test_nodes_are_not_told() -> None:
    """What kube-proxy does not take there would come back to the node for ever."""
    assert table().hears(said(1, NODE, THERE, LAST)) == []
    assert table().hears(said(1, NODE, "10.11.11.254", LAST)) == []
    assert table().hears(said(1, OWN, HERE, LAST)) == []


def test_an_address_that_moves_is_announced() -> None:
    made = table()
    moved = made.update(HERE, [HERE, THERE], {LAST: HERE, THIRD: HERE})
    assert moved == [frame(1, OWN, BROADCAST, OWN, LAST, LAST)]
    assert made.update(HERE, [HERE, THERE], {LAST: HERE, THIRD: HERE}) == []
    assert made.update(HERE, [HERE, THERE], {THIRD: HERE}) == []
    assert made.hears(said(1, HOST, GATEWAY, LAST)) == []


def test_a_node_is_asked_for_its_own_and_announced_when_that_is_new() -> None:
    made = Table(OWN)
    question = frame(1, OWN, BROADCAST, OWN, HERE, THERE)
    assert made.update(HERE, [HERE, THERE], {LAST: THERE}) == [question]
    assert made.hears(said(1, HOST, GATEWAY, LAST)) == [question]
    assert made.refresh() == [question]
    for mac in (NODE, b"\2node1"):
        announced = [frame(1, OWN, BROADCAST, mac, LAST, LAST)]
        assert made.hears(said(2, mac, THERE, HERE)) == announced
        assert made.hears(said(2, mac, THERE, HERE)) == []
    made.update(HERE, [HERE], {})
    assert made.refresh() == []


# --- all of it ---


class FakeApi:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.refuses = False

    def send(self, method: str, path: str, body: Json, content_type: str = "") -> Json:
        if self.refuses:
            raise ApiError("409 conflict", 409)
        self.sent.append((method, path, body, content_type))
        return {}


class FakeAnnouncer:
    def __init__(self) -> None:
        self.alive = True
        self.told: list[tuple[Any, ...]] = []

    def update(self, *told: Any) -> None:
        self.told.append(told)

    def is_alive(self) -> bool:
        return self.alive


def objects(*services: Json) -> Objects:
    made = Objects()
    made.replace("services", services)
    made.replace("endpoints", [endpoints("b")])
    made.replace("nodes", [node("a", control_plane=True), node("b")])
    return made


def test_only_the_status_is_written_and_a_refusal_is_no_end() -> None:
    api, announcer = FakeApi(), FakeAnnouncer()
    controller = Controller("a", POOL, announcer)
    api.refuses = True
    controller.act(api, objects(service()))  # type: ignore[arg-type]
    api.refuses = False
    controller.act(api, objects(service()))  # type: ignore[arg-type]
    ((method, path, body, content_type),) = api.sent
    assert (method, path) == ("PATCH", "/api/v1/namespaces/shop/services/web/status")
    assert content_type == "application/merge-patch+json"
    assert body["metadata"] == {"resourceVersion": "7"}
    assert body["status"]["loadBalancer"] == {"ingress": [{"ip": LAST}]}
    assert announcer.told[-1] == (HERE, [HERE, THERE], {LAST: THERE})


def test_a_refused_service_gets_an_event_once() -> None:
    api, announcer = FakeApi(), FakeAnnouncer()
    controller = Controller("a", POOL, announcer)
    made = objects(service(loadBalancerIP="192.0.2.1"))
    for _ in range(2):
        controller.act(api, made)  # type: ignore[arg-type]
    (event,) = (body for method, path, body, _ in api.sent if path.endswith("shop/events"))
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "web",
    }  # fmt: skip
    assert (event["type"], event["reason"]) == ("Warning", "NoAddress")
    assert event["message"].startswith("spec.loadBalancerIP 192.0.2.1 is not one of")
    assert announcer.told[-1][2] == {}


def test_it_ends_where_nobody_answers_any_more() -> None:
    announcer = FakeAnnouncer()
    announcer.alive = False
    with pytest.raises(SystemExit):
        Controller("a", POOL, announcer).act(FakeApi(), objects())  # type: ignore[arg-type]


def test_objects_are_what_was_seen_last() -> None:
    made = Objects()
    assert not made.has("services")
    made.replace("services", [service()])
    assert made.has("services")
    before = made.all("services")
    made.change("services", service("web", "NodePort"))
    assert [each["spec"]["type"] for each in made.all("services")] == ["NodePort"]
    made.remove("services", service())
    assert made.all("services") == []
    assert [each["spec"]["type"] for each in before] == ["LoadBalancer"]
    assert made.changed.is_set()
