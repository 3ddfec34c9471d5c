"""Following the API, against a small one on loopback that can misbehave."""

from __future__ import annotations

import dataclasses
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.name
import pytest

from sykube.incluster.api import Api, Timing
from sykube.incluster.dns.live import LiveZone
from sykube.incluster.dns.records import Zone
from sykube.incluster.watch import Watcher

Json = dict[str, Any]
POLICIES = "/apis/networking.k8s.io/v1"
QUICK = Timing(request=2, watch=60, silence=5, first_retry=0.01, last_retry=0.05)


def service(name: str, ip: str = "10.96.0.7", namespace: str = "default") -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip}}


def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


class FakeApi:
    """Lists and watches as the API server does, on loopback.

    `trouble` holds what to do to the next watches instead, one each.
    """

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], str | None]] = []
        self.trouble: list[Callable[[Any], None]] = []
        self.list_status = 200
        self._changed = threading.Condition()
        self._version = 100
        known = ("services", "endpoints", "pods", "namespaces", "networkpolicies")
        self._objects: dict[str, dict[str, Json]] = {resource: {} for resource in known}
        self._events: list[tuple[int, str, Json]] = []
        self._closing = False
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                try:
                    fake._handle(self)
                except OSError:
                    self.close_connection = True

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End all watches and answer nothing more."""
        self.end_watches(closing=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def end_watches(self, *, closing: bool = False) -> None:
        with self._changed:
            self._closing = self._closing or closing
            self._events.append((self._version, "END", {}))
            self._changed.notify_all()

    def put(self, obj: Json, resource: str = "services", kind: str = "MODIFIED") -> None:
        with self._changed:
            self._version += 1
            obj = json.loads(json.dumps(obj))
            obj["metadata"]["resourceVersion"] = str(self._version)
            self._objects[resource][obj["metadata"]["name"]] = obj
            if kind == "DELETED":
                del self._objects[resource][obj["metadata"]["name"]]
            self._events.append((self._version, kind, {"resource": resource, "object": obj}))
            self._changed.notify_all()

    def forget(self, obj: Json, resource: str = "services") -> None:
        """Remove an object without telling any watch."""
        with self._changed:
            self._version += 1
            del self._objects[resource][obj["metadata"]["name"]]

    def watches(self, resource: str = "services") -> list[dict[str, str]]:
        return [query for path, query, _ in self.requests if resource in path and "watch" in query]

    def lists(self, resource: str = "services") -> list[dict[str, str]]:
        return [
            query for path, query, _ in self.requests if resource in path and "watch" not in query
        ]

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        url = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.requests.append((url.path, query, handler.headers["Authorization"]))
        resource = url.path.removeprefix("/api/v1/").removeprefix(f"{POLICIES}/")
        if self._closing or resource not in self._objects:
            reply(handler, 404, {})
        elif "watch" not in query:
            reply(handler, self.list_status, self._page(resource, query))
        elif self.trouble and resource == "services":
            self.trouble.pop(0)(handler)
        else:
            start_stream(handler)
            self._stream(handler, resource, int(query["resourceVersion"]))

    def _page(self, resource: str, query: dict[str, str]) -> Json:
        with self._changed:
            start, size = int(query.get("continue", 0)), int(query["limit"])
            items = list(self._objects[resource].values())
            metadata = {"resourceVersion": str(self._version)}
            if len(items) > start + size:
                metadata["continue"] = str(start + size)
            return {"metadata": metadata, "items": items[start : start + size]}

    def _stream(self, handler: Any, resource: str, version: int) -> None:
        seen = 0
        ended = len([each for each in self._events if each[1] == "END"])
        while True:
            with self._changed:
                while len(self._events) == seen:
                    self._changed.wait()
                new, seen = self._events[seen:], len(self._events)
            for at, kind, detail in new:
                if kind == "END" and ended:
                    ended -= 1
                elif kind == "END":
                    handler.wfile.write(b"0\r\n\r\n")
                    return
                elif at > version and detail["resource"] == resource:
                    send_event(handler, kind, detail["object"])


def reply(handler: Any, status: int, body: Json) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def start_stream(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def send(handler: Any, data: bytes) -> None:
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def send_event(handler: Any, kind: str, obj: Json) -> None:
    line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
    # In two chunks, so that a reader must not take a chunk for a line.
    send(handler, line[:10])
    send(handler, line[10:])


def end(handler: Any) -> None:
    handler.wfile.write(b"0\r\n\r\n")


class Follower:
    """Both watchers of a zone, as the program starts them."""

    def __init__(self, api: Api) -> None:
        self.live = LiveZone(Zone.empty("cluster.local", ["10.96.0.0/12"]))
        self.watchers = [Watcher(api, name, self.live) for name in ("services", "endpoints")]

    def start(self) -> None:
        for watcher in self.watchers:
            watcher.start()

    def stop(self) -> None:
        for watcher in self.watchers:
            watcher.stop()
        for watcher in self.watchers:
            watcher.join(timeout=3)
            assert not watcher.is_alive()

    def address(self, name: str) -> str | None:
        """The addresses of a Service in the namespace default."""
        zone = self.live.zone
        found = zone.find(dns.name.from_text(f"{name}.default.svc.cluster.local")) if zone else None
        if not found or not found.rrsets:
            return None
        return " ".join(str(rdata) for rrset in found.rrsets.values() for rdata in rrset)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


@pytest.fixture
def follow(api: FakeApi) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(*, at_once: bool = True, **options: Any) -> Follower:
        follower = Follower(dataclasses.replace(Api(api.url, timing=QUICK), **options))
        started.append(follower)
        if at_once:
            follower.start()
        return follower

    yield start
    for follower in started:
        follower.stop()


Follow = Callable[..., Follower]


def test_list_then_watch(api: FakeApi, follow: Follow) -> None:
    api.put(service("web"))
    follower = follow()
    eventually(lambda: follower.address("web") == "10.96.0.7")
    api.put(service("web", "10.96.0.8"))
    eventually(lambda: follower.address("web") == "10.96.0.8")
    api.put(service("new", "10.96.0.9"), kind="ADDED")
    eventually(lambda: follower.address("new") == "10.96.0.9")
    api.put(service("web"), kind="DELETED")
    eventually(lambda: follower.address("web") is None)
    assert len(api.lists()) == 1
    assert api.watches()[0] == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "60",
        "resourceVersion": "101",
    }


def test_endpoints_are_followed(api: FakeApi, follow: Follow) -> None:
    api.put(service("db", "None"))
    follower = follow()
    eventually(lambda: follower.live.zone)
    assert follower.address("db") is None
    metadata = {"name": "db", "namespace": "default"}
    subsets = [{"addresses": [{"ip": "10.244.0.4"}]}]
    api.put({"metadata": metadata, "subsets": subsets}, "endpoints", "ADDED")
    eventually(lambda: follower.address("db") == "10.244.0.4")


def test_long_lists_come_in_pages(api: FakeApi, follow: Follow) -> None:
    for number in range(7):
        api.put(service(f"web-{number}", f"10.96.1.{number}"))
    follower = follow(page=3)
    eventually(lambda: follower.address("web-6") == "10.96.1.6")
    assert follower.address("web-0") == "10.96.1.0"
    assert [query.get("continue") for query in api.lists()] == [None, "3", "6"]


def test_not_known_until_both_were_listed() -> None:
    live = LiveZone(Zone.empty("cluster.local"))
    live.replace("services", [service("web")])
    assert live.zone is None
    live.replace("endpoints", [])
    assert live.zone is not None


def test_bookmarks_move_the_version_on(api: FakeApi, follow: Follow) -> None:
    def bookmark(handler: Any) -> None:
        start_stream(handler)
        send_event(handler, "BOOKMARK", {"metadata": {"resourceVersion": "177"}})
        end(handler)

    api.trouble.append(bookmark)
    follow()
    eventually(lambda: len(api.watches()) == 2)
    assert [query["resourceVersion"] for query in api.watches()] == ["100", "177"]
    assert len(api.lists()) == 1


def gone_as_status(handler: Any) -> None:
    reply(handler, 410, {"kind": "Status", "code": 410, "message": "too old"})


def gone_as_event(handler: Any) -> None:
    start_stream(handler)
    send_event(handler, "ERROR", {"kind": "Status", "code": 410, "message": "too old"})
    end(handler)


def other_error(handler: Any) -> None:
    start_stream(handler)
    send_event(handler, "ERROR", {"kind": "Status", "code": 500, "message": "etcd is away"})
    end(handler)


def garbage(handler: Any) -> None:
    start_stream(handler)
    send(handler, b'{"type": "ADDED", "obj\n')
    end(handler)


def unknown_event(handler: Any) -> None:
    start_stream(handler)
    send_event(handler, "SURPRISE", service("web"))
    end(handler)


def forbidden(handler: Any) -> None:
    reply(handler, 403, {"kind": "Status", "message": "no role yet"})


def cut_in_the_middle(handler: Any) -> None:
    start_stream(handler)
    handler.wfile.write(b"ff\r\n{")
    handler.close_connection = True


TROUBLES = [
    gone_as_status,
    gone_as_event,
    other_error,
    garbage,
    unknown_event,
    forbidden,
    cut_in_the_middle,
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_after_trouble_it_lists_again(
    api: FakeApi, follow: Follow, trouble: Callable[[Any], None]
) -> None:
    api.put(service("web"))
    api.put(service("old", "10.96.0.6"))

    def strike(handler: Any) -> None:
        eventually(lambda: follower.live.zone)
        api.forget(service("old"))
        trouble(handler)

    api.trouble.append(strike)
    follower = follow(at_once=False)
    follower.start()
    eventually(lambda: follower.live.zone and follower.address("old") is None)
    assert follower.address("web") == "10.96.0.7"
    assert len(api.lists()) >= 2
    api.put(service("new", "10.96.0.9"))
    eventually(lambda: follower.address("new") == "10.96.0.9")


def test_a_watch_that_ends_well_goes_on_without_a_list(api: FakeApi, follow: Follow) -> None:
    follower = follow()
    eventually(lambda: api.watches())
    api.put(service("web"))
    eventually(lambda: follower.address("web"))
    api.end_watches()
    eventually(lambda: len(api.watches()) == 2)
    assert api.watches()[1]["resourceVersion"] == "101"
    assert len(api.lists()) == 1


def test_an_outage(follow: Follow, api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    first = FakeApi()
    first.put(service("web"))
    follower = follow(server=first.url)
    eventually(lambda: follower.address("web"))
    first.close()
    eventually(lambda: "ConnectionRefusedError" in caplog.text)
    assert follower.address("web") == "10.96.0.7"
    assert all(watcher.is_alive() for watcher in follower.watchers)
    second = FakeApi(first.port)
    try:
        second.put(service("web", "10.96.0.11"))
        eventually(lambda: follower.address("web") == "10.96.0.11")
    finally:
        second.close()


def test_errors_while_listing(api: FakeApi, follow: Follow) -> None:
    api.list_status = 500
    follower = follow()
    eventually(lambda: len(api.lists()) >= 3)
    assert follower.live.zone is None
    api.list_status = 200
    eventually(lambda: follower.live.zone)


def test_a_silent_connection_is_given_up(api: FakeApi, follow: Follow) -> None:
    release = threading.Event()

    def silent(handler: Any) -> None:
        start_stream(handler)
        release.wait(5)

    api.trouble.append(silent)
    timing = Timing(request=30, watch=60, silence=0.1, first_retry=0.01, last_retry=0.05)
    follower = follow(timing=timing)
    try:
        eventually(lambda: len(api.watches()) >= 2)
        api.put(service("web"))
        eventually(lambda: follower.address("web"))
    finally:
        release.set()


def test_a_connection_whose_other_end_is_gone_is_found_dead_within_a_minute(api: FakeApi) -> None:
    connection = Api(api.url).connect()
    try:
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, interval, count = (
            connection.sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
    finally:
        connection.close()
    assert 10 <= idle + interval * count <= 60
    # The connection, its keys and the watch cost either side milliseconds.
    assert Timing().watch >= 300


def test_a_first_packet_that_is_lost_is_soon_followed_by_another(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would wait for a second, and then for two."""
    connect, patience = socket.create_connection, []

    def losing(where: tuple[str, int], timeout: float) -> socket.socket:
        patience.append(timeout)
        if len(patience) < 3:
            raise TimeoutError
        return connect(where, timeout)

    monkeypatch.setattr(socket, "create_connection", losing)
    connection = Api(api.url).connect()
    assert len(patience) == 3 and max(patience) < 1
    assert connection.sock.gettimeout() == Timing().request
    connection.close()


def test_an_api_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(where: tuple[str, int], timeout: float) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", lost)
    with pytest.raises(TimeoutError):
        Api("http://192.0.2.1:9", timing=Timing(request=0.01)).connect()


def test_delays_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Timing(request=1, first_retry=0.2, last_retry=1)
    watcher = Watcher(
        Api("http://127.0.0.1:9", timing=timing), "services", LiveZone(Zone.empty("x"))
    )
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 5:
            watcher.stop()
        return True

    # Chance and time, of a program that is handed neither.
    monkeypatch.setattr("sykube.incluster.watch.random.uniform", lambda _, most: most)
    monkeypatch.setattr(watcher._stop_asked, "wait", wait)
    watcher.run()
    assert waited == [0.2, 0.4, 0.8, 1, 1]


def test_an_object_that_makes_no_sense_is_left_out(
    api: FakeApi, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    broken = service("broken")
    broken["spec"] = {"clusterIP": "10.96.0.1", "ports": [{"name": "x"}]}
    api.put(broken)
    api.put(service("web"))
    follower = follow()
    eventually(lambda: follower.address("web"))
    assert follower.address("broken") is None
    assert "default/broken" in caplog.text


def test_over_plain_http_no_token_is_sent(api: FakeApi, follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    follower = follow(account=tmp_path)
    eventually(lambda: follower.live.zone)
    assert {token for *_, token in api.requests} == {None}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, right.pem and wrong.pem, and the right one's server.pem for 127.0.0.1.

    Without key identifiers, as some clusters have them: Python 3.13 refuses that unless told.
    """
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "conf").write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    extensions = ["subjectKeyIdentifier=none", "authorityKeyIdentifier=none"]
    authority = [*extensions, "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
    server = [*extensions, "basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1"]

    def make(name: str, extensions: list[str], *more: str) -> None:
        for extension in extensions:
            more += ("-addext", extension)
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-config", "conf", "-nodes", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
                *more,
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    make("right", authority)
    make("wrong", authority)
    make("server", server, "-CA", "right.pem", "-CAkey", "right.key")
    return folder


@pytest.fixture
def tls_api(certificates: Path) -> Iterator[FakeApi]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    fake = FakeApi(context=context)
    yield fake
    fake.close()


def test_tls_and_a_token_that_changes(
    tls_api: FakeApi, follow: Follow, certificates: Path, tmp_path: Path
) -> None:
    shutil.copy(certificates / "right.pem", tmp_path / "ca.crt")
    (tmp_path / "token").write_text("first\n")
    follow(server=tls_api.url, account=tmp_path)
    # Both watchers: one that only begins to watch would still show the first token.
    eventually(lambda: all(tls_api.watches(each) for each in ("services", "endpoints")))
    assert {token for *_, token in tls_api.requests} == {"Bearer first"}
    (tmp_path / "token").write_text("second")
    seen = len(tls_api.requests)
    tls_api.end_watches()
    eventually(lambda: len(tls_api.requests) > seen)
    assert {token for *_, token in tls_api.requests[seen:]} == {"Bearer second"}


def test_the_api_has_to_prove_itself(
    tls_api: FakeApi,
    follow: Follow,
    certificates: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copy(certificates / "wrong.pem", tmp_path / "ca.crt")
    (tmp_path / "token").write_text("secret")
    follower = follow(server=tls_api.url, account=tmp_path)
    eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
    assert follower.live.zone is None
    assert not tls_api.requests


def test_no_service_account_yet(
    tls_api: FakeApi,
    follow: Follow,
    certificates: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    follower = follow(server=tls_api.url, account=tmp_path)
    eventually(lambda: "FileNotFoundError" in caplog.text)
    (tmp_path / "token").write_text("token")
    shutil.copy(certificates / "right.pem", tmp_path / "ca.crt")
    eventually(lambda: follower.live.zone)


def test_stop_does_not_wait_for_the_api(api: FakeApi, follow: Follow) -> None:
    follower = follow()
    eventually(lambda: len(api.watches()) + len(api.watches("endpoints")) == 2)
    started = time.monotonic()
    follower.stop()
    assert time.monotonic() - started < 1


def test_in_cluster() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert Api.in_cluster(environ).server == "https://10.96.0.1:443"
    environ["KUBERNETES_SERVICE_HOST"] = "fd00::1"
    assert Api.in_cluster(environ).server == "https://[fd00::1]:443"
