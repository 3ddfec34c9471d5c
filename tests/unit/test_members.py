"""Names of nodes and the places that follow from them."""

from __future__ import annotations

import pytest

from sykube.cluster.model import members
from sykube.cluster.model.members import CONTROL_PLANES, MAX_WORKERS
from tests.fakes.nodes import make_subnets


def test_a_cluster_is_made_with_its_control_planes_first() -> None:
    assert members.initial(1, 2) == ["master", "node1", "node2"]
    assert members.initial(3, 1) == ["master", "master2", "master3", "node1"]
    assert members.initial(1, 0) == ["master"]


@pytest.mark.parametrize("name", ["master", "master2", "master9", "node1", "node10", "node240"])
def test_names_that_nodes_have(name: str) -> None:
    assert members.is_node(name)


@pytest.mark.parametrize(
    "name",
    ["", "master1", "master0", "master10", "node", "node0", "node01", "node-1", "Node1", "xnode1"],
)
def test_names_that_no_node_has(name: str) -> None:
    assert not members.is_node(name)
    with pytest.raises(ValueError, match=f"^{name}$"):
        members.place(name)


def test_control_planes_are_known_by_their_names() -> None:
    assert [members.is_control_plane(name) for name in ("master", "master2", "node1")] == [
        True,
        True,
        False,
    ]


def test_no_two_nodes_of_the_largest_cluster_share_an_address_or_pod_subnet() -> None:
    names = members.initial(max(CONTROL_PLANES), MAX_WORKERS)
    subnets = make_subnets()
    places = [members.place(name) for name in names]
    addresses = {subnets.node_address(place) for place in places}
    endpoint, gateway = str(subnets.nodes[-2]), subnets.gateway
    assert len(addresses | {endpoint, gateway}) == len(names) + 2
    assert len({subnets.pod_subnet(place) for place in places}) == len(names)


def test_a_place_stays_when_other_nodes_come_and_go() -> None:
    assert members.place("master") == 0
    assert members.place("node7") == 7


def test_further_workers_get_the_lowest_free_names() -> None:
    assert members.next_workers(["master", "node1", "node3"], 3) == ["node2", "node4", "node5"]


def test_there_are_no_more_names_than_workers_may_be() -> None:
    full = members.initial(1, MAX_WORKERS)
    assert members.next_workers(full, 1) == []
    assert members.next_workers([name for name in full if name != "node9"], 2) == ["node9"]


def test_nodes_are_ordered_by_number_and_not_by_letter() -> None:
    mixed = ["node10", "node9", "master3", "node1", "master", "master2"]
    ordered = ["master", "master2", "master3", "node1", "node9", "node10"]
    assert members.order(mixed) == ordered
