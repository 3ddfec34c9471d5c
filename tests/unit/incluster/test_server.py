"""The DNS server: single messages, then real sockets, then the whole program."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

import sykube.incluster
from sykube.incluster.dns import server
from sykube.incluster.dns.__main__ import parse_arguments
from sykube.incluster.dns.records import Zone, parse_endpoints, parse_service
from sykube.incluster.dns.server import Bound
from sykube.incluster.dns.transport import Address

LOOPBACK = Address("127.0.0.1", 0)
WEB = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]},
}
DNS = {
    "metadata": {"name": "kube-dns", "namespace": "kube-system"},
    "spec": {"clusterIP": "10.96.0.10"},
}


def external(name: str, target: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"metadata": metadata, "spec": {"type": "ExternalName", "externalName": target}}


def headless(name: str, count: int) -> Zone:
    """A zone with one headless Service of so many endpoints."""
    metadata = {"name": name, "namespace": "default"}
    addresses = [{"ip": f"10.244.{each >> 8}.{each & 255}"} for each in range(count)]
    subsets = [{"addresses": addresses, "ports": [{"name": "http", "port": 80}]}]
    service = parse_service({"metadata": metadata, "spec": {"clusterIP": "None"}})
    endpoints = parse_endpoints({"metadata": metadata, "subsets": subsets})
    zone = Zone.empty("cluster.local", ["10.244.0.0/16"])
    return zone.updated({service.key: service}, {endpoints.key: endpoints})


def zone_of(*services: dict[str, Any]) -> Zone:
    parsed = [parse_service(each) for each in services]
    return Zone.empty("cluster.local", ["10.96.0.0/12"]).updated(
        {each.key: each for each in parsed}
    )


ZONE = zone_of(WEB, DNS)


def ask(
    zone: Zone, name: str, rdtype: str = "A", *, udp: bool = True, **options: Any
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, **options)
    wire = server.respond(zone, query.to_wire(), udp=udp)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    return response


def texts(section: list[dns.rrset.RRset]) -> list[str]:
    return [line for rrset in section for line in rrset.to_text().splitlines()]


def test_an_answer() -> None:
    response = ask(ZONE, "Web.default.svc.cluster.local")
    assert texts(response.answer) == ["Web.default.svc.cluster.local. 5 IN A 10.96.0.7"]
    assert response.flags & dns.flags.AA
    assert not response.flags & dns.flags.RA
    assert response.rcode() == dns.rcode.NOERROR
    assert response.edns == -1


def test_srv_brings_the_address() -> None:
    response = ask(ZONE, "_http._tcp.web.default.svc.cluster.local", "SRV")
    assert texts(response.additional) == ["web.default.svc.cluster.local. 5 IN A 10.96.0.7"]


def test_ns_brings_the_address() -> None:
    response = ask(ZONE, "96.10.in-addr.arpa", "NS")
    assert texts(response.answer) == [
        "96.10.in-addr.arpa. 5 IN NS kube-dns.kube-system.svc.cluster.local."
    ]
    assert texts(response.additional) == [
        "kube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10"
    ]


@pytest.mark.parametrize(
    ("name", "rcode"),
    [
        ("no.default.svc.cluster.local", dns.rcode.NXDOMAIN),
        ("default.svc.cluster.local", dns.rcode.NOERROR),
        ("9.0.96.10.in-addr.arpa", dns.rcode.NXDOMAIN),
    ],
)
def test_a_negative_answer_says_for_how_long(name: str, rcode: dns.rcode.Rcode) -> None:
    response = ask(ZONE, name)
    assert response.rcode() == rcode
    assert response.flags & dns.flags.AA
    assert not response.answer
    (soa,) = response.authority
    assert soa.ttl == 5
    assert soa[0].minimum == 5
    apex = "cluster.local." if name.endswith("local") else "96.10.in-addr.arpa."
    assert soa.name.to_text() == apex


def test_any_gives_all() -> None:
    response = ask(ZONE, "cluster.local", "ANY")
    assert {rrset.rdtype for rrset in response.answer} == {
        dns.rdatatype.SOA,
        dns.rdatatype.NS,
    }


def test_a_cname_out_of_the_zone_ends_the_answer() -> None:
    response = ask(zone_of(external("ext", "www.example.org")), "ext.default.svc.cluster.local")
    assert texts(response.answer) == ["ext.default.svc.cluster.local. 5 IN CNAME www.example.org."]
    assert response.rcode() == dns.rcode.NOERROR
    assert not response.authority


def test_a_cname_within_the_zone_is_followed() -> None:
    zone = zone_of(WEB, external("ext", "web.default.svc.cluster.local"))
    response = ask(zone, "ext.default.svc.cluster.local")
    assert texts(response.answer)[1] == "web.default.svc.cluster.local. 5 IN A 10.96.0.7"
    response = ask(zone, "ext.default.svc.cluster.local", "CNAME")
    assert len(response.answer) == 1


def test_a_cname_to_nowhere() -> None:
    zone = zone_of(external("ext", "no.default.svc.cluster.local"))
    response = ask(zone, "ext.default.svc.cluster.local")
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert len(response.answer) == 1
    assert len(response.authority) == 1


def test_a_cname_loop_ends() -> None:
    zone = zone_of(
        external("a", "b.default.svc.cluster.local"), external("b", "a.default.svc.cluster.local")
    )
    assert ask(zone, "a.default.svc.cluster.local").answer


@pytest.mark.parametrize(
    ("name", "rdtype", "options"),
    [
        ("www.example.org", "A", {}),
        ("1.0.16.172.in-addr.arpa", "PTR", {}),
        ("cluster.local", "AXFR", {}),
        ("cluster.local", "IXFR", {}),
        ("cluster.local", "A", {"rdclass": "CH"}),
    ],
)
def test_refused(name: str, rdtype: str, options: dict[str, Any]) -> None:
    response = ask(ZONE, name, rdtype, **options)
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.flags & dns.flags.AA


@pytest.mark.parametrize("opcode", [dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE])
def test_other_operations_are_not_implemented(opcode: dns.opcode.Opcode) -> None:
    message = dns.message.Message(id=77)
    message.set_opcode(opcode)
    wire = server.respond(ZONE, message.to_wire(), udp=True)
    assert wire is not None
    assert wire[:2] == (77).to_bytes(2)
    assert wire[2] >> 3 & 0xF == opcode
    assert wire[3] & 0xF == dns.rcode.NOTIMP


def test_edns() -> None:
    response = ask(ZONE, "web.default.svc.cluster.local", use_edns=0, payload=4096)
    assert response.edns == 0
    assert response.payload == 1232


def test_a_later_edns_version_is_told_so() -> None:
    response = ask(ZONE, "web.default.svc.cluster.local", use_edns=1)
    assert response.rcode() == dns.rcode.BADVERS
    assert response.edns == 0
    assert not response.answer


@pytest.mark.parametrize(
    ("count", "options", "truncated"),
    [
        (27, {}, False),
        (30, {}, True),
        (30, {"use_edns": 0, "payload": 1232}, False),
        (74, {"use_edns": 0, "payload": 4096}, True),
        (30, {"use_edns": 0, "payload": 100}, True),
    ],
)
def test_truncation(count: int, options: dict[str, Any], truncated: bool) -> None:
    zone = headless("big", count)
    query = dns.message.make_query("big.default.svc.cluster.local", "A", **options)
    wire = server.respond(zone, query.to_wire(), udp=True)
    assert wire is not None
    assert len(wire) <= max(512, min(options.get("payload", 0), 1232))
    response = dns.message.from_wire(wire)
    assert bool(response.flags & dns.flags.TC) == truncated
    assert len(texts(response.answer)) == (0 if truncated else count)
    whole = ask(zone, "big.default.svc.cluster.local", udp=False, **options)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == count


def test_missing_additional_records_are_no_truncation() -> None:
    response = ask(headless("big", 10), "_http._tcp.big.default.svc.cluster.local", "SRV")
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 10
    assert len(response.additional) < 10


def test_a_thousand_endpoints_fit_into_tcp() -> None:
    name = "_http._tcp.big.default.svc.cluster.local"
    response = ask(headless("big", 1000), name, "SRV", udp=False)
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 1000


def test_silence_until_the_zone_is_known() -> None:
    query = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()
    assert server.respond(None, query, udp=True) is None


def test_answers_are_not_answered() -> None:
    query = dns.message.make_query("web.default.svc.cluster.local", "A")
    response = dns.message.make_response(query)
    assert server.respond(ZONE, response.to_wire(), udp=True) is None


def _two_questions() -> bytes:
    query = dns.message.make_query("a.cluster.local", "A")
    query.question += dns.message.make_query("b.cluster.local", "A").question
    return query.to_wire()


@pytest.mark.parametrize(
    "wire",
    [
        bytes(12),
        _two_questions(),
        dns.message.make_query("a.cluster.local", "A").to_wire()[:-1],
        dns.message.make_query("a.cluster.local", "A").to_wire() + b"x",
        bytes.fromhex("000001000001000000000000c00c00010001"),  # a name that points to itself
    ],
    ids=["no question", "two questions", "cut short", "too long", "loop"],
)
def test_malformed_queries(wire: bytes) -> None:
    response = server.respond(ZONE, wire, udp=True)
    assert response is not None
    assert response[:2] == wire[:2]
    assert response[3] & 0xF == dns.rcode.FORMERR


def test_garbage_is_survived() -> None:
    rng = random.Random(53)
    query = dns.message.make_query("_http._tcp.web.default.svc.cluster.local", "SRV", use_edns=0)
    good = query.to_wire()
    for _ in range(1000):
        wire = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(80)))
        for _ in range(rng.randrange(4)):
            if wire:
                wire[rng.randrange(len(wire))] = rng.randrange(256)
        response = server.respond(ZONE, bytes(wire), udp=rng.random() < 0.5)
        if response is not None:
            dns.message.from_wire(response)


def test_an_error_of_ours_is_servfail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Zone):
        def find(self, name: dns.name.Name) -> Any:
            raise RuntimeError("broken")

    parts = {each.name: getattr(ZONE, each.name) for each in dataclasses.fields(ZONE) if each.init}
    assert ask(Broken(**parts), "web.default.svc.cluster.local").rcode() == dns.rcode.SERVFAIL
    assert "broken" in caplog.text


@pytest.mark.parametrize("text", ["127.0.0.1:5353", "[::1]:53"])
def test_address(text: str) -> None:
    assert Address.parse(text).host in ("127.0.0.1", "::1")


@pytest.mark.parametrize("text", ["127.0.0.1", ":53", "x:y", "x:70000", ""])
def test_bad_address(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)


@contextlib.asynccontextmanager
async def running(zones: list[Zone | None], alive: bool = True) -> AsyncIterator[Bound]:
    """A server whose zone is the last of the list."""
    async with server.serving(lambda: zones[-1], lambda: alive, LOOPBACK, LOOPBACK) as bound:
        yield bound


async def http_get(address: Address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def test_udp_and_tcp() -> None:
    async def scenario() -> None:
        query = dns.message.make_query("big.default.svc.cluster.local", "A")
        async with running([headless("big", 200)]) as bound:
            host, port = bound.listen
            response, used_tcp = await dns.asyncquery.udp_with_fallback(query, host, 2, port)
            assert used_tcp
            assert len(response.answer[0]) == 200

    asyncio.run(scenario())


def test_one_tcp_connection_serves_many_queries_and_survives_none() -> None:
    async def scenario() -> None:
        query = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()
        framed = len(query).to_bytes(2) + query
        async with running([ZONE]) as bound:
            reader, writer = await asyncio.open_connection(*bound.listen)
            writer.write(framed * 2)
            for _ in range(2):
                size = int.from_bytes(await reader.readexactly(2))
                answer = dns.message.from_wire(await reader.readexactly(size))
                assert answer.answer
            writer.write(b"\x00\x05hello")  # no message: the connection ends
            assert await reader.read() == b""
            writer.close()
            _, hangs_up = await asyncio.open_connection(*bound.listen)
            hangs_up.write(framed[:7])
            hangs_up.close()
            assert await dns.asyncquery.tcp(
                dns.message.make_query("cluster.local", "SOA"),
                *bound.listen[:1],
                2,
                bound.listen[1],
            )

    asyncio.run(scenario())


def test_the_zone_is_the_one_of_the_moment() -> None:
    async def scenario() -> None:
        zones: list[Zone | None] = [zone_of()]
        query = dns.message.make_query("web.default.svc.cluster.local", "A")
        async with running(zones) as bound:
            host, port = bound.listen
            assert (await dns.asyncquery.udp(query, host, 2, port)).rcode() == dns.rcode.NXDOMAIN
            zones.append(ZONE)
            assert (await dns.asyncquery.udp(query, host, 2, port)).answer

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("request_line", "zone", "alive", "status"),
    [
        (b"GET /ready HTTP/1.1", ZONE, True, b"200 OK"),
        (b"GET /ready HTTP/1.1", None, True, b"503 Service Unavailable"),
        (b"GET /live HTTP/1.1", None, True, b"200 OK"),
        (b"GET /live HTTP/1.1", ZONE, False, b"503 Service Unavailable"),
        (b"GET /other HTTP/1.1", ZONE, True, b"404 Not Found"),
        (b"nonsense", ZONE, True, b"404 Not Found"),
    ],
)
def test_health(request_line: bytes, zone: Zone | None, alive: bool, status: bytes) -> None:
    async def scenario() -> bytes:
        async with running([zone], alive) as bound:
            return await http_get(bound.health, request_line + b"\r\nHost: x\r\n\r\n")

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 " + status + b"\r\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_program_on_its_own(tmp_path: Path) -> None:
    """Copied out of sykube, without an API, it is alive but not ready, and ends at SIGTERM."""
    package = Path(sykube.incluster.__file__).parent
    shutil.copytree(package, tmp_path / "incluster", ignore=shutil.ignore_patterns("__pycache__"))
    dns_port, health_port = free_port(), free_port()
    program = subprocess.Popen(
        [
            *(sys.executable, "-m", "incluster.dns", f"--listen=127.0.0.1:{dns_port}"),
            *(f"--health=127.0.0.1:{health_port}", f"--api-server=http://127.0.0.1:{free_port()}"),
            *("--reverse-cidr=10.96.0.0/12", f"--service-account={tmp_path}"),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        answers: dict[str, bytes] = {}
        deadline = time.monotonic() + 60
        while not answers and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                for path in ("live", "ready"):
                    request = f"GET /{path} HTTP/1.1\r\n\r\n".encode()
                    answers[path] = asyncio.run(
                        http_get(Address("127.0.0.1", health_port), request)
                    )
            time.sleep(0.02)
        program.send_signal(signal.SIGTERM)
        _, log = program.communicate(timeout=60)
    finally:
        program.kill()
    assert b" 200 " in answers["live"]
    assert b" 503 " in answers["ready"]
    assert program.returncode == 0, log
    assert "Traceback" not in log
    assert all(line.startswith("time=") for line in log.splitlines())
    assert any("resource=services" in line for line in log.splitlines())


def test_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    options = parse_arguments(["--reverse-cidr", "10.96.0.0/12", "--reverse-cidr=10.244.0.0/16"])
    assert options.zone == "cluster.local"
    assert options.reverse_cidr == ["10.96.0.0/12", "10.244.0.0/16"]
    assert options.listen == Address("127.0.0.1", 5353)
    assert options.health == Address("0.0.0.0", 8181)
    assert options.api_server is None


@pytest.mark.parametrize("argument", ["--reverse-cidr=10.96.0.1/12", "--listen=53", "--health=x:y"])
def test_wrong_arguments(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with pytest.raises(SystemExit) as error:
        parse_arguments([argument])
    assert error.value.code == 2


def test_the_api_has_to_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SystemExit):
        parse_arguments([])
