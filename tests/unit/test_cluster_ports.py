"""Ports of the host that lead into clusters: one port leads to one place."""

from __future__ import annotations

import pytest

from sykube.cluster.commands import ports
from sykube.cluster.model import lookup
from sykube.errors import HostError, SykubeError, UsageError
from sykube.network.ports import PortMap
from tests.fakes import World
from tests.unit.helpers import fake_spec, init, made, unchanged

WEB = PortMap("127.0.0.1", 8080, 30080)


def led(world: World, name: str = "fake") -> list[str]:
    return [str(port) for port in lookup.load(world.host, name, world.ui()).state.ports]


def rules(world: World) -> list[tuple[str, ...]]:
    nat = world.kernel.tables["nat"]
    return [rule for rules in nat.values() for rule in rules if "DNAT" in rule and "8080" in rule]


def test_a_port_comes_once_and_goes(world: World) -> None:
    made(world)
    with unchanged(world):
        assert ports.add(world.host, "fake", WEB, world.ui()) is True
        assert len(rules(world)) == 1
        assert ports.add(world.host, "fake", WEB, world.ui()) is False
        assert led(world) == ["127.0.0.1:8080:30080"]
        assert ports.remove(world.host, "fake", "8080", world.ui()) == [WEB]
        assert rules(world) == []


@pytest.mark.parametrize("text", ["8080:30080", "8080:30081", "0.0.0.0:8080:30080"])
def test_a_port_of_one_cluster_is_not_anothers(world: World, text: str) -> None:
    """Nor is it the same one: the host has it once."""
    made(world)
    init(world, fake_spec("other"))
    ports.add(world.host, "other", WEB, world.ui())
    with unchanged(world), pytest.raises(HostError, match="leads to the cluster other") as raised:
        ports.add(world.host, "fake", PortMap.parse(text), world.ui())
    assert "sykube port delete 127.0.0.1:8080:30080 --name other" in raised.value.resolution


def test_init_refuses_a_port_of_another_cluster(world: World) -> None:
    made(world, ports=("8080:30080",))
    with unchanged(world), pytest.raises(HostError, match="leads to the cluster fake"):
        init(world, fake_spec("other", ports=("8080:30080",)))


def test_a_node_that_there_is_not_is_wrong_use(world: World) -> None:
    made(world)
    with unchanged(world), pytest.raises(UsageError, match="no node 'node7'"):
        ports.add(world.host, "fake", PortMap.parse("8080:30080@node7"), world.ui())


def test_a_port_that_leads_nowhere_cannot_be_taken_away(world: World) -> None:
    made(world)
    with unchanged(world), pytest.raises(SykubeError, match="no port 8080 of the host leads"):
        ports.remove(world.host, "fake", "8080", world.ui())
