"""The dashboard's server: whom it lets in, what it sends, and where that comes from."""

from __future__ import annotations

import http.client
import importlib.resources
import re
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import click.testing
import pytest

from sykube.cli.dashboard import dashboard
from sykube.cluster.commands import power
from sykube.dashboard import rows, serve
from sykube.dashboard.access import TOKEN_LIFE_S, Access
from sykube.dashboard.cluster_data import LiveData
from sykube.errors import SykubeError, UsageError
from sykube.kubernetes.api import ApiError
from sykube.node import cgroups
from sykube.node.node import Usage
from tests.dashboard import QUICK, Served, StubData, served
from tests.fakes import World
from tests.unit.helpers import made

Json = dict[str, Any]


def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


# --- who is let in ---


def token_of(access: Access) -> str:
    return urllib.parse.parse_qs(urllib.parse.urlsplit(access.link).query)["token"][0]


def test_the_link_works_once() -> None:
    access = Access(8000)
    cookie = access.exchange(token_of(access))
    assert re.fullmatch(
        r"sykube-dashboard=[\w-]{43}; Path=/[0-9a-f]{16}/; HttpOnly; SameSite=Strict", cookie
    )
    assert access.admits(cookie.partition(";")[0])
    assert access.exchange(token_of(access)) == ""
    # Who is in already stays.
    assert access.admits(f"other=1; {cookie.partition(';')[0]}")


def test_a_wrong_token_and_an_old_one_open_nothing() -> None:
    clock = [0.0]
    access = Access(8000, now=lambda: clock[0])
    assert access.exchange("") == ""
    assert access.exchange(f"{token_of(access)}x") == ""
    assert access.exchange("é") == ""
    clock[0] = TOKEN_LIFE_S + 1
    assert access.exchange(token_of(access)) == ""


@pytest.mark.parametrize("cookies", ["", "sykube-dashboard=", "sykube-dashboard=guess", "a;b", "=",
                                     "sykube-dashboard=é"])  # fmt: skip
def test_other_cookies_open_nothing(cookies: str) -> None:
    assert not Access(8000).admits(cookies)


HERE = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("GET", HERE, True),
        ("GET", {"host": "localhost:8000"}, True),
        ("GET", {"host": "rebound.example:8000"}, False),
        ("GET", {"host": "127.0.0.1:8001"}, False),
        ("GET", {}, False),
        ("GET", HERE | {"origin": "http://127.0.0.1:8000"}, True),
        ("GET", HERE | {"origin": "http://localhost:8000"}, False),
        ("GET", HERE | {"origin": "null"}, False),
        ("POST", HERE | {"origin": "http://127.0.0.1:8000"}, True),
        ("POST", HERE, False),
        ("POST", HERE | {"origin": "https://elsewhere.example"}, False),
        # What a link in another page does; and its images and scripts.
        ("GET", HERE | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", HERE | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        # Another port of this host is the same site for a browser.
        ("GET", HERE | {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
        ("GET", HERE | {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, True),
    ],
)
def test_requests_of_other_sites_are_refused(
    method: str, headers: dict[str, str], allowed: bool
) -> None:
    assert (Access(8000).refusal(method, headers) == "") is allowed


# --- over HTTP ---


@pytest.fixture
def source() -> StubData:
    return StubData()


@pytest.fixture
def page(source: StubData) -> Iterator[Served]:
    with served(source) as running:
        yield running


def test_the_link_leads_to_the_page_and_nothing_comes_from_elsewhere(page: Served) -> None:
    status, headers, text = page.request("GET", page.link_path)
    assert status == 200
    # Not by a redirect: as part of a navigation from elsewhere, it would get no strict cookie.
    assert f'content="0; url={page.access.place}/"' in text
    cookie = headers["set-cookie"].partition(";")[0]
    status, headers, text = page.request("GET", f"{page.access.place}/", Cookie=cookie)
    assert status == 200 and "<title>sykube</title>" in text
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert not re.search(r"(src|href)=\"(https?:|//)|<style|style=|\son\w+=", text)


def test_a_link_that_was_used_gets_one_clear_page(page: Served) -> None:
    page.enter()
    status, headers, text = page.request("GET", page.link_path)
    assert status == 403
    assert "set-cookie" not in headers
    assert "This link does not open the dashboard" in text
    assert "sha256-" in headers["content-security-policy"]


PATHS = ("/", "/events", "/static/main.js", "/static/style.css", "/logs/node?node=master", "/none")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_cookie(page: Served, path: str) -> None:
    assert page.request("GET", path)[0] == 403
    inside = f"{page.access.place}{path}"
    assert page.request("GET", inside)[0] == 403
    assert page.request("GET", inside, Cookie="sykube-dashboard=guess")[0] == 403


def test_nothing_is_done_without_the_cookie_or_for_another_site(
    page: Served, source: StubData
) -> None:
    cookie, path = page.enter(), f"{page.access.place}/scale"
    body = {"namespace": "default", "name": "web", "replicas": 9}
    own = f"http://127.0.0.1:{page.access.port}"
    json_type = "application/json"
    for headers in (
        {"Origin": own, "Content_Type": json_type},
        {"Cookie": cookie, "Content_Type": json_type},
        {"Cookie": cookie, "Content_Type": json_type, "Origin": "https://elsewhere.example"},
        {"Cookie": cookie, "Content_Type": json_type, "Origin": own, "Host": "rebound.example"},
    ):
        assert page.request("POST", path, body, **headers)[0] == 403
    # What a form can send.
    assert page.request("POST", path, body, Cookie=cookie, Origin=own,
                        Content_Type="text/plain")[0] == 415  # fmt: skip
    assert source.asked == []


def post(page: Served, cookie: str, body: Any) -> tuple[int, str]:
    own = f"http://127.0.0.1:{page.access.port}"
    status, _, text = page.request(
        "POST", f"{page.access.place}/scale", body,
        Cookie=cookie, Origin=own, Content_Type="application/json",
    )  # fmt: skip
    return status, text


def test_a_deployment_is_scaled_and_the_page_hears_of_it(page: Served, source: StubData) -> None:
    cookie = page.enter()
    with page.stream("events", cookie) as events:
        assert post(page, cookie, {"namespace": "default", "name": "web", "replicas": 4})[0] == 200
        assert source.asked == [("default", "web", 4)]
        for name, data in events:
            if name == "objects":
                found = {each["name"]: each["wanted"] for each in data["deployments"]}
                if found["web"] == 4:
                    break


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"namespace": "default", "name": "web", "replicas": 101}, 400, "0 to 100 pods"),
        ({"namespace": "default", "name": "web", "replicas": -1}, 400, "0 to 100 pods"),
        ({"namespace": "default", "name": "web", "replicas": "3"}, 400, "wants namespace"),
        ({"namespace": "default"}, 400, "wants namespace"),
        ("{", 400, "no JSON"),
        ('"' + "x" * 5000 + '"', 413, "too long"),
        ({"namespace": "default", "name": "none", "replicas": 1}, 502, "not found"),
    ],
)
def test_what_cannot_be_done_is_said(page: Served, body: Any, status: int, words: str) -> None:
    found, text = post(page, page.enter(), body)
    assert (found, words in text) == (status, True)


def test_a_page_that_opens_gets_all_that_is_known_and_then_what_is_new(page: Served) -> None:
    with page.stream("events", page.enter()) as events:
        seen: dict[str, Any] = {}
        points = []
        for name, data in events:
            seen.setdefault(name, data)
            points += [data] if name == "usage" else []
            if len(points) > 2 and {"history", "cluster", "objects"} <= seen.keys():
                break
    assert seen["cluster"]["status"] == "healthy"
    assert {each["name"] for each in seen["cluster"]["nodes"]} == {"master", "node1", "node2"}
    # Processors are known from the second look on.
    assert points[-1]["nodes"]["master"]["cpu"] > 0
    assert points[-1]["nodes"]["master"]["memory"] == 1_100_000_000


def test_nobody_asks_the_api_while_no_page_is_open(page: Served, source: StubData) -> None:
    with page.stream("events", page.enter()) as events:
        eventually(lambda: next(events)[0] == "objects")
    time.sleep(4 * QUICK.objects)
    looks = source.looks
    points = len(page.collector._usage)
    eventually(lambda: len(page.collector._usage) > points + 3)
    assert source.looks <= looks + 1


def first(events: Iterator[tuple[str, Any]], name: str, fits: Callable[[Any], bool]) -> Any:
    return next(data for each, data in events if each == name and fits(data))


def test_what_is_wrong_is_said_and_what_was_known_stays(page: Served, source: StubData) -> None:
    with page.stream("events", page.enter()) as events:
        first(events, "objects", lambda data: not data["problem"])
        source.silent = "the API server does not answer: connection refused"
        away = first(events, "objects", lambda data: data["problem"])
        assert "connection refused" in away["problem"] and len(away["pods"]) == 7
        source.silent = ""
        first(events, "objects", lambda data: not data["problem"])
        source.state = "stopped"
        first(events, "cluster", lambda data: data["status"] == "stopped")
        source.state = "gone"
        gone = first(events, "cluster", lambda data: data["status"] == "gone")
        assert gone["problem"] == "there is no cluster 'lab'"


def test_slurm_clusters_are_sent_when_they_change_and_stay_while_the_api_is_away(
    page: Served, source: StubData
) -> None:
    source.efficiencies = {"lab": {"problem": "there is no job in sacct"}}
    cookie = page.enter()
    with page.stream("events", cookie) as events:
        first(events, "slurm", lambda data: data["clusters"] == [])
        source.slurm_clusters = [{"namespace": "lab", "jobs": []}]
        first(events, "slurm", lambda data: data["clusters"] == source.slurm_clusters)
        source.silent = "the API server does not answer: connection refused"
        away = first(events, "slurm", lambda data: data["problem"])
        assert away["clusters"] == source.slurm_clusters
    with page.stream("events", cookie) as events:
        assert first(events, "efficiency", bool)["clusters"] == source.efficiencies


def test_a_log_is_followed_and_ended_with_its_page(page: Served, source: StubData) -> None:
    with page.stream("logs/node?node=master&service=kubelet", page.enter()) as events:
        assert next(events) == ("lines", [])
        lines = first(events, "lines", bool)
        assert lines[0] == "the first line of master/kubelet"
        log = source.logs["master/kubelet"]
        log.write("news ✓")
        assert first(events, "lines", lambda found: "news ✓" in found)
    eventually(lambda: log.closed)


def test_a_log_that_is_not_there_says_so(page: Served) -> None:
    with page.stream("logs/node?node=none&service=kubelet", page.enter()) as events:
        assert next(events) == ("end", "there is no log of kubelet in none")


def test_the_server_ends_at_once_with_pages_open(source: StubData) -> None:
    with served(source) as page:
        cookie = page.enter()
        connections = []
        for path in ("events", "logs/node?node=master&service=kubelet"):
            connection = http.client.HTTPConnection("127.0.0.1", page.access.port, timeout=10)
            connection.request("GET", f"{page.access.place}/{path}", headers={"Cookie": cookie})
            assert connection.getresponse().status == 200
            connections.append(connection)
    for connection in connections:
        connection.close()


def test_a_port_that_is_taken_is_wrong_use() -> None:
    with serve.listen(0) as listening:
        port = listening.getsockname()[1]
        assert listening.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UsageError, match=f"the port {port} is taken"):
            serve.listen(port)


def test_a_browser_that_is_quicker_than_the_server_waits_for_it() -> None:
    with (
        serve.listen(0) as listening,
        socket.create_connection(listening.getsockname(), 5) as early,
    ):
        assert early.getpeername() == listening.getsockname()


def test_the_page_comes_with_the_package() -> None:
    folder = importlib.resources.files("sykube.dashboard") / "static"
    for name in re.findall(r'static/([\w.]+)"', (folder / "index.html").read_text()):
        assert (folder / name).is_file()


# --- rows ---


def pod(states: list[Json] | None = None, init: list[Json] | None = None, **status: Any) -> Json:
    wrapped = [{"name": f"c{n}", "state": each} for n, each in enumerate(states or [])]
    first_ones = [{"name": f"i{n}", "state": each} for n, each in enumerate(init or [])]
    return {
        "metadata": {"name": "web-1", "namespace": "shop"},
        "spec": {"nodeName": "one", "containers": [{"name": "c0"}]},
        "status": {"phase": "Running", "containerStatuses": wrapped,
                   "initContainerStatuses": first_ones} | status,
    }  # fmt: skip


WAITING: Json = {"waiting": {"reason": "CrashLoopBackOff"}}
DONE: Json = {"terminated": {"reason": "Completed", "exitCode": 0}}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (pod([{"running": {}}]), "Running"),
        (pod(phase="Pending"), "Pending"),
        (pod([WAITING]), "CrashLoopBackOff"),
        (pod([DONE, {"running": {}}]), "Running"),
        (pod([DONE], phase="Succeeded"), "Completed"),
        (pod([{"terminated": {"exitCode": 3}}], phase="Failed"), "ExitCode:3"),
        (pod([], phase="Failed", reason="Evicted"), "Evicted"),
        (pod([], init=[DONE, {"running": {}}], phase="Pending"), "Init:1/2"),
        (pod([], init=[WAITING], phase="Pending"), "Init:CrashLoopBackOff"),
        (pod([{"waiting": {"reason": "PodInitializing"}}], init=[DONE]), "Running"),
        (pod() | {"metadata": {"deletionTimestamp": "now"}}, "Terminating"),
    ],
)
def test_a_pods_status_is_kubectls_word(given: Json, word: str) -> None:
    assert rows.pod_status(given) == word


@pytest.mark.parametrize(
    ("phase", "over"),
    [("Running", False), ("Pending", False), ("Failed", True), ("Succeeded", True)],
)
def test_a_pods_row_says_whether_it_is_over(phase: str, over: bool) -> None:
    given = pod([{"running": {}}])
    given["status"] |= {"phase": phase, "reason": "Evicted"}
    assert rows.pods([given], {})[0]["ended"] is over


def test_a_pods_row_has_what_it_uses_where_that_is_known() -> None:
    metrics = {"containers": [{"usage": {"cpu": "1500000n", "memory": "64Mi"}},
                              {"usage": {"cpu": "2m", "memory": "1k"}}]}  # fmt: skip
    (row,) = rows.pods([pod([{"running": {}}])], {"shop/web-1": metrics})
    assert (row["cpu"], row["memory"]) == (pytest.approx(0.0035), 64 * 2**20 + 1000)
    (row,) = rows.pods([pod([{"running": {}}])], {})
    assert (row["cpu"], row["memory"]) == (None, None)


def test_quantities() -> None:
    assert [rows.quantity(each) for each in ("2", "250m", "1Ki", "3M", "7u")] == [
        2, 0.25, 1024, 3e6, pytest.approx(7e-6)]  # fmt: skip
    for wrong in ("", "x", "1Q"):
        with pytest.raises(ValueError):
            rows.quantity(wrong)


def event(name: str, **fields: Any) -> Json:
    return {"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "web"}} | fields


def test_events_come_with_the_newest_first_whatever_time_they_have() -> None:
    found = rows.events(
        [
            event("a", lastTimestamp="2026-01-01T00:00:00Z", message=" old "),
            event("b", lastTimestamp=None, eventTime="2026-01-03T00:00:00.1Z", type="Warning"),
            event("c", lastTimestamp=None, series={"lastObservedTime": "2026-01-02T00:00:00Z"}),
        ]
    )
    assert [row["id"] for row in found] == ["b", "c", "a"]
    assert found[2]["message"] == "old"


def test_a_deployments_pods_are_found_by_its_replica_sets() -> None:
    deployment = {"metadata": {"name": "web", "namespace": "shop", "uid": "1"}, "spec": {}}
    replica_set = {"metadata": {"name": "web-abc", "ownerReferences": [{"uid": "1"}]}}
    (row,) = rows.deployments([deployment], [replica_set])
    assert (row["wanted"], row["ready"], row["sets"]) == (1, 0, ["web-abc"])


# --- a cluster in a fake world ---


def test_a_clusters_nodes_as_the_page_gets_them(world: World) -> None:
    made(world)
    found = LiveData(world.host, "fake", world.ui()).collect()
    assert (found["status"], found["option"]) == ("healthy", " --name fake")
    master = found["nodes"][0]
    assert (master["name"], master["control_plane"], master["state"]) == ("master", True, "running")
    assert master["services"] == {"containerd": "RUNNING", "kubelet": "RUNNING"}
    assert found["image_bytes"] > 0 and not found["limited"]
    power.pause(world.host, "fake", world.ui())
    assert LiveData(world.host, "fake", world.ui()).collect()["status"] == "paused"


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_node_uses_is_read_from_its_cgroups(
    version: int, fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(fast_path / "host", cgroup_version=version)
    world.install(monkeypatch)
    made(world)
    used = LiveData(world.host, "fake", world.ui()).usage()
    assert used == dict.fromkeys(("master", "node1"), Usage(2.5, 2_000_000))
    assert cgroups.usage(world.host, "fake-none") == Usage(None, None)


def test_disk_is_told_by_what_it_is_for(world: World) -> None:
    made(world)
    found = LiveData(world.host, "fake", world.ui()).disk()
    # The fake du says 7 for each folder: config, kubelet and log are the others.
    assert found["master"] == {"overlay": 7, "images": 7, "etcd": 7, "other": 21}


METRICS = "/apis/metrics.k8s.io/v1beta1/pods"


def test_objects_come_from_the_api(world: World) -> None:
    made(world)
    objects = world.kubernetes["fake"].objects
    deployment = {"metadata": {"name": "web", "namespace": "shop", "uid": "1"}, "spec": {}}
    objects["/apis/apps/v1/deployments"] = {"items": [deployment]}
    objects["/apis/apps/v1/replicasets"] = {"items": []}
    objects["/api/v1/events"] = {"items": [event("a", lastTimestamp="2026-01-01T00:00:00Z")]}
    source = LiveData(world.host, "fake", world.ui())
    found = source.objects()
    pods = {row["name"]: row for row in found["pods"]}
    assert pods["etcd-fake-master"]["node"] == "fake-master"
    assert pods["etcd-fake-master"]["memory"] is None
    assert [row["name"] for row in found["deployments"]] == ["web"]
    assert [row["id"] for row in found["events"]] == ["a"]
    assert found["measured"] is False
    measured = {
        "metadata": {"name": "etcd-fake-master", "namespace": "kube-system"},
        "containers": [{"usage": {"cpu": "1m", "memory": "1Mi"}}],
    }
    objects[METRICS] = {"items": [measured]}
    found = source.objects()
    assert found["measured"] is True
    memory = {row["name"]: row["memory"] for row in found["pods"]}
    assert memory["etcd-fake-master"] == 2**20


def test_a_cluster_without_slurm_has_no_slurm_cluster_to_show(world: World) -> None:
    made(world)
    world.kubernetes["fake"].objects["/api/v1/configmaps"] = {"items": []}
    source = LiveData(world.host, "fake", world.ui())
    assert source.slurm() == {"clusters": []}
    assert source.slurm_efficiency() == {"clusters": {}}


def test_scaling_goes_to_the_api(world: World) -> None:
    made(world)
    source = LiveData(world.host, "fake", world.ui())
    objects = world.kubernetes["fake"].objects
    scale = "/apis/apps/v1/namespaces/default/deployments/web/scale"
    objects[scale] = {"spec": {"replicas": 1}}
    source.scale("default", "web", 3)
    assert objects[scale]["spec"]["replicas"] == 3
    with pytest.raises(ApiError):
        source.scale("default", "none", 3)
    for namespace, name in (("default", "../../secrets"), ("", "web"), ("a/b", "web")):
        with pytest.raises(UsageError):
            source.scale(namespace, name, 3)


def test_a_pods_log_comes_in_whole_lines(world: World) -> None:
    made(world)
    world.network.log = ["one\ntw", "o\n", "\nthree"]
    lines: list[str] = []
    LiveData(world.host, "fake", world.ui()).pod_log("shop", "web-1", "web").follow(lines.append)
    assert lines == ["one", "two", "", "three"]
    (target,) = world.network.logs_asked
    path, _, query = target.partition("?")
    params = dict(parse_qsl(query))
    assert path == "/api/v1/namespaces/shop/pods/web-1/log"
    assert (params["container"], params["follow"]) == ("web", "true")


def test_a_nodes_log_is_followed(world: World) -> None:
    made(world)
    log = LiveData(world.host, "fake", world.ui()).node_log("master", "supervisord")
    lines: list[str] = []
    with ThreadPoolExecutor() as pool:
        following = pool.submit(log.follow, lines.append)
        eventually(lambda: lines)
        log.close()
        following.result(10)
    assert lines == ["fake-master has booted"]
    for node, service in (("none", "kubelet"), ("master", "../../etc/passwd"), ("..", "kubelet")):
        with pytest.raises(UsageError):
            LiveData(world.host, "fake", world.ui()).node_log(node, service)


# --- the command ---


def test_the_command_prints_the_link_and_ends_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(world)
    ran: list[socket.socket] = []

    def run(_: object, sockets: list[socket.socket]) -> None:
        ran.extend(sockets)
        raise KeyboardInterrupt

    # It would serve for good.
    monkeypatch.setattr("uvicorn.Server.run", run)
    done = click.testing.CliRunner().invoke(
        dashboard, ["--name", "fake", "--no-open"], obj=world.host
    )
    assert done.exit_code == 0, done.output
    assert re.search(r"^http://127\.0\.0\.1:\d+/enter\?token=[\w-]{43}$", done.stdout, re.MULTILINE)
    assert ran[0].fileno() == -1


def test_a_cluster_that_is_not_there_has_no_dashboard(world: World) -> None:
    done = click.testing.CliRunner().invoke(dashboard, ["--name", "none"], obj=world.host)
    assert isinstance(done.exception, SykubeError)
