"""A cluster's bridge and its rules, on a fake kernel that refuses what the real one refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.network.bridge import Bridge, bridge_name
from sykube.network.ports import PortMap
from sykube.network.rules import Wiring
from tests.fakes import Calls, FakeHost, FakePrograms, Injected, Kernel
from tests.fakes.nodes import make_subnets

SUBNETS = make_subnets()


def wiring(resolver: str = "", *ports: str) -> Wiring:
    """What a bridge is made for, with ports that lead to one node."""
    led = tuple((PortMap.parse(port), "10.11.11.3") for port in ports)
    return Wiring(SUBNETS, resolver, "10.11.11.254", led)


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path), Calls(), tmp_path)


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, programs.run)


@pytest.mark.parametrize("name", ["a", "sykube", "exactly-12-ch", "x" * 50, "a-rather-long-name"])
def test_names_fit_into_the_kernels_15_characters(
    host: Host, programs: FakePrograms, name: str
) -> None:
    assert len(bridge_name(name)) <= 15
    assert bridge_name(name).startswith("sk-")
    # The fake refuses longer ones, and chains of more than 28 characters.
    Bridge(host, name).create(wiring("127.0.0.53"))
    assert Bridge(host, name).exists()


def test_long_names_that_begin_alike_have_bridges_of_their_own() -> None:
    names = [f"a-rather-long-name-{n}" for n in range(100)]
    assert len({bridge_name(name) for name in names}) == len(names)
    assert bridge_name("sykube") == "sk-sykube"
    assert bridge_name("123456789012") == "sk-123456789012"


@pytest.mark.parametrize("resolver", ["", "127.0.0.53"])
def test_what_is_made_is_removed_to_the_last_rule(
    host: Host, programs: FakePrograms, resolver: str
) -> None:
    before = programs.kernel.snapshot()
    bridge = Bridge(host, "lab")
    assert not bridge.exists()
    bridge.create(wiring(resolver))
    assert bridge.addresses() == ["10.11.11.1/24"]
    bridge.remove()
    assert programs.kernel.snapshot() == before
    assert bridge.addresses() == []


@pytest.mark.parametrize("resolver", ["", "127.0.0.53"])
def test_making_it_twice_is_making_it_once(
    host: Host, programs: FakePrograms, resolver: str
) -> None:
    Bridge(host, "lab").create(wiring(resolver))
    once = programs.kernel.snapshot()
    Bridge(host, "lab").create(wiring(resolver))
    assert programs.kernel.snapshot() == once


@pytest.mark.parametrize("resolver", ["", "127.0.0.53"])
def test_what_is_gone_of_it_is_named(host: Host, programs: FakePrograms, resolver: str) -> None:
    bridge = Bridge(host, "lab")
    bridge.create(wiring(resolver))
    assert bridge.problem(wiring(resolver)) == ""
    programs.run(["iptables", "-w", "-t", "nat", "-F", "SYKUBE-lab-POST"])
    assert bridge.problem(wiring(resolver)) == "rules are gone from SYKUBE-lab-POST"
    bridge.create(wiring(resolver))
    bridge.remove_rules()
    assert "SYKUBE-lab-FWD, SYKUBE-lab-POST" in bridge.problem(wiring(resolver))
    bridge.remove()
    assert bridge.problem(wiring(resolver)) == "the bridge sk-lab is gone"


def test_a_bridge_of_a_sykube_that_changed_no_segment_sizes_is_whole(
    host: Host, programs: FakePrograms
) -> None:
    bridge = Bridge(host, "lab")
    bridge.create(wiring(""))
    chain = programs.kernel.tables["filter"]["SYKUBE-lab-FWD"]
    chain[:] = [rule for rule in chain if "TCPMSS" not in rule]
    assert bridge.problem(wiring("")) == ""
    chain.pop()
    assert bridge.problem(wiring("")) == "rules are gone from SYKUBE-lab-FWD"


def test_removing_what_is_not_there_is_no_error(host: Host, programs: FakePrograms) -> None:
    before = programs.kernel.snapshot()
    Bridge(host, "lab").remove()
    Bridge(host, "lab").remove()
    assert programs.kernel.snapshot() == before


def test_a_link_is_put_on_the_bridge_once(host: Host, programs: FakePrograms) -> None:
    Bridge(host, "lab").create(wiring(""))
    other, index = programs.kernel.add_link("veth1"), programs.kernel.add_link("veth2")
    assert other != index
    programs.calls.all.clear()
    assert Bridge(host, "lab").attach(index) is True
    # Through it a node reaches itself by the endpoint's address.
    assert programs.argvs == [
        ["ip", "link", "set", "dev", "veth2", "master", "sk-lab", "up"],
        ["ip", "link", "set", "dev", "veth2", "type", "bridge_slave", "hairpin", "on"],
    ]
    assert Bridge(host, "lab").attach(index) is True
    assert len(programs.argvs) == 2


@pytest.mark.parametrize("index", [0, 4711])
def test_a_link_that_is_not_there_is_said(host: Host, programs: FakePrograms, index: int) -> None:
    Bridge(host, "lab").create(wiring(""))
    before = programs.kernel.snapshot()
    assert Bridge(host, "lab").attach(index) is False
    assert programs.kernel.snapshot() == before


def test_every_half_made_bridge_can_be_removed(host: Host, programs: FakePrograms) -> None:
    before = programs.kernel.snapshot()
    for number in range(100):
        programs.calls.all.clear()
        programs.calls.faults.clear()
        programs.calls.fail_number(number)
        try:
            Bridge(host, "lab").create(wiring("127.0.0.53"))
        except Injected:
            programs.calls.faults.clear()
            Bridge(host, "lab").remove()
            assert programs.kernel.snapshot() == before, number
        else:
            break
    else:
        raise AssertionError("it never succeeded")
    assert number > 5


def forward_rules(programs: FakePrograms) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The rules that make segments smaller, and those that decide."""
    rules = programs.kernel.tables["filter"]["SYKUBE-lab-FWD"]
    return rules[:2], rules[2:]


def test_the_rules(host: Host, programs: FakePrograms) -> None:
    Bridge(host, "lab").create(wiring("127.0.0.53"))
    tables = programs.kernel.tables
    jump = ("-m", "comment", "--comment", "sykube:lab", "-j")
    # Ahead of the rules of others, whose DROP would come first.
    assert tables["filter"]["FORWARD"] == [
        (*jump, "SYKUBE-lab-FWD"),
        ("-i", "docker0", "-j", "ACCEPT"),
    ]
    clamp, forward = forward_rules(programs)
    # Segments fit through the host's uplink, whichever side begins.
    assert [rule[:5] for rule in clamp] == [
        ("-i", "sk-lab", "!", "-o", "sk-lab"),
        ("!", "-i", "sk-lab", "-o", "sk-lab"),
    ]
    assert {rule[-3:] for rule in clamp} == {("-j", "TCPMSS", "--clamp-mss-to-pmtu")}
    # What kube-proxy does not know yet is nobody else's to answer.
    assert forward[0] == ("-i", "sk-lab", "-d", "10.96.0.0/12", "-j", "REJECT")
    assert forward[1] == ("-i", "sk-lab", "-j", "ACCEPT")
    assert forward[2][-1] == "ACCEPT"
    assert "RELATED,ESTABLISHED" in forward[2]
    # The host's neighbours do not reach the nodes.
    assert forward[3:] == [("-o", "sk-lab", "-j", "DROP")]
    assert tables["nat"]["SYKUBE-lab-POST"] == [
        ("-s", "10.11.11.0/24", "!", "-o", "sk-lab", "-j", "MASQUERADE")
    ]
    assert programs.kernel.sysctl("net/ipv4/conf/sk-lab/route_localnet") == "1"
    for protocol in ("udp", "tcp"):
        to_gateway = ("-i", "sk-lab", "-d", "10.11.11.1", "-p", protocol, "--dport", "53")
        from_nodes = ("-i", "sk-lab", "-d", "127.0.0.53", "-p", protocol, "--dport", "53")
        redirect = (*to_gateway, "-j", "DNAT", "--to-destination", "127.0.0.53")
        assert redirect in tables["nat"]["SYKUBE-lab-PRE"]
        source = (*from_nodes, "-j", "SNAT", "--to-source", "127.0.0.1")
        assert source in tables["nat"]["SYKUBE-lab-SNAT"]
        assert (*from_nodes, "-j", "ACCEPT") in tables["filter"]["SYKUBE-lab-IN"]


def test_a_port_of_loopback_leads_to_a_node_and_is_the_hosts_alone(
    host: Host, programs: FakePrograms
) -> None:
    Bridge(host, "lab").create(wiring("", "8080:30080"))
    nat = programs.kernel.tables["nat"]
    led = ("-j", "DNAT", "--to-destination", "10.11.11.3:30080")
    assert nat["SYKUBE-lab-OUT"] == [
        ("-p", "tcp", "-d", "127.0.0.1/32", "--dport", "8080", *led),
    ]
    assert "SYKUBE-lab-PRE" not in nat
    assert programs.kernel.sysctl("net/ipv4/conf/sk-lab/route_localnet") == "1"
    # Nodes reach nothing on the host's loopback.
    assert programs.kernel.tables["filter"]["SYKUBE-lab-IN"][-1][-1] == "DROP"


def test_a_port_of_all_addresses_is_everybodys(host: Host, programs: FakePrograms) -> None:
    Bridge(host, "lab").create(wiring("", "0.0.0.0:53:30053/udp", "192.0.2.10:80:30080"))
    nat = programs.kernel.tables["nat"]
    local = ("-m", "addrtype", "--dst-type", "LOCAL")
    rules = [
        (
            "-p",
            "udp",
            *local,
            "--dport",
            "53",
            "-j",
            "DNAT",
            "--to-destination",
            "10.11.11.3:30053",
        ),
        (*("-p", "tcp", "-d", "192.0.2.10/32", "--dport", "80", "-j", "DNAT"),)
        + ("--to-destination", "10.11.11.3:30080"),
    ]
    assert nat["SYKUBE-lab-OUT"] == nat["SYKUBE-lab-PRE"] == rules
    assert programs.kernel.sysctl("net/ipv4/conf/sk-lab/route_localnet") == "0"
    forward = programs.kernel.tables["filter"]["SYKUBE-lab-FWD"]
    assert any("RELATED,ESTABLISHED,DNAT" in rule for rule in forward)


def test_the_host_reaches_services_by_the_control_plane(host: Host, programs: FakePrograms) -> None:
    Bridge(host, "lab").create(wiring())
    route = {"dst": str(SUBNETS.services), "gateway": "10.11.11.254", "dev": "sk-lab"}
    assert route in programs.kernel.routes
    # The range of a snapshot's cluster may be another's, too.
    Bridge(host, "other").create(wiring())
    assert [each for each in programs.kernel.routes if each["dst"] == route["dst"]] == [route]


def test_loopback_stays_closed_without_a_loopback_resolver(
    host: Host, programs: FakePrograms
) -> None:
    Bridge(host, "lab").create(wiring(""))
    assert programs.kernel.sysctl("net/ipv4/conf/sk-lab/route_localnet") == "0"
    assert set(programs.kernel.tables["nat"]) - {"SYKUBE-lab-POST"} == set(Kernel.BUILT_IN["nat"])


def test_a_resolver_that_is_no_address_never_gets_into_a_rule(
    host: Host, programs: FakePrograms
) -> None:
    with pytest.raises(ValueError, match="127"):
        Bridge(host, "lab").create(wiring("127.0.0.53 -j ACCEPT"))


def test_the_chains_of_another_cluster_stay(host: Host, programs: FakePrograms) -> None:
    Bridge(host, "other").create(wiring("127.0.0.53"))
    before = programs.kernel.snapshot()
    Bridge(host, "lab").create(replace(wiring("127.0.0.53"), subnets=make_subnets("10.11.12.0/24")))
    Bridge(host, "lab").remove()
    assert programs.kernel.snapshot() == before


def test_the_chains_of_a_cluster_whose_name_begins_alike_stay(
    host: Host, programs: FakePrograms
) -> None:
    Bridge(host, "lab-2").create(wiring("127.0.0.53"))
    before = programs.kernel.snapshot()
    Bridge(host, "lab").create(replace(wiring("127.0.0.53"), subnets=make_subnets("10.11.12.0/24")))
    Bridge(host, "lab").remove()
    assert programs.kernel.snapshot() == before


def test_a_second_jump_by_a_crash_is_removed_too(host: Host, programs: FakePrograms) -> None:
    Bridge(host, "lab").create(wiring(""))
    before_chain = programs.kernel.tables["filter"]["FORWARD"]
    before_chain.insert(1, before_chain[0])
    Bridge(host, "lab").remove()
    assert before_chain == [("-i", "docker0", "-j", "ACCEPT")]


def test_a_host_without_nat_can_still_be_cleaned(host: Host, programs: FakePrograms) -> None:
    """`iptables -t nat -S` fails where the kernel has no such table."""
    iptables, restore = programs.answers["iptables"], programs.answers["iptables-restore"]
    error = (3, "", "can't initialize iptables table `nat'")
    programs.answers["iptables"] = lambda words: error if words[2] == "nat" else iptables(words)
    programs.answers["iptables-restore"] = lambda words: (
        error if "*nat" in programs.stdin else restore(words)
    )
    Bridge(host, "lab").remove()
    with pytest.raises(CommandError):
        Bridge(host, "lab").create(wiring(""))


def test_all_rules_are_one_process(host: Host, programs: FakePrograms) -> None:
    """Each of them takes the lock that all of iptables waits for."""
    Bridge(host, "lab").create(wiring("127.0.0.53", "8080:30080"))
    changing = [
        argv[0] for argv in programs.argvs if argv[0].startswith("iptables") and "-S" not in argv
    ]
    assert changing == ["iptables-restore"]
