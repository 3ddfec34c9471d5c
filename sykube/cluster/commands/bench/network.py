"""How fast pods talk to each other, beside two processes of this host."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube.bench import wire
from sykube.bench.machine import two_cores
from sykube.bench.results import Result
from sykube.cluster.commands.bench import contexts, laboratory
from sykube.cluster.commands.bench.contexts import Other
from sykube.cluster.commands.bench.laboratory import NAMESPACE, PODS, Server
from sykube.cluster.model.cluster import Cluster
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.image.stream import RECIPE
from sykube.ui import Ui

KIND = "network"
LOOPBACK = "loopback"
_ONE_NODE, _TWO_NODES = "pods of one node", "pods of two nodes"
_CLUSTER_IP, _NODE_PORT = "pod to ClusterIP", "host to NodePort"
MEASURES = {
    "throughput": ("throughput of a connection", "MB/s"),
    "round_trip": ("round trip of a byte (median)", "µs"),
    "connections": ("new connections", "a second"),
}
_SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services"
_CLIENT, _NEAR, _FAR = "client", "near", "far"
_ASKING_S = 300.0


def measure(
    host: Host,
    name: str,
    ui: Ui,
    *,
    runs: int,
    seconds: float,
    margin: float,
    anyway: bool,
    others: Sequence[str] = (),
    image: str = "",
) -> Result:
    """Send bytes between pods, and from this host, in blocks.

    Args:
        runs: blocks.
        seconds: of each measurement of throughput and of connections.
        margin: what counts as equal, as a part of 1.
        anyway: measure on a busy machine, too.
        others: contexts of the user's kubeconfig: further clusters.
        image: what pods of these run; it has python3. Empty for that of `stream`.

    Raises:
        UsageError: there is an image without a context, or no such context.
        HostError: the machine is busy.
        SykubeError: the namespace is there already, pods do not start, no connection is made, or
            another cluster does not answer, or allow it.
    """
    if image and not others:
        raise UsageError("--image is of pods of --context", resolution="Give both, or none.")
    with (
        laboratory.quiet(host, name, ui, anyway=anyway) as (cluster, machine),
        ExitStack() as stack,
    ):
        found = contexts.found(cluster, others, image or RECIPE.name(host), (), services=True)
        lab = _Lab(cluster, seconds, *two_cores())
        for context, other in found.items():
            server, kubectl = other.server, other.kubectl
            stack.enter_context(laboratory.namespace(host, server, kubectl))
            with ui.step(f"Starting the pods of the context {context}"):
                lab.start_other(other)
        api = stack.enter_context(cluster.api())
        stack.enter_context(laboratory.namespace(host, api, laboratory.kubectl(cluster)))
        with ui.step("Starting the pods"):
            lab.start(api)
        measures = laboratory.in_blocks(
            cluster, lab.places, MEASURES, lab.once, runs=runs, margin=margin
        )
        return laboratory.result(
            cluster, KIND, machine, measures,
            base=LOOPBACK, margin=margin, asked={"runs": runs, "seconds": seconds},
            programs=[cluster.state.spec.runtime], images=contexts.versions(found),
            pinned=lab.pinned,
        )  # fmt: skip


@dataclass(frozen=True)
class _Way:
    """How a place is reached.

    Attributes:
        inside: the command line of a program in the pod that asks; None where this host does.
        environment: variables of it.
    """

    address: str
    ports: Sequence[int]
    inside: Callable[..., Sequence[str | Path]] | None
    environment: Mapping[str, str] | None = None


class _Lab:
    """In each cluster a pod that asks, and one on its node and one on another that answer.

    Args:
        seconds: of each measurement of throughput and of connections.
        asking: the core of whoever asks, wherever that is.
        serving: that of whoever answers.
    """

    def __init__(self, cluster: Cluster, seconds: float, asking: int, serving: int) -> None:
        self._cluster, self._seconds = cluster, seconds
        self._asking, self._serving = asking, serving
        self._own: dict[str, _Way] = {}
        self._others: dict[str, _Way] = {}

    @property
    def places(self) -> list[str]:
        return [LOOPBACK, *self._own, *self._others]

    @property
    def pinned(self) -> str:
        """For people."""
        return (
            f"pinned alike in every place: who asks to core {self._asking} and who answers to "
            f"core {self._serving}"
        )

    def start(self, api: Server) -> None:
        """Start the pods of the cluster, and their Service.

        Raises:
            SykubeError: they do not run within two minutes.
        """
        cluster = self._cluster
        nodes = [node.instance for node in cluster.nodes]
        ports = _create(api, nodes, cluster.image.name_of("system"), self._serving)
        addresses = _addresses(api, nodes, laboratory.ready(cluster.host, api))
        inside = functools.partial(laboratory.inside, cluster, _CLIENT)
        self._own = {place: _Way(at, wire.PORTS, inside) for place, at in addresses.items()}
        self._own[_NODE_PORT] = _Way(cluster.nodes[-1].address, ports, None)

    def start_other(self, other: Other) -> None:
        """Start the pods of another cluster, and their Service.

        Raises:
            SykubeError: they do not run within ten minutes, or cannot get their image.
        """
        server = other.server
        _create(server, other.nodes, other.image, self._serving)
        addresses = _addresses(server, other.nodes, other.ready(self._cluster.host))
        inside = functools.partial(other.inside, _CLIENT)
        for place, at in addresses.items():
            way = _Way(at, wire.PORTS, inside, server.environment)
            self._others[f"{server.context}: {place}"] = way

    def once(self, place: str) -> Mapping[str, float]:
        """What MEASURES names.

        Raises:
            SykubeError: no connection is made.
        """
        way = (self._own | self._others).get(place)
        if way:
            asking = wire.asking(self._asking, way.address, self._seconds, way.ports)
        else:
            asking = wire.asking_itself(self._asking, self._serving, self._seconds)
        inside = way.inside if way else None
        command = inside("python3", *asking) if inside else [sys.executable, *asking]
        environment = way.environment if way else None
        said = self._cluster.host.run(command, env=environment, timeout=_ASKING_S).stdout
        figures: dict[str, float] = json.loads(said)
        return figures


def _create(api: Server, nodes: Sequence[str], image: str, core: int) -> list[int]:
    """Make the pods and their Service; the ports by which nodes have that.

    Args:
        core: of those that answer.
    """
    serving = ["python3", *wire.serving(core)]
    api.request("POST", PODS, _pod(_CLIENT, nodes[0], image, ["sleep", "100000"]))
    api.request("POST", PODS, _pod(_NEAR, nodes[0], image, serving))
    api.request("POST", PODS, _pod(_FAR, nodes[-1], image, serving))
    ports = [{"name": f"p{port}", "port": port} for port in wire.PORTS]
    service = api.request(
        "POST",
        _SERVICE,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _FAR},
            "spec": {"type": "NodePort", "selector": {"app": _FAR}, "ports": ports},
        },
    )
    return [int(each["nodePort"]) for each in service["spec"]["ports"]]


def _addresses(
    api: Server, nodes: Sequence[str], pods: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Where the pod that asks reaches the others, by the places that this is.

    Args:
        pods: the status of each, by its name.
    """
    service = api.get(f"{_SERVICE}/{_FAR}")
    return {
        _ONE_NODE: pods[_NEAR]["podIP"],
        **({_TWO_NODES: pods[_FAR]["podIP"]} if len(nodes) > 1 else {}),
        _CLUSTER_IP: service["spec"]["clusterIP"],
    }


def _pod(name: str, node: str, image: str, command: Sequence[str]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*command],
    }
    if name != _CLIENT:
        probe = {"tcpSocket": {"port": wire.DOOR}, "periodSeconds": 1}
        container["readinessProbe"] = probe
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    }
