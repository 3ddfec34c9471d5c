"""A real Unbound in front of the real records program, all of it on loopback."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

UNBOUND = shutil.which("unbound", path=os.environ["PATH"] + ":/usr/sbin")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(UNBOUND is None, reason="Unbound is not installed"),
]

REVERSE = ("--reverse-cidr=10.96.0.0/12", "--reverse-cidr=10.244.0.0/16")


# Each endpoint's name has it: 900 of them are more than a message of 64 KiB holds.
LONG = "one-of-the-many-endpoints-of-a-service-with-a-long-name"


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, **more}


OBJECTS = {
    "services": [
        named("web", spec={"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}),
        named("db", spec={"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}),
        named("big", spec={"clusterIP": "None"}),
        named("thirty", spec={"clusterIP": "None"}),
        named("many", spec={"clusterIP": "None"}),
        named("ext", spec={"type": "ExternalName", "externalName": "www.example.org"}),
        named(
            "alias", spec={"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}
        ),
        named(
            "crowd", spec={"type": "ExternalName", "externalName": "big.default.svc.cluster.local"}
        ),
        *(named(f"s{n}", spec={"clusterIP": f"10.96.1.{n}"}) for n in range(60)),
    ],
    "endpoints": [
        named(
            "db",
            subsets=[
                {
                    "addresses": [
                        {"ip": f"10.244.0.{n}", "hostname": f"db-{n}"} for n in (1, 2, 3)
                    ],
                    "ports": [{"name": "sql", "port": 5432}],
                }
            ],
        ),
        named("big", subsets=[{"addresses": [{"ip": f"10.244.1.{n}"} for n in range(1, 201)]}]),
        named("thirty", subsets=[{"addresses": [{"ip": f"10.244.2.{n}"} for n in range(1, 31)]}]),
        named(
            "many",
            subsets=[
                {
                    "addresses": [
                        {"ip": f"10.244.{10 + n // 100}.{n % 100 + 1}", "hostname": f"{LONG}-{n}"}
                        for n in range(900)
                    ],
                    "ports": [{"name": "sql", "port": 5432}],
                }
            ],
        ),
    ],
}


class Api(http.server.BaseHTTPRequestHandler):
    """Lists OBJECTS; a watch says nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        resource = self.path.partition("?")[0].rpartition("/")[2]
        body = {"metadata": {"resourceVersion": "1"}, "items": OBJECTS[resource]}
        data = json.dumps(body).encode()
        self.send_response(200)
        if "watch=" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.rfile.read(1)
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def upstream(sock: socket.socket, asked: list[str]) -> None:
    """Knows www.example.org and every reverse name that it is asked for."""
    while True:
        wire, client = sock.recvfrom(4096)
        if not wire:  # the end of the test
            return
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        asked.append(name.to_text())
        if name.to_text().endswith("in-addr.arpa."):
            response.answer = [dns.rrset.from_text(name, 60, "IN", "PTR", "up.example.")]
        elif name.to_text() in ("www.example.org.", "host.test."):
            response.answer = [dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1")]
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        sock.sendto(response.to_wire(), client)


def free_port() -> int:
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return int(tcp.getsockname()[1])


class Dns:
    """Both programs and what they talk to."""

    def __init__(self, folder: Path, api: str, upstream_port: int, asked: list[str]) -> None:
        self.asked = asked
        self._folder = folder
        self._api = api
        self._upstream_port = upstream_port
        self._records_port, self._port, self._udp_port = free_port(), free_port(), free_port()
        self.records = self.start_records()
        self.unbound = self.start_unbound()
        self.front = self._start(
            "sykube.incluster.dns.front",
            f"--listen=127.0.0.1:{self._udp_port}",
            f"--unbound=127.0.0.1:{self._port}",
        )

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", module, *arguments])

    def start_records(self) -> subprocess.Popen[bytes]:
        listen = f"--listen=127.0.0.1:{self._records_port}"
        server = (f"--api-server={self._api}", f"--health=127.0.0.1:{free_port()}")
        return self._start("sykube.incluster.dns", listen, *server, *REVERSE)

    def start_unbound(self) -> subprocess.Popen[bytes]:
        return self._start(
            "sykube.incluster.dns.unbound",
            *REVERSE,
            f"--records=127.0.0.1@{self._records_port}",
            f"--upstream=127.0.0.1@{self._upstream_port}",
            f"--port={self._port}",
            "--interface=127.0.0.1",
            f"--config={self._folder}/unbound.conf",
            f"--program={UNBOUND}",
        )

    def ask(
        self, name: str, rdtype: str = "A", *, tcp: bool = False, timeout: float = 5, **options: Any
    ) -> dns.message.Message:
        query = dns.message.make_query(name, rdtype, **options)
        ask, port = (dns.query.tcp, self._port) if tcp else (dns.query.udp, self._udp_port)
        return ask(query, "127.0.0.1", timeout=timeout, port=port)

    def texts(self, name: str, rdtype: str = "A", **options: Any) -> set[str]:
        response = self.ask(name, rdtype, **options)
        return {rdata.to_text() for rrset in response.answer for rdata in rrset}

    def stop(self) -> None:
        processes = (self.records, self.unbound, self.front)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=5)


@pytest.fixture(scope="module")
def cluster_dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dns]:
    with contextlib.ExitStack() as stack:
        api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
        api.daemon_threads, api.block_on_close = True, False
        stack.callback(api.server_close)
        threading.Thread(target=api.serve_forever, args=(0.05,)).start()
        stack.callback(api.shutdown)

        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1", 0))
        stack.callback(sock.sendto, b"", sock.getsockname())
        asked: list[str] = []
        threading.Thread(target=upstream, args=(sock, asked), daemon=True).start()

        folder = tmp_path_factory.mktemp("unbound")
        url = f"http://127.0.0.1:{api.server_port}"
        running = Dns(folder, url, sock.getsockname()[1], asked)
        stack.callback(running.stop)
        wait_for_answer(running)
        yield running


def wait_for_answer(running: Dns) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(dns.exception.Timeout, OSError):
            if running.ask("web.default.svc.cluster.local", timeout=1).answer:
                return
        time.sleep(0.05)
    raise AssertionError("no answer from Unbound")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "rdtype", "answer"),
    [
        ("web.default.svc.cluster.local", "A", {"10.96.0.7"}),
        ("WEB.Default.svc.cluster.local", "A", {"10.96.0.7"}),
        (
            "_http._tcp.web.default.svc.cluster.local",
            "SRV",
            {"0 100 80 web.default.svc.cluster.local."},
        ),
        ("db.default.svc.cluster.local", "A", {"10.244.0.1", "10.244.0.2", "10.244.0.3"}),
        ("db-2.db.default.svc.cluster.local", "A", {"10.244.0.2"}),
        ("10-244-0-9.any.pod.cluster.local", "A", {"10.244.0.9"}),
        ("7.0.96.10.in-addr.arpa", "PTR", {"web.default.svc.cluster.local."}),
        ("3.0.244.10.in-addr.arpa", "PTR", {"db-3.db.default.svc.cluster.local."}),
        ("dns-version.cluster.local", "TXT", {'"1.1.0"'}),
        ("alias.default.svc.cluster.local", "A", {"web.default.svc.cluster.local.", "10.96.0.7"}),
        ("ext.default.svc.cluster.local", "A", {"www.example.org.", "192.0.2.1"}),
        ("ext.default.svc.cluster.local", "CNAME", {"www.example.org."}),
        ("www.example.org", "A", {"192.0.2.1"}),
    ],
)
def test_answers(cluster_dns: Dns, name: str, rdtype: str, answer: set[str], tcp: bool) -> None:
    assert cluster_dns.texts(name, rdtype, tcp=tcp) == answer


@pytest.mark.parametrize(
    ("name", "rcode"),
    [
        ("no.default.svc.cluster.local", dns.rcode.NXDOMAIN),
        ("default.svc.cluster.local", dns.rcode.NOERROR),
        ("_tcp.web.default.svc.cluster.local", dns.rcode.NOERROR),
        ("9.9.96.10.in-addr.arpa", dns.rcode.NXDOMAIN),
    ],
)
def test_negative_answers_are_short_lived(
    cluster_dns: Dns, name: str, rcode: dns.rcode.Rcode
) -> None:
    for _ in range(2):
        response = cluster_dns.ask(name)
        assert response.rcode() == rcode
        assert not response.answer
        assert response.authority[0].ttl <= 5


def test_positive_answers_are_short_lived(cluster_dns: Dns) -> None:
    ttls = [cluster_dns.ask("s1.default.svc.cluster.local").answer[0].ttl for _ in range(2)]
    assert max(ttls) <= 5


@pytest.mark.parametrize("name", ["5.1.168.192.in-addr.arpa", "5.1.0.10.in-addr.arpa"])
def test_private_addresses_outside_the_cluster_go_upstream(cluster_dns: Dns, name: str) -> None:
    assert cluster_dns.texts(name, "PTR") == {"up.example."}


def test_names_unbound_would_answer_itself_go_upstream(cluster_dns: Dns) -> None:
    assert cluster_dns.texts("host.test") == {"192.0.2.1"}


def test_cluster_names_never_go_upstream(cluster_dns: Dns) -> None:
    for name in ("no.default.svc.cluster.local", "x.cluster.local", "8.0.96.10.in-addr.arpa"):
        cluster_dns.ask(name)
    leaked = [
        name
        for name in cluster_dns.asked
        if name.endswith(("cluster.local.", "96.10.in-addr.arpa."))
    ]
    assert not leaked


def test_many_endpoints_need_tcp(cluster_dns: Dns) -> None:
    name = "big.default.svc.cluster.local"
    assert cluster_dns.ask(name).flags & dns.flags.TC
    assert len(cluster_dns.texts(name, tcp=True)) == 200


@pytest.mark.parametrize("name", ["thirty", "big"])
def test_a_client_that_asks_over_udp_alone_gets_as_many_endpoints_as_fit(
    cluster_dns: Dns, name: str
) -> None:
    """musl before 1.2.4 never asks over TCP, and knows no EDNS: 512 bytes."""
    response = cluster_dns.ask(f"{name}.default.svc.cluster.local")
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.TC
    # Each is 16 bytes.
    assert (
        len(response.answer[0]) == (512 - 12 - len(f"..{name}.default.svc.cluster.local") - 4) // 16
    )


def test_a_client_with_a_larger_buffer_gets_more(cluster_dns: Dns) -> None:
    name = "thirty.default.svc.cluster.local"
    response = cluster_dns.ask(name, use_edns=0, payload=1232)
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 30
    response = cluster_dns.ask("big.default.svc.cluster.local", use_edns=0, payload=4096)
    assert response.flags & dns.flags.TC
    assert 70 < len(response.answer[0]) < 80
    assert response.edns == 0


def test_endpoints_that_do_not_fit_take_turns(cluster_dns: Dns) -> None:
    name = "big.default.svc.cluster.local"
    assert len({text for _ in range(30) for text in cluster_dns.texts(name)}) > 29


def test_an_alias_of_many_endpoints_comes_before_them(cluster_dns: Dns) -> None:
    response = cluster_dns.ask("crowd.default.svc.cluster.local")
    first, second = response.answer
    assert first[0].to_text() == "big.default.svc.cluster.local."
    assert 20 < len(second) < 30


def test_more_endpoints_than_a_message_holds_are_answered_in_part(cluster_dns: Dns) -> None:
    name = "_sql._tcp.many.default.svc.cluster.local"
    response = cluster_dns.ask(name, "SRV", tcp=True)
    assert response.rcode() == dns.rcode.NOERROR
    assert 500 < len(response.answer[0]) < 900
    response = cluster_dns.ask(name, "SRV")
    assert response.flags & dns.flags.TC
    assert response.answer[0]


def test_endpoints_take_turns(cluster_dns: Dns) -> None:
    name = "db.default.svc.cluster.local"
    first = {cluster_dns.ask(name).answer[0][0].to_text() for _ in range(30)}
    assert len(first) > 1


def test_records_started_again(cluster_dns: Dns) -> None:
    """A question asked meanwhile waits and is answered; a new one is answered at once."""
    names = (f"s{number}.default.svc.cluster.local" for number in itertools.count(10))
    assert cluster_dns.ask(next(names)).answer
    cluster_dns.records.terminate()
    assert cluster_dns.records.wait(timeout=5) == 0

    waiting = next(names)
    answers: list[dns.message.Message] = []
    question = threading.Thread(target=lambda: answers.append(cluster_dns.ask(waiting, timeout=9)))
    question.start()
    for _ in range(5):
        with contextlib.suppress(dns.exception.Timeout):
            cluster_dns.ask(next(names), timeout=0.2)
    assert not answers, "answered by nobody"

    cluster_dns.records = cluster_dns.start_records()
    started = time.monotonic()
    while True:
        with contextlib.suppress(dns.exception.Timeout):
            if cluster_dns.ask(next(names), timeout=0.3).answer:
                break
        assert time.monotonic() - started < 3, "still down for Unbound"
    question.join()
    assert answers[0].answer
