"""Requests to a Service, one after the other, and what became of each."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field

from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError

_PAUSE_S = 0.02
_TIMEOUT_S = 10.0
_LOOK_S = 0.2
_WRITE_S = 0.5


@dataclass
class Load:
    """Asks the nodes' port of a Service from this host, always a node that takes part.

    A node that is closed to pods (cordoned) is about to be started anew: this takes another one
    from then on, as a load balancer does, and comes back to it once it is open and answers. While
    the API server is away, it goes by what it knew last.

    Attributes:
        answered: how many requests were answered in full.
        lost: what went wrong with the others, a line each.
        slowest: seconds that the slowest answer took.
        pods: names of those that answered.
        written: names of the ConfigMaps that the API server said it had made meanwhile.
        unwritable_s: seconds of the longest time in which it took none.
    """

    cluster: Cluster
    port: int
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    slowest: float = 0.0
    pods: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    unwritable_s: float = 0.0

    def __post_init__(self) -> None:
        self._open = [node.address for node in self.cluster.nodes]
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=each) for each in (self._look, self._ask, self._write)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        addresses = {node.instance: node.address for node in self.cluster.nodes}
        while not self._ended.is_set():
            try:
                with self.cluster.api() as api:
                    nodes = api.get("/api/v1/nodes")["items"]
                found = [
                    addresses[node["metadata"]["name"]]
                    for node in nodes
                    if not node["spec"].get("unschedulable")
                ]
                self._open = [each for each in found if self._answers(each)] or self._open
            except SykubeError:
                pass
            time.sleep(_LOOK_S)

    def _write(self) -> None:
        number, taken = 0, time.monotonic()
        while not self._ended.is_set():
            number += 1
            name = f"written-{number}"
            metadata = {"name": name, "namespace": "default"}
            try:
                with self.cluster.api() as api:
                    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
                self.written.add(name)
                self.unwritable_s = max(self.unwritable_s, time.monotonic() - taken)
                taken = time.monotonic()
            except SykubeError:
                pass
            time.sleep(_WRITE_S)

    def _answers(self, address: str) -> bool:
        """Whether a node takes part: those that do already are not asked."""
        try:
            return address in self._open or bool(_request(address, self.port))
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self) -> None:
        number = 0
        while not self._ended.is_set():
            places = self._open
            number += 1
            address = places[number % len(places)]
            started = time.monotonic()
            try:
                self.pods.add(_request(address, self.port))
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                moment = time.strftime("%H:%M:%S")
                self.lost.append(f"{moment} {address}: {error!r}")
            self.slowest = max(self.slowest, time.monotonic() - started)
            time.sleep(_PAUSE_S)


def _request(address: str, port: int) -> str:
    """The name of the pod that answers, over a connection of its own."""
    connection = http.client.HTTPConnection(address, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return body.split()[0]
    finally:
        connection.close()
