"""Ranges that are free of the host's routes and of each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.model.members import MAX_WORKERS
from sykube.errors import ExitCode, HostError
from sykube.host.host import Host
from sykube.network import subnets
from sykube.network.subnets import Subnets, choose
from tests.fakes import Calls, FakeHost, FakePrograms, Kernel
from tests.fakes.nodes import make_subnets


def nets(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def check(chosen: Subnets, taken: list[IPv4Network]) -> None:
    ranges = [chosen.nodes, chosen.pods, chosen.services]
    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2))
    assert not any(one.overlaps(other) for one in ranges for other in taken)
    assert chosen.nodes.prefixlen <= 24
    assert chosen.pods.prefixlen <= 16


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path), Calls(), tmp_path)


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, programs.run)


@pytest.fixture
def routes(programs: FakePrograms) -> Callable[[list[Any]], None]:
    """Sets what `ip route` answers."""

    def answer(found: list[Any]) -> None:
        programs.kernel.routes = found

    return answer


def test_a_quiet_host_gets_what_people_know() -> None:
    assert choose([]) == make_subnets()


@pytest.mark.parametrize(
    ("taken", "nodes", "pods", "services"),
    [
        (["10.11.11.0/24"], "10.11.12.0/24", "10.244.0.0/16", "10.96.0.0/12"),
        (["10.11.11.77/32"], "10.11.12.0/24", "10.244.0.0/16", "10.96.0.0/12"),
        (["10.244.3.0/24"], "10.11.11.0/24", "10.245.0.0/16", "10.96.0.0/12"),
        (["10.100.0.0/16"], "10.11.11.0/24", "10.244.0.0/16", "10.112.0.0/12"),
        (["10.0.0.0/8"], "172.27.11.0/24", "172.26.0.0/16", "172.28.0.0/16"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.11.0/24", "100.66.0.0/16", "100.67.0.0/16"),
    ],
)
def test_another_is_picked_where_the_host_has_a_route(
    taken: list[str], nodes: str, pods: str, services: str
) -> None:
    chosen = choose(nets(*taken))
    assert [str(chosen.nodes), str(chosen.pods), str(chosen.services)] == [nodes, pods, services]
    check(chosen, nets(*taken))


def test_every_second_cluster_of_many_gets_ranges_of_its_own() -> None:
    taken: list[IPv4Network] = []
    for _ in range(30):
        chosen = choose(taken)
        check(chosen, taken)
        taken.append(chosen.nodes)


def test_no_candidate_is_free() -> None:
    with pytest.raises(HostError, match="no node subnet is free") as raised:
        choose(nets("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    assert "--node-subnet" in raised.value.resolution


@pytest.mark.parametrize("what", ["nodes", "pods", "services"])
def test_a_given_range_that_collides_is_refused(what: str) -> None:
    given: dict[str, Any] = {what: IPv4Network("10.50.0.0/16")}
    label = what.removesuffix("s")
    with pytest.raises(
        HostError, match=f"the {label} subnet 10.50.0.0/16 overlaps 10.50.7.0/24"
    ) as r:
        choose(nets("10.50.7.0/24"), **given)
    assert f"--{label}-subnet" in r.value.resolution


def test_given_ranges_that_collide_with_each_other_are_refused() -> None:
    with pytest.raises(HostError, match="overlaps"):
        choose([], pods=IPv4Network("10.50.0.0/16"), services=IPv4Network("10.48.0.0/12"))


def test_a_given_range_is_set_aside_before_others_are_picked() -> None:
    chosen = choose([], services=IPv4Network("10.11.0.0/16"))
    assert str(chosen.services) == "10.11.0.0/16"
    assert str(chosen.nodes) == "172.27.11.0/24"
    chosen = choose([], pods=IPv4Network("10.96.0.0/11"))
    check(chosen, [])


def test_routes_of_the_host(host: Host, routes: Callable[[list[Any]], None]) -> None:
    routes(
        [
            {"dst": "default", "gateway": "192.0.2.1"},
            {"dst": "192.0.2.0/24", "dev": "eth0"},
            {"dst": "10.8.0.5", "dev": "tun0"},
            {"type": "unreachable", "dst": "10.9.0.0/16"},
            {"type": "local", "dst": "127.0.0.0/8", "dev": "lo"},
            {"type": "broadcast", "dst": "192.0.2.255", "dev": "eth0"},
        ]
    )
    assert subnets.host_routes(host) == nets("192.0.2.0/24", "10.8.0.5/32", "10.9.0.0/16")


def test_a_host_without_routes(host: Host) -> None:
    from sykube.host.run import Completed

    silent = replace(host, run=lambda argv, **_: Completed(tuple(map(str, argv)), 0, "", ""))
    assert subnets.host_routes(silent) == []


def test_a_default_route_in_two_halves_is_no_collision(
    host: Host,
    routes: Callable[[list[Any]], None],
) -> None:
    """OpenVPN's redirect-gateway def1 and WireGuard's AllowedIPs make these."""
    routes([{"dst": "0.0.0.0/1", "dev": "tun0"}, {"dst": "128.0.0.0/1", "dev": "tun0"}])
    assert choose(subnets.host_routes(host)) == make_subnets()


def test_addresses_are_fixed_and_all_differ() -> None:
    chosen = make_subnets()
    assert chosen.gateway == "10.11.11.1"
    assert chosen.node_address(0) == "10.11.11.2"
    assert chosen.node_address(1) == "10.11.11.3"
    assert chosen.dns == "10.96.0.10"
    assert chosen.pod_subnet(0) == "10.244.0.0/24"
    assert chosen.pod_subnet(3) == "10.244.3.0/24"
    # The gateway, the endpoint and the broadcast address are nobody else's.
    addresses = [chosen.node_address(n) for n in range(MAX_WORKERS + 1)]
    kept = [chosen.gateway, str(chosen.nodes[-2]), str(chosen.nodes[-1])]
    assert len({*addresses, *kept}) == MAX_WORKERS + 1 + len(kept)
    assert len({chosen.pod_subnet(n) for n in (0, MAX_WORKERS)}) == 2


def test_networks_of_the_user() -> None:
    assert subnets.parse("") is None
    assert subnets.parse("10.1.0.0/16") == IPv4Network("10.1.0.0/16")
    assert json.loads(json.dumps(str(subnets.parse("10.1.0.0/16")))) == "10.1.0.0/16"
