"""The metrics API: from what a kubelet writes to what the API server gets, over real TLS."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from sykube.incluster.api import Api, Timing
from sykube.incluster.metrics import kubelets
from sykube.incluster.metrics.__main__ import Program
from sykube.incluster.metrics.answers import Metrics
from sykube.incluster.metrics.certificate import Certificate, make
from sykube.incluster.metrics.frontproxy import FrontProxy
from sykube.incluster.metrics.objects import Node, Objects
from sykube.incluster.metrics.samples import NODE, Key, Meter, Sample, parse
from sykube.incluster.metrics.selectors import SelectorError
from sykube.incluster.metrics.selectors import parse as parse_selector
from sykube.incluster.metrics.server import Identity, Server

Json = dict[str, Any]
NODES = "/apis/metrics.k8s.io/v1beta1/nodes"
PODS = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"
SERVICE = "metrics.kube-system.svc"

# As a kubelet of 1.20 writes it.
RESOURCE = """\
# HELP container_cpu_usage_seconds_total [ALPHA] Cumulative cpu time consumed by the container
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="web",namespace="shop",pod="web-1"} 12.5 1600000010000
container_cpu_usage_seconds_total{container="log",namespace="shop",pod="web-1"} 1.5 1600000011000
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{container="web",namespace="shop",pod="web-1"} 2.048e+06 1600000010000
container_memory_working_set_bytes{container="log",namespace="shop",pod="web-1"} 1000 1600000011000
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 340.25 1600000012000
# TYPE node_memory_working_set_bytes gauge
node_memory_working_set_bytes 9.43718e+08 1600000012000
# TYPE scrape_error gauge
scrape_error 0
"""
WEB, LOG = Key("shop", "web-1", "web"), Key("shop", "web-1", "log")
NOW = 1_600_000_020.0


# --- samples ---


def test_a_kubelets_text_is_read() -> None:
    assert parse(RESOURCE, NOW) == {
        WEB: Sample(1_600_000_010.0, 12.5, 2_048_000),
        LOG: Sample(1_600_000_011.0, 1.5, 1000),
        NODE: Sample(1_600_000_012.0, 340.25, 943_718_000),
    }


def test_a_sample_without_a_time_is_of_now_and_one_without_memory_is_none() -> None:
    text = (
        "node_cpu_usage_seconds_total 7\nnode_memory_working_set_bytes 8\n"
        'container_cpu_usage_seconds_total{container="web",namespace="shop",pod="web-1"} 1\n'
    )
    assert parse(text, NOW) == {NODE: Sample(NOW, 7.0, 8)}


@pytest.mark.parametrize("line", ["node_cpu_usage_seconds_total", "node_cpu_usage_seconds_total x"])
def test_a_damaged_text_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse(line, NOW)


def taken(*samples: tuple[float, float, int]) -> Meter:
    meter = Meter()
    for sample in samples:
        meter.take("one", {NODE: Sample(*sample)})
    return meter


def test_use_is_the_rate_between_two_samples() -> None:
    usage = taken((100.0, 10.0, 1), (110.0, 12.5, 2)).usage(0)["one"][NODE]
    assert (usage.time, usage.window, usage.nanocores, usage.memory) == (
        110.0,
        10.0,
        250_000_000,
        2,
    )


def test_one_sample_is_no_use() -> None:
    assert taken((100.0, 10.0, 1)).usage(0) == {"one": {}}


def test_the_same_sample_again_changes_nothing() -> None:
    once = taken((100.0, 10.0, 1), (110.0, 12.5, 2))
    again = taken((100.0, 10.0, 1), (110.0, 12.5, 2), (110.0, 12.5, 2), (110.5, 12.5, 9))
    assert again.usage(0) == once.usage(0)
    # The samples between were left out of the next rate, too.
    again.take("one", {NODE: Sample(120.0, 17.5, 3)})
    assert again.usage(0)["one"][NODE].nanocores == 500_000_000


def test_a_counter_that_begins_again_waits_for_its_second_sample() -> None:
    meter = taken((100.0, 10.0, 1), (110.0, 12.5, 2), (120.0, 0.5, 3))
    assert meter.usage(0) == {"one": {}}
    meter.take("one", {NODE: Sample(130.0, 1.5, 3)})
    assert meter.usage(0)["one"][NODE].nanocores == 100_000_000


def test_what_a_kubelet_no_longer_names_and_what_is_old_is_gone() -> None:
    meter = taken((100.0, 10.0, 1), (110.0, 12.5, 2))
    assert meter.usage(110.1) == {"one": {}}
    meter.take("one", {})
    assert meter.usage(0) == {"one": {}}
    meter.forget("one")
    assert meter.usage(0) == {}


# --- selectors ---


@pytest.mark.parametrize(
    ("selector", "takes"),
    [
        ("", True),
        ("app=web", True),
        ("app == web, tier!=db", True),
        ("app=db", False),
        ("tier=", False),
        ("app in (db, web)", True),
        ("app in (db),tier", False),
        ("app notin (db,web)", False),
        ("tier notin (db)", True),
        ("app", True),
        ("!app", False),
        ("!example.org/tier", True),
    ],
)
def test_a_selector_takes_what_the_api_would(selector: str, takes: bool) -> None:
    assert parse_selector(selector)({"app": "web"}) is takes


@pytest.mark.parametrize("selector", ["app=a=b", "app in web", "=", "a,,b", "app in (a b)"])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(selector)


# --- answers ---


def node(name: str, port: int = 10250) -> Json:
    return {
        "metadata": {"name": name, "labels": {"disk": "fast"}},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": name},
                {"type": "InternalIP", "address": "127.0.0.1"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }


def pod(name: str, app: str, running: tuple[str, ...] = ("web", "log")) -> Json:
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"nodeName": "one"},
        "status": {"containerStatuses": [{"name": each, "state": {"running": {}}} for each in running]
                   + [{"name": "init", "state": {"terminated": {}}}]},
    }  # fmt: skip


def shop() -> tuple[Objects, Meter]:
    """A node with two pods, one of which has been measured; and a node that has not."""
    objects, meter = Objects(), Meter()
    objects.replace("nodes", [node("one"), node("two")])
    objects.replace("pods", [pod("web-1", "web"), pod("web-2", "web")])
    meter.take("one", parse(RESOURCE, NOW))
    later = RESOURCE.replace("16000000", "16000001").replace(" 12.5 ", " 22.5 ")
    meter.take("one", parse(later.replace(" 340.25 ", " 440.25 "), NOW))
    return objects, meter


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(*shop(), lambda: NOW + 100)


def names(metrics: Metrics, target: str) -> list[str]:
    answer = metrics.answer("GET", target)
    assert answer.status == HTTPStatus.OK
    return [each["metadata"]["name"] for each in answer.body["items"]]


def test_nodes_that_were_measured_are_listed(metrics: Metrics) -> None:
    answer = metrics.answer("GET", NODES)
    assert answer.status == HTTPStatus.OK
    assert answer.body["kind"] == "NodeMetricsList"
    assert answer.body["apiVersion"] == "metrics.k8s.io/v1beta1"
    (found,) = answer.body["items"]
    assert found == {
        "kind": "NodeMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {
            "name": "one",
            "labels": {"disk": "fast"},
            "creationTimestamp": "2020-09-13T12:28:40Z",
        },
        "timestamp": "2020-09-13T12:28:32Z",
        "window": "100.000s",
        "usage": {"cpu": "1000000000n", "memory": "921600Ki"},
    }


def test_a_pod_is_listed_with_all_its_containers(metrics: Metrics) -> None:
    answer = metrics.answer("GET", f"{PODS}/web-1")
    assert answer.status == HTTPStatus.OK
    assert answer.body["kind"] == "PodMetrics"
    assert answer.body["timestamp"] == "2020-09-13T12:28:30Z"
    assert answer.body["containers"] == [
        {"name": "web", "usage": {"cpu": "100000000n", "memory": "2000Ki"}},
        {"name": "log", "usage": {"cpu": "0n", "memory": "1Ki"}},
    ]


def test_a_pod_of_which_a_container_was_not_measured_is_left_out() -> None:
    objects, meter = shop()
    objects.change("pods", pod("web-1", "web", ("web", "log", "new")))
    objects.change("pods", pod("web-3", "web", ()))
    assert names(Metrics(objects, meter, lambda: NOW + 100), PODS) == []


def test_lists_are_narrowed_by_namespace_labels_and_fields(metrics: Metrics) -> None:
    everywhere = "/apis/metrics.k8s.io/v1beta1/pods"
    assert names(metrics, everywhere) == ["web-1"]
    assert names(metrics, PODS.replace("shop", "other")) == []
    assert names(metrics, f"{PODS}?labelSelector=app%3Dweb") == ["web-1"]
    assert names(metrics, f"{PODS}?labelSelector=app+in+%28db%29") == []
    assert names(metrics, f"{everywhere}?fieldSelector=metadata.name%3Dweb-1") == ["web-1"]
    assert names(metrics, f"{everywhere}?fieldSelector=metadata.namespace!%3Dshop") == []
    assert names(metrics, f"{NODES}?labelSelector=disk%3Dslow") == []


def test_metrics_that_are_old_are_none() -> None:
    metrics = Metrics(*shop(), lambda: NOW + 300)
    assert names(metrics, NODES) == []
    assert metrics.answer("GET", f"{NODES}/one").status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", f"{NODES}/two", 404),
        ("GET", f"{PODS}/web-9", 404),
        ("GET", "/openapi/v2", 404),
        ("GET", "/apis/metrics.k8s.io/v1/nodes", 404),
        ("GET", "/apis/metrics.k8s.io/v1beta1/services", 404),
        ("GET", f"{NODES}?watch=true", 405),
        ("DELETE", f"{NODES}/one", 405),
        ("POST", "/apis/metrics.k8s.io/v1beta1", 405),
        ("GET", f"{PODS}?labelSelector=a%3Db%3Dc", 400),
        ("GET", f"{PODS}?fieldSelector=spec.nodeName%3Done", 400),
    ],
)
def test_what_there_is_not_gets_a_status(
    metrics: Metrics, method: str, target: str, status: int
) -> None:
    answer = metrics.answer(method, target)
    assert answer.status == status
    assert (answer.body["kind"], answer.body["code"]) == ("Status", status)


def test_discovery_names_what_there_is(metrics: Metrics) -> None:
    group = metrics.answer("GET", "/apis/metrics.k8s.io").body
    assert group["preferredVersion"]["groupVersion"] == "metrics.k8s.io/v1beta1"
    listed = metrics.answer("GET", "/apis/metrics.k8s.io/v1beta1").body
    found = {each["name"]: (each["kind"], each["namespaced"]) for each in listed["resources"]}
    assert found == {"nodes": ("NodeMetrics", False), "pods": ("PodMetrics", True)}


# --- over TLS ---


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, a client certificate of each, made as kubeadm would."""
    if not shutil.which("openssl"):
        pytest.fail("openssl is needed")
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    for name, common in (("proxy", "front-proxy-client"), ("other", "somebody")):
        openssl("req", "-x509", *key, "-subj", f"/CN={name}-ca", "-days", "2",
                "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.crt")  # fmt: skip
        for each in {common, "somebody"}:
            openssl("req", *key, "-subj", f"/CN={each}", "-keyout", f"{name}-{each}.key",
                    "-out", "request")  # fmt: skip
            openssl("x509", "-req", "-in", "request", "-CA", f"{name}-ca.crt", "-days", "1",
                    "-CAkey", f"{name}-ca.key", "-CAcreateserial",
                    "-out", f"{name}-{each}.crt")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make(tmp_path_factory.mktemp("own"), (SERVICE, f"{SERVICE}.cluster.local"))


def front_proxy(pki: Path, name: str = "proxy") -> FrontProxy:
    return FrontProxy.of(
        {
            "requestheader-client-ca-file": (pki / f"{name}-ca.crt").read_text(),
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
    )


@pytest.fixture
def server(pki: Path, certificate: Certificate) -> Iterator[Server]:
    metrics = Metrics(*shop(), lambda: NOW + 100)
    running = Server(0, Identity(certificate, front_proxy(pki)), metrics.answer, lambda: False)
    running.start()
    yield running
    running.shutdown()
    running.server_close()


def ask(
    server: Server,
    certificate: Certificate,
    target: str = NODES,
    client: Path | None = None,
    user: str = "system:admin",
    name: str = SERVICE,
) -> tuple[int, Json]:
    """A request as the API server makes it, with a client's certificate or without one."""
    context = ssl.create_default_context(cadata=certificate.text)
    if client:
        context.load_cert_chain(f"{client}.crt", f"{client}.key")
    with socket.create_connection(("127.0.0.1", server.server_address[1]), 10) as plain:
        connection = http.client.HTTPSConnection(name)
        connection.sock = context.wrap_socket(plain, server_hostname=name)
        connection.request("GET", target, headers={"X-Remote-User": user} if user else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_the_api_servers_front_proxy_is_answered(
    server: Server, certificate: Certificate, pki: Path
) -> None:
    client = pki / "proxy-front-proxy-client"
    status, body = ask(server, certificate, client=client)
    assert (status, body["kind"]) == (200, "NodeMetricsList")
    assert ask(server, certificate, client=client, name=f"{SERVICE}.cluster.local")[0] == 200


def test_nobody_else_is_answered(server: Server, certificate: Certificate, pki: Path) -> None:
    assert ask(server, certificate)[0] == 401
    assert ask(server, certificate, "/apis/metrics.k8s.io")[0] == 401
    # Signed by the right authority, but another name; and a front proxy that names no user.
    assert ask(server, certificate, client=pki / "proxy-somebody")[0] == 401
    assert ask(server, certificate, client=pki / "proxy-front-proxy-client", user="")[0] == 401
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(server, certificate, client=pki / "other-somebody")


def test_probes_need_no_certificate(server: Server, certificate: Certificate) -> None:
    assert ask(server, certificate, "/livez")[0] == 200
    assert ask(server, certificate, "/readyz")[0] == 503


def test_the_certificate_is_for_the_service_and_nothing_else(
    server: Server, certificate: Certificate
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(server, certificate, name="kubernetes.default.svc")
    assert certificate.key.stat().st_mode & 0o777 == 0o600


def test_another_identity_is_served_without_a_new_start(
    server: Server, certificate: Certificate, pki: Path, tmp_path: Path
) -> None:
    renewed = make(tmp_path, (SERVICE,))
    server.use(Identity(renewed, front_proxy(pki, "other")))
    assert server.front_proxy == front_proxy(pki, "other")
    with pytest.raises(ssl.SSLError):
        ask(server, certificate, "/livez")
    assert ask(server, renewed, "/livez")[0] == 200
    assert ask(server, renewed, client=pki / "other-somebody")[0] == 401
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(server, renewed, client=pki / "proxy-front-proxy-client")


class Small(http.server.ThreadingHTTPServer):
    """A server of fixed answers by path; it notes what it was asked."""

    daemon_threads = True

    def __init__(
        self, answers: dict[str, Json | str], context: ssl.SSLContext | None = None
    ) -> None:
        self.answers, self.asked = answers, list[tuple[str, str, str]]()
        super().__init__(("127.0.0.1", 0), _Small)
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Small(http.server.BaseHTTPRequestHandler):
    server: Small

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        self.server.asked.append((self.command, self.path, body))
        found = self.server.answers.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write((found if isinstance(found, str) else json.dumps(found)).encode())

    do_PATCH = do_GET  # noqa: N815


def kubelet(tmp_path: Path, name: str) -> tuple[Small, str]:
    """A kubelet that serves a certificate of its own."""
    folder = tmp_path / name
    folder.mkdir()
    own = make(folder, (name,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load(context)
    return Small({"/metrics/resource": RESOURCE}, context), own.text


@pytest.fixture
def account(tmp_path: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("the-token")
    return folder


def test_a_kubelet_is_asked_that_serves_what_the_host_found(
    tmp_path: Path, account: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api("https://127.0.0.1:1", account)
    one, certificate = kubelet(tmp_path, "one")
    two, _ = kubelet(tmp_path, "two")
    nodes = [
        Node("one", {}, "127.0.0.1", one.port),
        # Another answers in its place; and one that the host knows nothing of.
        Node("two", {}, "127.0.0.1", two.port),
        Node("three", {}, "127.0.0.1", two.port),
    ]
    meter = Meter()
    failed = kubelets.scrape_all(api, nodes, {"one": certificate, "two": certificate}, meter)
    assert failed == ["two", "three"]
    assert meter.usage(0) == {"one": {}}
    assert two.asked == []
    assert "the-token" not in caplog.text
    for each in (one, two):
        each.shutdown()


def test_the_program_tells_the_api_server_its_certificate_and_follows_the_front_proxy(
    tmp_path: Path, account: Path, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = "/api/v1/namespaces/kube-system/configmaps"
    proxy = {
        "requestheader-client-ca-file": (pki / "proxy-ca.crt").read_text(),
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }
    service = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
    small = Small(
        {
            f"{maps}/extension-apiserver-authentication": {"data": proxy},
            f"{maps}/kubelet-certificates": {},
            service: {"spec": {}},
        }
    )
    api = Api(f"http://127.0.0.1:{small.port}", account, timing=Timing(request=5))
    program = Program(api, tmp_path, (SERVICE,))
    program.objects.replace("nodes", [])
    server = program.serve(0)
    program.turn(server)
    method, path, body = small.asked[-1]
    bundle = json.loads(body)["spec"]["caBundle"]
    assert (method, path) == ("PATCH", service)
    assert base64.b64decode(bundle).decode() == (tmp_path / "cert.pem").read_text()
    # The APIService has it: nothing to tell. Then another authority.
    small.answers[service] = {"spec": {"caBundle": bundle}}
    proxy["requestheader-client-ca-file"] = (pki / "other-ca.crt").read_text()
    program.turn(server)
    assert small.asked[-1][0] == "GET"
    assert server.front_proxy == front_proxy(pki, "other")
    # A month later it is another certificate, which the API server is told of.
    monkeypatch.setattr("sykube.incluster.metrics.__main__._RENEW_S", -1)
    program.turn(server)
    assert json.loads(small.asked[-1][2])["spec"]["caBundle"] != bundle
    # The API is away: it goes on with what it has.
    small.shutdown()
    small.server_close()
    program.turn(server)
    server.shutdown()
    server.server_close()
