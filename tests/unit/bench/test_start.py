"""What `sykube bench start` makes of what the API server says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sykube.cluster.commands.bench import start
from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.kubernetes.api import ApiError
from tests.fakes import FakeHost
from tests.fakes.calls import Calls
from tests.fakes.ui import RecordingUi


@dataclass
class Server:
    """An API server whose pods run as soon as somebody looks, each a second after the other.

    Attributes:
        stuck: names of pods that never run.
        namespace: whether that of the measurement is there.
    """

    now: float = 0.0
    pods: list[str] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    stuck: frozenset[str] = frozenset()
    namespace: bool = False

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, method: str, path: str, body: Any = None, **_: Any) -> None:
        match method, path:
            case "POST", "/api/v1/namespaces":
                if self.namespace:
                    raise ApiError("it exists", 409)
                self.namespace = True
            case "POST", _:
                self.made.append(body)
                self.pods.append(body["metadata"]["name"])

    def delete(self, _manifest: Any) -> None:
        self.namespace = False

    def get(self, path: str) -> None:
        if not path.endswith("/serviceaccounts/default"):
            raise ApiError(f"{path}: not found", 404)

    def stream(self, _path: str, **_: str) -> Stream:
        self.pods.clear()
        return Stream(self)


@dataclass
class Stream:
    server: Server

    def __iter__(self) -> Iterator[str]:
        yield from self._each("MODIFIED", "Running", {"running": {}})
        yield from self._each("MODIFIED", "Running", {"terminated": {"exitCode": 0}})

    def _each(self, kind: str, phase: str, state: dict[str, Any]) -> Iterator[str]:
        for name in self.server.pods:
            stuck = name in self.server.stuck
            self.server.now += 1
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
            status = {
                "phase": "Pending" if stuck else phase,
                "containerStatuses": [{"state": waiting if stuck else state}],
            }
            change = {"type": kind, "object": {"metadata": {"name": name}, "status": status}}
            text = json.dumps(change) + "\n"
            # As a connection gives it, in pieces.
            yield text[:20]
            yield text[20:]
            if stuck:
                return

    def close(self) -> None:
        pass


def cluster_with(server: Server, tmp_path: Any) -> Cluster:
    made = SimpleNamespace(
        name="sykube",
        name_option="",
        host=FakeHost(root=tmp_path, monotonic=lambda: server.now),
        image=SimpleNamespace(name_of=lambda _: "system:1"),
        ui=RecordingUi(Calls()),
        api=lambda: nullcontext(server),
    )
    return cast(Cluster, made)


def test_each_place_has_a_figure_of_each_block(tmp_path: Any) -> None:
    server = Server()
    found = start.in_blocks(
        cluster_with(server, tmp_path), ["runc", "crun"], runs=4, pods=3, margin=0.02
    )
    # Pods run after 1, 2 and 3 seconds, and end a second after each other.
    for what, value in (("running", 2.0), ("started", 1.0), ("stopped", 1.0)):
        assert dict(found[what].values) == {"runc": [value] * 4, "crun": [value] * 4}
    assert not server.namespace
    # The first of each is to warm up.
    assert [each["spec"]["runtimeClassName"] for each in server.made].count("crun") == 3 * 5


def test_pods_that_do_not_run_are_one_error_and_the_namespace_goes(tmp_path: Any) -> None:
    server = Server(stuck=frozenset({"runc-1-1"}))
    with pytest.raises(SykubeError, match="only 1 of 2 pods run after 300 s") as caught:
        start.in_blocks(cluster_with(server, tmp_path), ["runc"], runs=3, pods=2, margin=0.02)
    assert caught.value.details == "runc-1-1: ImagePullBackOff no such image"
    assert not server.namespace


def test_a_namespace_that_is_there_is_kept(tmp_path: Any) -> None:
    server = Server(namespace=True)
    with pytest.raises(SykubeError, match="is there already") as caught:
        start.in_blocks(cluster_with(server, tmp_path), ["runc"], runs=3, pods=1, margin=0.02)
    assert "delete namespace sykube-bench" in caught.value.resolution
    assert server.namespace


def test_it_is_said_how_long_it_takes(tmp_path: Any) -> None:
    cluster = cluster_with(Server(), tmp_path)
    start.in_blocks(cluster, ["runc"], runs=3, pods=1, margin=0.02)
    # A pod takes a second to run, and another one to end.
    assert cast(RecordingUi, cluster.ui).steps == [
        "Warming up: runc",
        "Block 1 of 3 (about 6.0 s to go)",
        "Block 2 of 3 (about 4.0 s to go)",
        "Block 3 of 3 (about 2.0 s to go)",
    ]
