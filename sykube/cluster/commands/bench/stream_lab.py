"""A producer, a broker and a consumer in each place of `sykube bench stream`."""

from __future__ import annotations

import contextlib
import socket
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from sykube.bench import delays, messages
from sykube.bench.delays import Arrived
from sykube.bench.messages import BROKER, CONSUMER, PRODUCER, ROLES, Job
from sykube.cluster.commands.bench import image_files, laboratory
from sykube.cluster.commands.bench.contexts import Other
from sykube.cluster.commands.bench.image_files import ImageFiles
from sykube.cluster.commands.bench.laboratory import PODS, Server
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
from sykube.kubernetes.api import ApiError
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
    others: Mapping[str, Other] | None = None,
) -> Iterator[Lab]:
    """All places, with a broker in each; nothing is left of them.

    Args:
        cores: the core of each role.
        others: other clusters, by their contexts.
    """
    with laboratory.folder(cluster, KIND) as work, contextlib.ExitStack() as stack:
        files = ImageFiles(cluster, image, work)
        files.unpack(RECIPE.title, places)
        lab = Lab(cluster, files, places, wanted, cores, others or {})
        for context, other in lab.others.items():
            server = other.server
            stack.enter_context(laboratory.namespace(cluster.host, server, other.kubectl))
            with cluster.ui.step(f"Starting the pods of the context {context}"):
                lab.start_pods(server, other)
        if any(map(lab.is_own, places)):
            stack.enter_context(image_files.loaded(cluster, lab.nodes(), image))
            api = stack.enter_context(cluster.api())
            called = laboratory.kubectl(cluster)
            stack.enter_context(laboratory.namespace(cluster.host, api, called))
            with cluster.ui.step("Starting the pods"):
                lab.start_pods(api)
        stack.enter_context(lab.brokers())
        yield lab


@dataclass
class Lab:
    """What sends messages in each place.

    Attributes:
        cores: the core of each role.
        others: other clusters, by their contexts.
        runs: the delays of each run in each place, in nanoseconds.
    """

    cluster: Cluster
    files: ImageFiles
    places: Sequence[str]
    wanted: Wanted
    cores: Mapping[str, int]
    others: Mapping[str, Other] = field(default_factory=dict)
    runs: dict[str, list[array[int]]] = field(default_factory=dict)
    _turn: int = 0
    # Where the broker of a place is reached, and what it has said last.
    _addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    _said: dict[str, deque[str]] = field(default_factory=dict)
    _served: dict[str, Future[None]] = field(default_factory=dict)

    def is_own(self, place: str) -> bool:
        """Whether it is in pods of sykube's cluster."""
        return is_pods(place) and not self._other(place)

    def _other(self, place: str) -> Other | None:
        """The other cluster whose pods a place is in."""
        return self.others.get(runtime_of(place))

    def nodes(self) -> list[Node]:
        """Those that pods run on."""
        asked = filter(self.is_own, self.places)
        found = {self._node_of(place, role) for place in asked for role in ROLES}
        return [node for node in self.cluster.nodes if node.instance in found]

    def _node_of(self, place: str, role: str) -> str:
        """What the API server knows the node of a pod as."""
        other = self._other(place)
        names = other.nodes if other else [node.instance for node in self.cluster.nodes]
        return names[0 if is_far(place, role) else -1]

    def start_pods(self, api: Server, other: Other | None = None) -> None:
        """Start the pods of all places of a cluster, and wait for them.

        Args:
            other: the cluster, where it is none of sykube's.

        Raises:
            SykubeError: they do not run within two minutes, of another cluster ten; or that cannot
                get their image.
        """
        asked = [place for place in self.places if is_pods(place) and self._other(place) == other]
        for place in asked:
            for name in dict.fromkeys(pod_of(place, role) for role in ROLES):
                roles = [role for role in ROLES if pod_of(place, role) == name]
                api.request("POST", PODS, self._pod(place, name, roles))
        host = self.cluster.host
        found = other.ready(host) if other else laboratory.ready(host, api)
        for place in asked:
            address = found[pod_of(place, BROKER)]["podIP"]
            is_alone = layout_of(place) == ONE_POD
            self._addresses[place] = (_LOOPBACK if is_alone else address, messages.PORT)

    def _pod(self, place: str, name: str, roles: Sequence[str]) -> dict[str, object]:
        """A pod that waits; programs are run in it, but for the broker, which it starts."""
        listens = self._serving(_ANY, messages.PORT)
        other = self._other(place)
        image = other.image if other else self.files.image.name
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self._node_of(place, roles[0]),
                **({} if other else {"runtimeClassName": runtime_of(place)}),
                # What is gone in the middle is not there again.
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": role,
                        "image": image,
                        # As one that is loaded need not be anywhere else, whatever its tag.
                        "imagePullPolicy": "IfNotPresent",
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
        environment = self.files.environment(place)
        if other := self._other(place):
            command = other.inside(pod_of(place, role), *program, container=role)
            environment = other.server.environment
        elif is_pods(place):
            pod = pod_of(place, role)
            command = [*laboratory.inside(self.cluster, pod, *program, container=role)]
        else:
            command = self.files.command(place, program)
        done = self.cluster.host.run(
            command, env=environment,
            timeout=timeout, check=False, on_line=on_line, stop=stop,
        )  # fmt: skip
        return done.code

    def _server(self, place: str) -> AbstractContextManager[Server]:
        if other := self._other(place):
            return contextlib.nullcontext(other.server)
        # Another connection than that of the pods, which is another thread's.
        return self.cluster.api()

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
            resolution=f"{other.kubectl} get nodes"
            if (other := self._other(place))
            else f"sykube doctor{self.cluster.name_option}",
        )

    def _logged(self, place: str) -> list[str]:
        """What the broker of a pod has written last, and whether it has ended."""
        pod, host = f"{PODS}/{pod_of(place, BROKER)}", self.cluster.host
        deadline = host.monotonic() + _LAST_WORDS_S
        try:
            with self._server(place) as api:
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
