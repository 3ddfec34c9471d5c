"""Ports of the host that lead into a user's namespaces, by a slirp4netns of the test's."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import HostError, SykubeError
from sykube.host.network import LedAwayError
from sykube.host.run import CommandError, Completed
from sykube.network import ports, subnets
from sykube.network.ports import PortMap
from sykube.rootless import host_ports
from sykube.rootless.host_ports import HostPorts
from sykube.rootless.network import RootlessNetwork, routes
from sykube.rootless.slirp import Forward, Slirp
from tests.fakes import FakeHost, fill


class FakeSlirp:
    """Answers as slirp4netns's api.c does: one request on each connection."""

    def __init__(self, path: Path) -> None:
        self.forwards: dict[int, dict[str, Any]] = {}
        # Of other programs of the host.
        self.taken: set[int] = set()
        self._number = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def ports(self) -> set[tuple[str, str, int]]:
        return {(e["proto"], e["host_addr"], e["host_port"]) for e in self.forwards.values()}

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                asked = json.loads(connection.makefile("rb").read())
                answer = self._answer(asked["execute"], asked.get("arguments", {}))
                connection.sendall(json.dumps(answer).encode())

    def _answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        match command:
            case "add_hostfwd":
                key = (arguments["proto"], arguments["host_addr"], arguments["host_port"])
                if key in self.ports or key[2] in self.taken:
                    return {"error": {"desc": "bad request: add_hostfwd: slirp_add_hostfwd failed"}}
                self._number += 1
                self.forwards[self._number] = arguments
                return {"return": {"id": self._number}}
            case "list_hostfwd":
                entries = [{"id": number, **each} for number, each in self.forwards.items()]
                return {"entries": entries}
            case "remove_hostfwd":
                del self.forwards[arguments["id"]]
                return {"return": {}}
        raise AssertionError(command)


def test_where_slirp4netns_has_ended_its_ports_are_closed(tmp_path: Path) -> None:
    gone = Slirp(tmp_path / "slirp.sock")
    gone.remove(Forward("tcp", "127.0.0.1", 8080))
    with pytest.raises(SykubeError, match="does not answer"):
        gone.forwards()


@pytest.fixture
def slirp(tmp_path: Path) -> Iterator[FakeSlirp]:
    running = FakeSlirp(tmp_path / "slirp.sock")
    yield running
    running.close()


@pytest.fixture
def network(tmp_path: Path) -> RootlessNetwork:
    return RootlessNetwork(Slirp(tmp_path / "slirp.sock"))


WEB, DNS = ("tcp", "127.0.0.1", 8080), ("udp", "127.0.0.1", 5353)


def test_ports_are_published_and_taken_away(network: RootlessNetwork, slirp: FakeSlirp) -> None:
    network.publish("lab", [WEB, DNS])
    assert slirp.ports == {WEB, DNS}
    assert {each["guest_addr"] for each in slirp.forwards.values()} == {network.arrival}
    assert {each["guest_port"] for each in slirp.forwards.values()} == {8080, 5353}
    network.publish("lab", [WEB])
    assert slirp.ports == {WEB}
    network.publish("lab", [])
    assert slirp.ports == set()


def test_those_of_other_clusters_stay(network: RootlessNetwork, slirp: FakeSlirp) -> None:
    network.publish("lab", [WEB])
    network.publish("other", [DNS])
    network.publish("lab", [])
    assert slirp.ports == {DNS}


def test_a_port_that_is_taken_is_named(network: RootlessNetwork, slirp: FakeSlirp) -> None:
    slirp.taken.add(8080)
    with pytest.raises(HostError) as caught:
        network.publish("lab", [WEB])
    assert "the port 8080 of 127.0.0.1 is in use" in caught.value.brief
    with pytest.raises(OSError):
        network.bind(socket.SOCK_STREAM, ("127.0.0.1", 8080))
    network.bind(socket.SOCK_DGRAM, ("127.0.0.1", 5353))
    assert slirp.ports == set()


@dataclass(frozen=True)
class FakeHostPorts(HostPorts):
    """Its ports lead where slirp4netns has it, but for those that rules lead away."""

    slirp: FakeSlirp
    led_away: set[tuple[str, int]] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def _send(self, kind: int, address: tuple[str, int], data: bytes, timeout: float) -> None:
        self.asked.append(address[0])
        if address in self.led_away:
            raise ConnectionRefusedError
        (forward,) = self.slirp.forwards.values()
        super()._send(kind, ("127.0.0.1", forward["guest_port"]), data, timeout)


FIB_TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 192.0.2.2
           /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""


@pytest.fixture
def beyond(tmp_path: Path, slirp: FakeSlirp) -> Iterator[FakeHostPorts]:
    fill(tmp_path / "net", {"fib_trie": FIB_TRIE})
    made = FakeHostPorts(**vars(HostPorts.open(tmp_path)), slirp=slirp)
    with made.stream, made.datagrams, made.routes:
        yield made


@pytest.fixture
def host_of_rules(tmp_path: Path, beyond: FakeHostPorts) -> FakeHost:
    """One whose ports may be led away."""
    network = RootlessNetwork(Slirp(tmp_path / "slirp.sock"), host_ports=beyond)
    network.arrival = "127.0.0.1"
    return FakeHost(tmp_path, network=network)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_leads_here_is_had(
    host_of_rules: FakeHost, slirp: FakeSlirp, protocol: str
) -> None:
    for port in (8080, 8081):
        ports.check_free(host_of_rules, PortMap("127.0.0.1", port, 30080, protocol))
    assert slirp.ports == set()
    host_of_rules.network.publish("lab", [(protocol, "127.0.0.1", 8080)])
    assert [each["guest_port"] for each in slirp.forwards.values()] == [8080]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_rules_lead_away_is_not_had(
    host_of_rules: FakeHost, slirp: FakeSlirp, beyond: FakeHostPorts, protocol: str
) -> None:
    """Nobody listens on it, and it can be listened on."""
    beyond.led_away.add(("127.0.0.1", 8080))
    with pytest.raises(HostError, match="the port 8080 of 127.0.0.1 is led elsewhere") as caught:
        ports.check_free(host_of_rules, PortMap("127.0.0.1", 8080, 30080, protocol))
    assert "firewall" in caught.value.details
    # One that was had, until the cluster was stopped.
    with pytest.raises(HostError, match="is led elsewhere") as caught:
        host_of_rules.network.publish("lab", [(protocol, "127.0.0.1", 8080)])
    assert "sykube port delete 8080 --name lab" in caught.value.resolution
    assert slirp.ports == set()


def test_an_address_that_the_host_has_not_is_said_to_be_that(host_of_rules: FakeHost) -> None:
    with pytest.raises(HostError, match="this host has no address 192.0.2.3"):
        ports.check_free(host_of_rules, PortMap("192.0.2.3", 8080, 30080))
    ports.check_free(host_of_rules, PortMap("192.0.2.2", 8080, 30080))


def test_of_all_addresses_each_has_to_lead_here(
    host_of_rules: FakeHost, beyond: FakeHostPorts
) -> None:
    host_of_rules.network.bind(socket.SOCK_STREAM, ("0.0.0.0", 8080))
    assert beyond.asked == ["127.0.0.1", "192.0.2.2"]
    beyond.led_away.add(("192.0.2.2", 8080))
    with pytest.raises(LedAwayError, match=r"192\.0\.2\.2"):
        host_of_rules.network.bind(socket.SOCK_STREAM, ("0.0.0.0", 8080))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_others_send_is_not_taken_for_what_was_sent(
    monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    monkeypatch.setattr(host_ports, "_ARRIVES_S", 0.2)
    made = HostPorts.open(Path("/proc"))
    with (
        made.stream, made.datagrams, made.routes,
        socket.socket(socket.AF_INET, kind) as here,
        socket.socket(socket.AF_INET, kind) as there,
        socket.socket(socket.AF_INET, kind) as stranger,
    ):  # fmt: skip
        for each in (here, there):
            each.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                each.listen()
        stranger.connect(here.getsockname())
        stranger.send(b"of somebody else")
        if kind == socket.SOCK_STREAM:
            stranger.close()
        assert made.reaches(here.getsockname(), here)
        assert not made.reaches(there.getsockname(), here)
        # The same sockets again.
        assert made.reaches(there.getsockname(), there)


def test_below_1024_ports_are_not_the_users(network: RootlessNetwork, slirp: FakeSlirp) -> None:
    slirp.taken.add(80)
    with pytest.raises(HostError, match="in use on this host, or not yours") as caught:
        network.publish("lab", [("tcp", "127.0.0.1", 80)])
    assert "from 1024 on" in caught.value.resolution


def test_an_api_server_gets_a_port_that_nobody_has(
    network: RootlessNetwork, slirp: FakeSlirp
) -> None:
    slirp.taken.add(16444)
    assert network.api_port([]) == 16443
    # One of a cluster that is stopped is free on the host.
    assert network.api_port([16443]) == 16445
    assert slirp.ports == set()


def test_another_slirp4netns_gets_the_ports_of_the_one_that_died(
    network: RootlessNetwork, slirp: FakeSlirp
) -> None:
    network.publish("lab", [WEB, DNS])
    slirp.forwards.clear()
    slirp.taken.add(8080)
    network.restore()
    assert slirp.ports == {DNS}


def test_without_a_slirp4netns_it_is_said(network: RootlessNetwork) -> None:
    with pytest.raises(SykubeError, match="slirp4netns does not answer"):
        network.publish("lab", [WEB])


def test_it_is_named_where_it_is_not_installed(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, which=lambda _: None)
    with pytest.raises(CommandError, match="could not find the program slirp4netns"):
        Slirp(tmp_path / "s").start(host, 1, 0, tmp_path / "log")


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    program = tmp_path / "slirp4netns"
    program.write_text("#!/bin/sh\necho 'open(\"/dev/net/tun\"): Permission denied'\n")
    program.chmod(0o755)
    host = FakeHost(tmp_path, which=lambda _: str(program))
    with pytest.raises(HostError) as caught, open("/dev/null", "rb") as lifeline:
        Slirp(tmp_path / "s").start(host, 1, lifeline.fileno(), tmp_path / "log")
    assert "/dev/net/tun" in caught.value.details
    assert "chmod 666 /dev/net/tun" in caught.value.resolution


def test_its_number_is_written_down_before_it_is_ready(tmp_path: Path) -> None:
    """So that the next sykube finds one whose sykube was killed meanwhile."""
    program = tmp_path / "slirp4netns"
    program.write_text(
        "#!/bin/sh\n"
        "for word; do case $word in --ready-fd=*) ready=${word#*=}; esac; done\n"
        f"until [ -s {tmp_path}/s.pid ]; do sleep 0.01; done\n"
        "echo 1 > /dev/fd/$ready\n"
    )
    program.chmod(0o755)
    host = FakeHost(tmp_path, which=lambda _: str(program))
    with open("/dev/null", "rb") as lifeline:
        Slirp(tmp_path / "s.sock").start(host, 1, lifeline.fileno(), tmp_path / "log")
    assert (tmp_path / "s.pid").read_text().isdigit()


def test_ports_of_namespaces_that_were_killed_are_not_opened_again(
    slirp: FakeSlirp, network: RootlessNetwork
) -> None:
    network.publish("lab", [WEB])
    slirp.forwards.clear()
    network.forget()
    network.restore()
    assert slirp.ports == set()
    network.forget()


def test_a_forward_is_shown_as_people_write_it() -> None:
    assert str(Forward(*DNS)) == "127.0.0.1:5353/udp"


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00000B0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
sk-lab\t000C0B0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


@pytest.mark.skipif(sys.byteorder == "big", reason="the kernel writes it as its processor does")
def test_clusters_keep_off_what_the_host_has_routes_to(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTES)
    beyond = routes(tmp_path / "route")
    assert [*map(str, beyond)] == ["192.0.2.0/24", "10.11.0.0/16"]
    assert routes(tmp_path / "absent") == ()
    network = RootlessNetwork(Slirp(tmp_path / "s"), beyond)
    host = FakeHost(tmp_path, lambda *_, **__: Completed((), 0, "[]", ""), network=network)
    assert subnets.host_routes(host) == [*beyond]
