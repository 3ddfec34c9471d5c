"""The dashboard with a made-up cluster behind it, served on loopback."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sykube.dashboard import serve
from sykube.dashboard.access import Access
from sykube.dashboard.app import application
from sykube.dashboard.cluster_data import check_replicas
from sykube.dashboard.collector import Collector, Pace
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.kubernetes.api import ApiError
from sykube.node.node import Usage

Json = dict[str, Any]
QUICK = Pace(usage=0.1, disk=0.2, look=0.1, objects=0.1, slurm=0.1, efficiency=0.1)


class StubLog:
    """Lines that are there, then one for each `write`, up to `close`."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = [*lines]
        self._news = threading.Condition()
        self.closed = False

    def write(self, line: str) -> None:
        with self._news:
            self._lines.append(line)
            self._news.notify_all()

    def close(self) -> None:
        with self._news:
            self.closed = True
            self._news.notify_all()

    def follow(self, take: Callable[[str], None]) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._lines or self.closed)
                lines, self._lines = self._lines, []
            for line in lines:
                take(line)
            if self.closed:
                return


@dataclass
class StubData:
    """A cluster of a master and two workers that runs a small shop.

    Attributes:
        state: of all nodes: running, paused or stopped; or gone.
        silent: what the API server's absence is said to be, or nothing.
        parts: of the cluster, that something is wrong with.
        replicas: of each Deployment.
        asked: numbers of pods that were asked for.
        forbids: whether numbers of pods are refused.
        slurm_clusters, efficiencies: what the Slurm clusters say.
        looks: how often objects were looked at.
    """

    state: str = "running"
    silent: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    replicas: dict[str, int] = field(
        default_factory=lambda: {"default/web": 3, "default/cart": 2, "kube-system/cluster-dns": 1}
    )
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    logs: dict[str, StubLog] = field(default_factory=dict)
    forbids: bool = False
    slurm_clusters: list[Json] = field(default_factory=list)
    efficiencies: Json = field(default_factory=dict)
    looks: int = 0
    seconds: float = 0.0
    made: float = field(default_factory=time.time)

    def collect(self) -> Json:
        if self.state == "gone":
            raise SykubeError("there is no cluster 'lab'", exit_code=ExitCode.NO_SUCH_CLUSTER)
        names = ("network", "API server", "system pods", "DNS", "disk")
        parts = dict.fromkeys(names, "") | self.parts
        if self.silent and self.state == "running":
            parts["API server"] = self.silent
        runs = self.state == "running"
        degraded = any(parts.values()) or any(self.problems.values())
        services = {"containerd": "RUNNING", "kubelet": "RUNNING"}
        return {
            "name": "lab",
            "option": " --name lab",
            "status": ("degraded" if degraded else "healthy") if runs else self.state,
            "kubernetes": "v1.20.2",
            "endpoint": "10.11.11.254:6443",
            "parts": parts,
            "certificates": "",
            "image_bytes": 265_000_000,
            "cores": 8,
            "memory": 33_500_000_000,
            "limited": False,
            "nodes": [
                {
                    "name": name,
                    "instance": f"lab-{name}",
                    "address": f"10.11.11.{number}",
                    "control_plane": name == "master",
                    "state": self.state,
                    "problem": self.problems.get(name, ""),
                    "services": services if runs else {},
                    "cores": 8,
                    "memory": 33_500_000_000,
                }
                for number, name in enumerate(("master", "node1", "node2"), 2)
            ],
        }

    def usage(self) -> dict[str, Usage]:
        if self.state != "running":
            return {}
        self.seconds += 0.05
        shares = {"master": 1.0, "node1": 0.5, "node2": 0.4}
        return {
            name: Usage(self.seconds * share, int(1.1e9 * share)) for name, share in shares.items()
        }

    def disk(self) -> dict[str, dict[str, int]]:
        one = {"overlay": 3_000_000, "images": 12_000_000, "etcd": 0, "other": 4_000_000}
        return {"master": one | {"etcd": 128_000_000}, "node1": one, "node2": one}

    def objects(self) -> Json:
        self.looks += 1
        self._answer()
        found = [
            self._pod(key, number) for key in self.replicas for number in range(self.replicas[key])
        ]
        broken = self._pod("default/report", 0) | {
            "status": "CrashLoopBackOff", "ready": 0, "restarts": 7, "owner": "", "name": "report-nightly",
        }  # fmt: skip
        return {
            "pods": [*found, broken],
            "deployments": [self._deployment(key, count) for key, count in self.replicas.items()],
            "events": self._events(),
            "measured": True,
        }

    def _answer(self) -> None:
        if self.state != "running" or self.silent:
            raise ApiError(self.silent or "the API server does not answer: no route to host", 0)

    def _pod(self, key: str, number: int) -> Json:
        namespace, _, name = key.partition("/")
        return {
            "namespace": namespace,
            "name": f"{name}-6b7f9c-{'bcdfghjklmnpqrstvwxz'[number]}{number}xk",
            "node": f"lab-node{number % 2 + 1}",
            "status": "Running",
            "ended": False,
            "ready": 1,
            "containers": [name],
            "restarts": 0,
            "created": datetime.fromtimestamp(self.made - 5400, UTC).isoformat(),
            "owner": f"ReplicaSet/{name}-6b7f9c",
            "cpu": 0.012 + 0.02 * number,
            "memory": 48e6 + 1.5e6 * number,
        }

    def _deployment(self, key: str, count: int) -> Json:
        namespace, _, name = key.partition("/")
        return {
            "namespace": namespace,
            "name": name,
            "wanted": count,
            "ready": count,
            "sets": [f"{name}-6b7f9c"],
        }

    def _events(self) -> list[Json]:
        rows = [
            (40, "Warning", "BackOff", "Pod", "report-nightly", "Back-off restarting failed container", 31),
            (65, "Normal", "ScalingReplicaSet", "Deployment", "web", "Scaled up replica set web-6b7f9c to 3", 1),
            (66, "Normal", "Scheduled", "Pod", "web-6b7f9c-d2xk", "Successfully assigned default/web-6b7f9c-d2xk to lab-node1", 1),
            (300, "Normal", "Pulled", "Pod", "cart-6b7f9c-b0xk", 'Container image "sykube.local/system:1" already present on machine', 1),
            (5400, "Normal", "NodeReady", "Node", "lab-node2", "Node lab-node2 status is now: NodeReady", 1),
        ]  # fmt: skip
        return [
            {
                "id": f"event-{number}",
                "time": datetime.fromtimestamp(self.made - since, UTC).isoformat(),
                "type": kind,
                "reason": reason,
                "message": message,
                "kind": what,
                "name": name,
                "namespace": "default" if what != "Node" else "",
                "count": count,
            }
            for number, (since, kind, reason, what, name, message, count) in enumerate(rows)
        ]

    def slurm(self) -> Json:
        self._answer()
        return {"clusters": self.slurm_clusters}

    def slurm_efficiency(self) -> Json:
        self._answer()
        return {"clusters": self.efficiencies}

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        check_replicas(replicas)
        if self.forbids:
            raise ApiError("deployments.apps is forbidden", 403)
        self.asked.append((namespace, name, replicas))
        key = f"{namespace}/{name}"
        if key not in self.replicas:
            raise ApiError(f'deployments.apps "{name}" not found', 404)
        self.replicas[key] = replicas

    def pod_log(self, namespace: str, name: str, container: str) -> StubLog:
        return self._log(f"{namespace}/{name}/{container}")

    def node_log(self, node: str, service: str) -> StubLog:
        if node not in ("master", "node1", "node2"):
            raise UsageError(f"there is no log of {service} in {node}")
        return self._log(f"{node}/{service}")

    def _log(self, key: str) -> StubLog:
        if key not in self.logs or self.logs[key].closed:
            self.logs[key] = StubLog([f"the first line of {key}", "the second line"])
        return self.logs[key]


def slurm_cluster(jobs: int) -> Json:
    """A Slurm cluster of three nodes, of which one is drained, with so many jobs."""
    nodes = [("c1-0", "allocated", 2, ""), ("c2-0", "idle", 0, ""), ("c3-0", "drained", 0, "fan")]
    return {
        "namespace": "slurm",
        "options": " --name lab",
        "problem": "nodes of Slurm: c3-0: drained",
        "nodes": [
            {"name": name, "state": state, "cpus": 2, "allocated": allocated, "memory_mib": 960,
             "reason": reason, "on": "lab-node1"}
            for name, state, allocated, reason in nodes
        ],
        "jobs": [
            {"id": str(number), "name": f"bag-{number}", "user": "ada",
             "state": "pending" if number > 1 else "running",
             "reason": "Resources" if number > 1 else "", "cpus": 2,
             "time": "0:00" if number > 1 else "1:05", "nodes": "" if number > 1 else "c1-0"}
            for number in range(1, jobs + 1)
        ],
        "unscheduled": [{"pod": "c4-0", "reason": "0/2 nodes are available: 2 Insufficient memory."}],
        "more_jobs": 0,
        "accounting": True,
        "automatic": None,
    }  # fmt: skip


SLURM_EFFICIENCY: Json = {
    "problem": "",
    "jobs": 12,
    "average": 71.25,
    "median": 80.0,
    "overall": 64.5,
    "unfinished": 1,
    "worst": [{"job": "7", "efficiency": 4.0, "wasted_s": 3723.0, "impact": 20.5}],
    "points": [[20.5, 4.0], [6.0, 55.0], [1.5, 80.0], [0.5, 97.0], [0.0, 100.0]],
}


@dataclass
class Served:
    """A dashboard that is served."""

    access: Access
    collector: Collector

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """A request as a program makes it, not a browser; underscores in names become dashes.

        Returns:
            status, headers by names in lower case, body.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.access.port, timeout=10)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, text, given)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        content = answer.read().decode()
        connection.close()
        return answer.status, found, content

    def enter(self) -> str:
        """Open the link; the cookie that it gives."""
        status, headers, _ = self.request("GET", self.link_path)
        assert status == 200
        return headers["set-cookie"].partition(";")[0]

    @property
    def link_path(self) -> str:
        url = urllib.parse.urlsplit(self.access.link)
        return f"{url.path}?{url.query}"

    @contextmanager
    def stream(self, path: str, cookie: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of a path of the page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.access.port, timeout=10)
        connection.request("GET", f"{self.access.place}/{path}", headers={"Cookie": cookie})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.getheader("Content-Type", "").startswith("text/event-stream")

        def events() -> Iterator[tuple[str, Any]]:
            name = ""
            while line := answer.readline().decode():
                key, _, value = line.rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)

        try:
            yield events()
        finally:
            answer.close()
            connection.close()


@contextmanager
def served(source: StubData, pace: Pace = QUICK) -> Iterator[Served]:
    """A dashboard of a source, until the end of the block."""
    import uvicorn

    with serve.listen(0) as listening:
        access = Access(listening.getsockname()[1])
        collector = Collector(source, pace)
        config = serve.configuration(application(source, access, collector))
        server: uvicorn.Server = serve.Server(config, collector.close)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline and thread.is_alive()
            time.sleep(0.01)
        try:
            yield Served(access, collector)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
