"""The client of the API server against small servers on loopback."""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import re
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.kubernetes import tokens
from sykube.kubernetes.api import (
    Api,
    ApiError,
    Credentials,
    Stream,
    wait_until,
)
from tests.fakes import Calls, FakeHost
from tests.fakes.apiserver import FakeApi, Kubernetes
from tests.fakes.kubeconfig import admin_kubeconfig

Answer = tuple[int, str, bytes]


class Server:
    """An HTTP server that keeps what it was asked and answers from a table."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: dict[tuple[str, str], Answer] = {}
        self.hangs_up = False
        self.delay_s = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                outer.requests.append(
                    {
                        "method": self.command,
                        "path": path,
                        "query": query,
                        "type": self.headers.get("Content-Type"),
                        "body": json.loads(body) if body else None,
                    }
                )
                time.sleep(outer.delay_s)
                default = (404, "application/json", b'{"message": "it is not there"}')
                status, kind, text = outer.answers.get((self.command, path), default)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                # Without a word of it in the headers, as a server does that ends.
                self.close_connection = self.close_connection or outer.hangs_up

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A client that gives up a handshake is no news.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        scheme = "http"
        if context:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, method: str, path: str, status: int, body: object) -> None:
        kind = "text/plain" if isinstance(body, str) else "application/json; charset=utf-8"
        text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.answers[method, path] = (status, kind, text)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    with Api(Host(), Credentials(server.url, b"", b"", b"")) as made:
        yield made


# --- requests ---


def test_json_and_text(server: Server, api: Api) -> None:
    server.answer("GET", "/api/v1/nodes", 200, {"items": []})
    server.answer("GET", "/readyz", 200, "ok")
    assert api.get("/api/v1/nodes") == {"items": []}
    assert api.get("/readyz") == "ok"


def test_a_request_carries_its_body_and_parameters(server: Server, api: Api) -> None:
    server.answer("POST", "/api/v1/nodes", 201, {})
    api.request("POST", "/api/v1/nodes", {"kind": "Node"}, params={"dryRun": "All"})
    (request,) = server.requests
    assert request["body"] == {"kind": "Node"}
    assert request["type"] == "application/json"
    assert request["query"] == "dryRun=All"


def test_applying_an_object(server: Server, api: Api) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/deployments/dns"
    kinds = [{"name": "deployments", "kind": "Deployment", "namespaced": True}]
    server.answer("GET", "/apis/apps/v1", 200, {"resources": kinds})
    server.answer("PATCH", path, 201, {})
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "dns", "namespace": "kube-system"},
    }
    api.apply(manifest)
    asked, request = server.requests
    assert (asked["method"], asked["path"]) == ("GET", "/apis/apps/v1")
    assert (request["method"], request["path"], request["body"]) == ("PATCH", path, manifest)
    assert request["type"] == "application/apply-patch+yaml"
    assert sorted(request["query"].split("&")) == ["fieldManager=sykube", "force=true"]


def test_a_deployment_that_was_rolled_is_one_that_is_recreated() -> None:
    kubernetes = Kubernetes()
    api = FakeApi(kubernetes, Calls())
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    api.apply(
        {**manifest, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"a": 1}}}}
    )
    api.apply({**manifest, "spec": {"strategy": {"type": "Recreate"}}})
    (found,) = kubernetes.objects.values()
    assert found["spec"]["strategy"] == {"type": "Recreate"}


def test_an_object_that_is_refused_is_left(server: Server, api: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/x"
    kinds = [{"name": "deployments", "kind": "Deployment", "namespaced": True}]
    server.answer("GET", "/apis/apps/v1", 200, {"resources": kinds})
    server.answer("PATCH", path, 422, {"message": "its selector cannot change"})
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    with pytest.raises(ApiError, match="its selector cannot change"):
        api.apply({**manifest, "spec": {"selector": {}}})
    assert [each["method"] for each in server.requests] == ["GET", "PATCH"]


def test_what_is_gone_is_deleted_well_enough(server: Server, api: Api) -> None:
    api.delete("/api/v1/nodes/x")
    server.answer("DELETE", "/api/v1/nodes/x", 403, {"message": "you may not"})
    with pytest.raises(ApiError, match="you may not") as raised:
        api.delete("/api/v1/nodes/x")
    assert raised.value.status == 403


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, {"kind": "Status", "message": 'nodes "x" not found'}, 'nodes "x" not found'),
        (500, "etcdserver: request timed out", "etcdserver: request timed out"),
        (503, ["a list"], '["a list"]'),
        (409, {"no": "message"}, '{"no": "message"}'),
    ],
)
def test_an_answer_that_refuses(
    server: Server, api: Api, status: int, body: object, reason: str
) -> None:
    server.answer("GET", "/api/v1/nodes/x", status, body)
    with pytest.raises(ApiError) as raised:
        api.get("/api/v1/nodes/x")
    assert raised.value.status == status
    assert raised.value.brief == f"GET /api/v1/nodes/x: {reason}"


def test_a_server_that_does_not_answer() -> None:
    server = Server()
    server.close()
    with (
        Api(Host(), Credentials(server.url, b"", b"", b"")) as api,
        pytest.raises(ApiError) as raised,
    ):
        api.get("/readyz")
    assert raised.value.status == 0
    assert "does not answer" in raised.value.brief


def test_a_slow_server_has_more_time_for_a_change_than_for_a_look(server: Server) -> None:
    server.answer("GET", "/readyz", 200, "ok")
    server.answer("DELETE", "/pod", 200, {})
    with Api(Host(), Credentials(server.url, b"", b"", b""), timeout=0.1) as api:
        # Also on a connection that was made for a look.
        with contextlib.suppress(ApiError):
            api.get("/readyz")
        server.delay_s = 0.5
        api.delete("/pod")
        with pytest.raises(ApiError, match="does not answer: timed out"):
            api.get("/readyz")


def test_the_hosts_proxy_is_not_for_a_bridge_of_ours(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answer("GET", "/readyz", 200, "ok")
    with Api(Host(), Credentials(server.url, b"", b"", b"")) as api:
        assert api.get("/readyz") == "ok"


# --- certificates ---


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two CAs, each with a certificate for 127.0.0.1 that serves for clients, too."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    folders = {}
    for name in ("ours", "another"):
        folder = tmp_path_factory.mktemp(name)
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        ca = ("-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-subj", f"/CN={name}")
        # Python 3.13 insists on it (VERIFY_X509_STRICT); kubeadm's authorities have it.
        usage = ("-addext", "keyUsage=critical,digitalSignature,keyCertSign")
        openssl(*new, *ca, *usage, "-days", "2")
        leaf = ("-keyout", folder / "key", "-out", folder / "crt", "-subj", "/CN=localhost")
        signed = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-days", "2")
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")
        try:
            openssl(*new, *leaf, *signed, *names)
        except subprocess.CalledProcessError:
            pytest.skip("this openssl cannot sign in one step")
        folders[name] = folder
    return folders


@pytest.fixture
def https(authorities: dict[str, Path]) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authorities["ours"] / "crt", authorities["ours"] / "key")
    context.load_verify_locations(authorities["ours"] / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    made = Server(context)
    made.answer("GET", "/readyz", 200, "ok")
    yield made
    made.close()


def credentials(url: str, ca: Path, client: Path) -> Credentials:
    files = (ca / "ca.crt", client / "crt", client / "key")
    return Credentials(url, *(file.read_bytes() for file in files))


def test_both_sides_show_certificates(https: Server, authorities: dict[str, Path]) -> None:
    ours = authorities["ours"]
    with Api(Host(), credentials(https.url, ours, ours)) as api:
        assert api.get("/readyz") == "ok"


@pytest.mark.parametrize(("ca", "client"), [("another", "ours"), ("ours", "another")])
def test_a_certificate_of_another_authority_is_refused(
    https: Server, authorities: dict[str, Path], ca: str, client: str
) -> None:
    made = credentials(https.url, authorities[ca], authorities[client])
    with Api(Host(), made) as api, pytest.raises(ApiError) as raised:
        api.get("/readyz")
    assert raised.value.status == 0
    assert https.requests == []


def test_the_key_is_never_on_a_disk_and_no_descriptor_is_left(
    https: Server, authorities: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Python looks at TMPDIR once.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # What an earlier test left open is closed at some time or other.
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = credentials(https.url, authorities["ours"], authorities["ours"])
    with Api(Host(), made):
        assert list(tmp_path.iterdir()) == []
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_credentials_that_openssl_refuses(authorities: dict[str, Path]) -> None:
    ours = authorities["ours"]
    good = credentials("https://127.0.0.1:1", ours, ours)
    for bad in (replace(good, key=b"key"), replace(good, certificate=b""), replace(good, ca=b"x")):
        with pytest.raises(SykubeError, match="credentials are damaged"):
            Api(Host(), bad)


def test_a_connection_that_the_server_ended_is_made_anew(server: Server, api: Api) -> None:
    server.answer("GET", "/readyz", 200, "ok")
    server.hangs_up = True
    for _ in range(3):
        assert api.get("/readyz") == "ok"
        assert select.select([api._connection.sock], [], [], 10)[0]


def test_credentials_of_a_kubeconfig(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(admin_kubeconfig("https://10.11.11.254:6443"))
    assert Credentials.read(file) == Credentials(
        "https://10.11.11.254:6443", b"CA", b"CERT", b"KEY"
    )


@pytest.mark.parametrize(
    "text",
    ["", "[", "clusters: []", "just words", yaml.safe_dump({"clusters": [{"cluster": {}}]})],
)
def test_a_kubeconfig_without_credentials(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(SykubeError, match="is no kubeconfig with the cluster's credentials"):
        Credentials.read(file)
    with pytest.raises(SykubeError, match="is no kubeconfig"):
        Credentials.read(tmp_path / "absent")


def test_credentials_that_are_damaged(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    key = base64.b64encode(b"KEY").decode()
    file.write_text(admin_kubeconfig("https://x").replace(key, "A"))
    with pytest.raises(SykubeError, match="is no kubeconfig"):
        Credentials.read(file)


# --- objects ---


@pytest.mark.parametrize(
    ("version", "kind", "namespace", "path"),
    [
        ("v1", "Service", "kube-system", "/api/v1/namespaces/kube-system/services"),
        ("v1", "ConfigMap", "", "/api/v1/namespaces/default/configmaps"),
        ("v1", "Node", "", "/api/v1/nodes"),
        ("v1", "Endpoints", "", "/api/v1/namespaces/default/endpoints"),
        ("apps/v1", "DaemonSet", "x", "/apis/apps/v1/namespaces/x/daemonsets"),
        ("storage.k8s.io/v1", "StorageClass", "", "/apis/storage.k8s.io/v1/storageclasses"),
        (
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            "",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "",
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
        ),
        ("node.k8s.io/v1", "RuntimeClass", "", "/apis/node.k8s.io/v1/runtimeclasses"),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            "",
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        ),
    ],
)
def test_objects_are_where_the_api_server_says(
    version: str, kind: str, namespace: str, path: str
) -> None:
    kubernetes = Kubernetes()
    api = FakeApi(kubernetes, Calls())
    metadata = {"name": "x"} | ({"namespace": namespace} if namespace else {})
    manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {}}
    api.apply(manifest)
    assert [*kubernetes.objects] == [f"{path}/x"]
    api.delete(manifest)
    api.delete(manifest)
    assert kubernetes.objects == {}


def test_the_api_server_is_asked_once_for_all_kinds_of_a_version() -> None:
    calls = Calls()
    api = FakeApi(Kubernetes(), calls)
    for kind in ("ConfigMap", "Node", "ConfigMap"):
        api.path_of({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}})
    assert [call.words for call in calls.all] == [("GET", "/api/v1")]


def test_a_kind_may_come_later() -> None:
    known = {"/apis/example.org/v1": {"Other": ("others", True)}}
    kubernetes = Kubernetes(resources=known)
    api = FakeApi(kubernetes, Calls())
    manifest = {"apiVersion": "example.org/v1", "kind": "Backup", "metadata": {"name": "x"}}
    with pytest.raises(ApiError, match='no matches for kind "Backup" in version') as raised:
        api.apply(manifest)
    assert raised.value.status == 404
    known["/apis/example.org/v1"]["Backup"] = ("backups", False)
    api.apply(manifest)
    assert [*kubernetes.objects] == ["/apis/example.org/v1/backups/x"]


@pytest.mark.parametrize(("version", "kind"), [("v1", "Eviction"), ("example.org/v1", "Backup")])
def test_of_a_kind_that_is_not_there_nothing_is_left_to_delete(version: str, kind: str) -> None:
    api = FakeApi(Kubernetes(), Calls())
    manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}}
    with pytest.raises(ApiError):
        api.apply(manifest)
    api.delete(manifest)


# --- waiting ---


def checks(*results: str | ApiError) -> Callable[[], str]:
    left = list(results)

    def check() -> str:
        result = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(result, ApiError):
            raise result
        return result

    return check


def test_waiting_ends_when_nothing_is_missing(host: Host) -> None:
    down = ApiError("does not answer", 0)
    wait_until(host, "nodes", checks("a", down, "b", ""), 60, interval=0)


@pytest.mark.parametrize("last", ["node1: no status yet", ApiError("node1: no status yet", 0)])
def test_a_wait_that_is_over_is_an_error_with_what_was_missing(
    host: Host, last: str | ApiError
) -> None:
    with pytest.raises(SykubeError, match="nodes Ready: not there after 0 s") as raised:
        wait_until(host, "nodes Ready", checks(last), 0.0, interval=0.001)
    assert raised.value.details == "node1: no status yet"


@pytest.mark.parametrize(("new", "seconds"), [(1, 7), (8, 14), (30, 16)])
def test_a_wait_goes_on_while_there_is_something_new_but_not_for_ever(
    tmp_path: Path, new: int, seconds: int
) -> None:
    slept: list[float] = []
    host = FakeHost(tmp_path, monotonic=lambda: sum(slept), sleep=slept.append)

    def check() -> str:
        # Something new in each of the first seconds, then what it has said before.
        return f"{30 - min(len(slept), new - 1 - len(slept) % 2)} pods missing"

    with pytest.raises(SykubeError, match=f"pods: not there after {seconds} s"):
        wait_until(host, "pods", check, 5, interval=1)


def test_what_is_there_is_found_even_without_time(host: Host) -> None:
    wait_until(host, "nodes", checks(""), 0.0)


def test_errors_of_another_kind_end_the_wait(host: Host) -> None:
    def check() -> str:
        raise SykubeError("the node died")

    with pytest.raises(SykubeError, match="the node died"):
        wait_until(host, "nodes", check, 60)


# --- bootstrap tokens ---


def test_tokens_have_the_form_that_kubernetes_wants_and_differ() -> None:
    found = {tokens.new_token() for _ in range(100)}
    assert len(found) == 100
    assert all(re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", token) for token in found)


# --- answers without an end ---


@pytest.fixture
def endless() -> Iterator[tuple[Api, socket.socket]]:
    """A client, and a server that a test answers by hand."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        credentials = Credentials(f"http://127.0.0.1:{listening.getsockname()[1]}", b"", b"", b"")
        with Api(Host(), credentials) as api:
            yield api, listening


def accepted(listening: socket.socket, answer: bytes) -> socket.socket:
    connection, _ = listening.accept()
    connection.recv(10_000)
    connection.sendall(answer)
    return connection


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def streamed(endless: tuple[Api, socket.socket]) -> tuple[Stream, socket.socket]:
    api, listening = endless
    with ThreadPoolExecutor() as pool:
        server = pool.submit(accepted, listening, CHUNKED)
        return api.stream("/log", follow="true"), server.result()


def test_a_streams_text_comes_as_it_is_sent(endless: tuple[Api, socket.socket]) -> None:
    stream, server = streamed(endless)
    with server:
        pieces = iter(stream)
        # A letter of two bytes, in two pieces.
        server.sendall(b"4\r\nab\n\xc3\r\n")
        assert next(pieces) == "ab\n"
        server.sendall(b"2\r\n\xa9\n\r\n0\r\n\r\n")
        assert "".join(pieces) == "é\n"


def test_a_stream_is_ended_while_somebody_waits_for_it(endless: tuple[Api, socket.socket]) -> None:
    stream, server = streamed(endless)
    with server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: list(stream))
        time.sleep(0.05)
        stream.close()
        assert waiting.result(10) == []


def test_a_stream_whose_server_is_lost_has_an_end(endless: tuple[Api, socket.socket]) -> None:
    stream, server = streamed(endless)
    server.close()
    assert list(stream) == []


def test_a_stream_that_is_refused(server: Server, api: Api) -> None:
    server.answers[("GET", "/log")] = (404, "application/json", b'{"message": "no such pod"}')
    with pytest.raises(ApiError, match="no such pod") as caught:
        api.stream("/log")
    assert caught.value.status == 404


def test_a_kind_without_apply_is_created_or_merged(server: Server, api: Api) -> None:
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    manifest = {**kind, "metadata": {"name": "v1.x"}, "spec": {}}
    kinds = [{"name": "apiservices", "kind": "APIService", "namespaced": False}]
    server.answer("GET", "/apis/apiregistration.k8s.io/v1", 200, {"resources": kinds})
    collection = "/apis/apiregistration.k8s.io/v1/apiservices"
    server.answers[("POST", collection)] = (201, "application/json", b"{}")
    api.apply(manifest)
    server.answers[("POST", collection)] = (409, "application/json", b"{}")
    server.answers[("PATCH", f"{collection}/v1.x")] = (200, "application/json", b"{}")
    api.apply(manifest)
    assert [each["method"] for each in server.requests] == ["GET", "POST", "POST", "PATCH"]
    assert server.requests[-1]["type"] == "application/merge-patch+json"
    server.answers[("POST", collection)] = (403, "application/json", b"{}")
    with pytest.raises(ApiError):
        api.apply(manifest)
