"""A producer, a broker and a consumer in each place of `sykube bench stream`."""

from __future__ import annotations

import contextlib
import socket
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sykube.bench import delays, messages
from sykube.bench.delays import Arrived
from sykube.bench.messages import BROKER, CONSUMER, PRODUCER, ROLES, Job
from sykube.cluster.commands.bench import image_files, laboratory
from sykube.cluster.commands.bench.image_files import ImageFiles
from sykube.cluster.commands.bench.laboratory import PODS
from sykube.cluster.commands.bench.stream_wanted import (
    ONE_POD,
    SATURATED,
    Wanted,
    is_far,
    is_pods,
    layout_of,
    pod_of,
    runtime_of,
)
from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host.threads import run_in_order
from sykube.image.debian_image import DebianImage
from sykube.image.stream import RECIPE
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node

KIND = "stream"
_LOOPBACK, _ANY = "127.0.0.1", "0.0.0.0"
# Of --sweep: how much faster each run is than the one before it, and the part of its rate at which
# a consumer has not kept up.
_FASTER, _KEPT_UP = 4, 0.95
# Beside the time in which messages are made: of kubectl, and of what waits for the others.
_SLACK_S = 180.0
_WEEK_S = 7 * 24 * 3600.0
_LINES = 10
# For what a broker says last, and for the word that it has ended, once its clients have noticed.
_LAST_WORDS_S, _LOOK_S = 5.0, 0.5


@contextlib.contextmanager
def prepared(
    cluster: Cluster,
    image: DebianImage,
    places: Sequence[str],
    wanted: Wanted,
    cores: Mapping[str, int],
) -> Iterator[Lab]:
    """All places, with a broker in each; nothing is left of them.

    Args:
        cores: the core of each role.
    """
    with laboratory.folder(cluster, KIND) as work, contextlib.ExitStack() as stack:
        files = ImageFiles(cluster, image, work)
        files.unpack(RECIPE.title, places)
        lab = Lab(cluster, files, places, wanted, cores)
        if any(map(is_pods, places)):
            stack.enter_context(image_files.loaded(cluster, lab.nodes(), image))
            api = stack.enter_context(cluster.api())
            stack.enter_context(laboratory.namespace(cluster, api))
            with cluster.ui.step("Starting the pods"):
                lab.start_pods(api)
        stack.enter_context(lab.brokers())
        yield lab


@dataclass
class Lab:
    """What sends messages in each place.

    Attributes:
        cores: the core of each role.
        runs: the delays of each run in each place, in nanoseconds.
    """

    cluster: Cluster
    files: ImageFiles
    places: Sequence[str]
    wanted: Wanted
    cores: Mapping[str, int]
    runs: dict[str, list[array[int]]] = field(default_factory=dict)
    _turn: int = 0
    # Where the broker of a place is reached, and what it has said last.
    _addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    _said: dict[str, deque[str]] = field(default_factory=dict)
    _served: dict[str, Future[None]] = field(default_factory=dict)

    def nodes(self) -> list[Node]:
        """Those that pods run on."""
        asked = [place for place in self.places if is_pods(place)]
        found = {self._node_of(place, role).name for place in asked for role in ROLES}
        return [node for node in self.cluster.nodes if node.name in found]

    def _node_of(self, place: str, role: str) -> Node:
        return self.cluster.nodes[0 if is_far(place, role) else -1]

    def start_pods(self, api: Api) -> None:
        """Start the pods of all places, and wait for them.

        Raises:
            SykubeError: they do not run within two minutes.
        """
        asked = [place for place in self.places if is_pods(place)]
        for place in asked:
            for name in dict.fromkeys(pod_of(place, role) for role in ROLES):
                roles = [role for role in ROLES if pod_of(place, role) == name]
                api.request("POST", PODS, self._pod(place, name, roles))
        found = laboratory.ready(self.cluster, api)
        for place in asked:
            address = found[pod_of(place, BROKER)]["podIP"]
            is_alone = layout_of(place) == ONE_POD
            self._addresses[place] = (_LOOPBACK if is_alone else address, messages.PORT)

    def _pod(self, place: str, name: str, roles: Sequence[str]) -> dict[str, object]:
        """A pod that waits; programs are run in it, but for the broker, which it starts."""
        listens = self._serving(_ANY, messages.PORT)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self._node_of(place, roles[0]).instance,
                "runtimeClassName": runtime_of(place),
                # What is gone in the middle is not there again.
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": role,
                        "image": self.files.image.name,
                        "command": messages.command(role, listens)
                        if role == BROKER
                        else ["sleep", "1000000"],
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    }
                    for role in roles
                ],
                # On the node's disk.
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        }

    @contextlib.contextmanager
    def brokers(self) -> Iterator[None]:
        """Those outside of pods; they have ended at the end."""
        outside = [place for place in self.places if not is_pods(place)]
        stop = threading.Event()
        with ThreadPoolExecutor(max(1, len(outside))) as pool:
            try:
                for place in outside:
                    self._addresses[place] = _LOOPBACK, _free_port()
                    self._said[place] = deque(maxlen=_LINES)
                    self._served[place] = pool.submit(self._serve, place, stop)
                yield
            finally:
                stop.set()

    def _serve(self, place: str, stop: threading.Event) -> None:
        address, port = self._addresses[place]
        said = self._said[place]
        try:
            done = self._run(
                place, BROKER, self._serving(address, port),
                timeout=_WEEK_S, on_line=said.append, stop=stop,
            )  # fmt: skip
        except InterruptedError:
            return
        except SykubeError as error:
            said.append(str(error))
            return
        said.append(f"it has ended with exit code {done}")

    def _serving(self, address: str, port: int) -> Job:
        """What a broker that listens there is asked for."""
        wanted = self.wanted
        return Job(address, port, [self.cores[BROKER]], wanted.broker, wanted.fsync)

    def once(self, place: str) -> dict[str, float]:
        """The figures of one run, and of a sweep.

        Raises:
            SykubeError: a message did not arrive.
        """
        wanted = self.wanted
        arrived = self._send(place, wanted.count, wanted.rate)
        self.runs.setdefault(place, []).append(array("q", arrived.delays))
        found = delays.figures(arrived.delays, wanted.warm_up)
        return {**found, SATURATED: self._saturated(place)} if wanted.sweep else found

    def _saturated(self, place: str) -> float:
        """The messages a second that arrive where more are made than the consumer can take."""
        rate = self.wanted.rate
        while True:
            self.cluster.ui.note(f"{place}, {rate} messages a second")
            arrived = self._send(place, self.wanted.of_sweep(rate), rate).rate
            if arrived < _KEPT_UP * rate:
                return arrived
            rate *= _FASTER

    def _send(self, place: str, count: int, rate: int) -> Arrived:
        """Send messages from the producer to the consumer.

        Raises:
            SykubeError: one did not arrive.
        """
        self._turn += 1
        address, port = self._addresses[place]
        job = Job(
            address, port, [], self.wanted.broker, name=f"run-{self._turn}",
            count=count, size=self.wanted.size, rate=rate,
        )  # fmt: skip
        said: dict[str, list[str]] = {CONSUMER: [], PRODUCER: []}

        def client(role: str) -> Callable[[threading.Event], None]:
            def call(stop: threading.Event) -> None:
                code = self._run(
                    place, role, replace(job, cores=[self.cores[role]]),
                    timeout=count / rate + _SLACK_S,
                    on_line=said[role].append, stop=stop,
                )  # fmt: skip
                if code:
                    raise self._failed(place, said[role])

            return call

        run_in_order({role: ((), client(role)) for role in said})
        return delays.parse("\n".join(said[CONSUMER]), count)

    def _run(
        self,
        place: str,
        role: str,
        job: Job,
        *,
        timeout: float,
        on_line: Callable[[str], None],
        stop: threading.Event,
    ) -> int:
        """Run one of the three to its end; its exit code."""
        program = messages.command(role, job)
        command: Sequence[str | Path] = (
            laboratory.inside(self.cluster, pod_of(place, role), *program, container=role)
            if is_pods(place)
            else self.files.command(place, program)
        )
        done = self.cluster.host.run(
            command, env=self.files.environment(place),
            timeout=timeout, check=False, on_line=on_line, stop=stop,
        )  # fmt: skip
        return done.code

    def _failed(self, place: str, said: Sequence[str]) -> SykubeError:
        """What a client and the broker say of it."""
        if is_pods(place):
            words = self._logged(place)
        else:
            wait([self._served[place]], _LAST_WORDS_S)
            words = [*self._said[place]]
        return SykubeError(
            f"messages did not get through in {place}",
            details="\n".join([*said[-_LINES:], *(f"{BROKER}: {line}" for line in words)]),
            resolution=f"sykube doctor{self.cluster.name_option}",
        )

    def _logged(self, place: str) -> list[str]:
        """What the broker of a pod has written last, and whether it has ended."""
        pod, host = f"{PODS}/{pod_of(place, BROKER)}", self.cluster.host
        deadline = host.monotonic() + _LAST_WORDS_S
        try:
            # The other connection is another thread's.
            with self.cluster.api() as api:
                while not (ended := _ended(api.get(pod)["status"])):
                    if host.monotonic() > deadline:
                        break
                    host.sleep(_LOOK_S)
                log = str(api.get(f"{pod}/log", container=BROKER, tailLines=str(_LINES)))
        except ApiError as error:
            return [str(error)]
        return [*log.splitlines(), *ended]


def _ended(status: Mapping[str, Any]) -> list[str]:
    """Why the broker of a pod has ended; nothing where it has not."""
    return [
        f"it has ended: {each['state']['terminated'].get('reason', '')}"
        for each in status.get("containerStatuses", [])
        if each["name"] == BROKER and "terminated" in each["state"]
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
