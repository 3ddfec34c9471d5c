"""How fast pods talk to each other, beside two processes of this host."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sykube.bench import wire
from sykube.bench.results import Result
from sykube.cluster.commands.bench import laboratory
from sykube.cluster.commands.bench.laboratory import NAMESPACE, PODS
from sykube.cluster.model.cluster import Cluster
from sykube.host.host import Host
from sykube.kubernetes.api import Api
from sykube.node.node import Node
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
_PORTS = (wire.ECHO, wire.SINK, wire.DOOR)
_SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services"
_CLIENT, _NEAR, _FAR = "client", "near", "far"
_ASKING_S = 300.0


def measure(
    host: Host, name: str, ui: Ui, *, runs: int, seconds: float, margin: float, anyway: bool
) -> Result:
    """Send bytes between pods, and from this host, in blocks.

    Args:
        runs: blocks.
        seconds: of each measurement of throughput and of connections.
        margin: what counts as equal, as a part of 1.
        anyway: measure on a busy machine, too.

    Raises:
        HostError: the machine is busy.
        SykubeError: the namespace is there already, pods do not start, or no connection is made.
    """
    with (
        laboratory.quiet(host, name, ui, anyway=anyway) as (cluster, machine),
        cluster.api() as api,
        laboratory.namespace(cluster.host, api, laboratory.kubectl(cluster)),
    ):
        lab = _Lab(cluster, api, seconds)
        with ui.step("Starting the pods"):
            lab.start()
        measures = laboratory.in_blocks(
            cluster, lab.places, MEASURES, lab.once, runs=runs, margin=margin
        )
        return laboratory.result(
            cluster, KIND, machine, measures,
            base=LOOPBACK, margin=margin, asked={"runs": runs, "seconds": seconds},
            programs=[cluster.state.spec.runtime],
        )  # fmt: skip


class _Lab:
    """A pod that asks, and one on its node and one on another that answer."""

    def __init__(self, cluster: Cluster, api: Api, seconds: float) -> None:
        self._cluster, self._api, self._seconds = cluster, api, seconds
        self._addresses: dict[str, str] = {}
        self._ports: dict[str, Sequence[int]] = {}

    @property
    def places(self) -> list[str]:
        two = [_TWO_NODES] if len(self._cluster.nodes) > 1 else []
        return [LOOPBACK, _ONE_NODE, *two, _CLUSTER_IP, _NODE_PORT]

    def start(self) -> None:
        """Start the pods and their Service.

        Raises:
            SykubeError: they do not run within two minutes.
        """
        here, there = self._cluster.nodes[0], self._cluster.nodes[-1]
        serving = ["python3", "-c", wire.program(), "serve"]
        self._create(_CLIENT, here, ["sleep", "100000"])
        self._create(_NEAR, here, serving)
        self._create(_FAR, there, serving)
        ports = [{"name": f"p{port}", "port": port} for port in _PORTS]
        service = self._api.request(
            "POST",
            _SERVICE,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": _FAR},
                "spec": {"type": "NodePort", "selector": {"app": _FAR}, "ports": ports},
            },
        )
        found = laboratory.ready(self._cluster.host, self._api)
        self._addresses = {
            _ONE_NODE: found[_NEAR]["podIP"],
            _TWO_NODES: found[_FAR]["podIP"],
            _CLUSTER_IP: service["spec"]["clusterIP"],
            _NODE_PORT: there.address,
        }
        node_ports = [each["nodePort"] for each in service["spec"]["ports"]]
        self._ports = dict.fromkeys(self._addresses, _PORTS) | {_NODE_PORT: node_ports}

    def once(self, place: str) -> Mapping[str, float]:
        """What MEASURES names.

        Raises:
            SykubeError: no connection is made.
        """
        host, seconds = self._cluster.host, str(self._seconds)
        python = [sys.executable, "-c", wire.program()]
        if place == LOOPBACK:
            command = [*python, "alone", seconds]
        else:
            ports = map(str, self._ports[place])
            command = [*python, "ask", self._addresses[place], seconds, *ports]
            if place != _NODE_PORT:
                command = laboratory.inside(self._cluster, _CLIENT, "python3", *command[1:])
        said = host.run(command, timeout=_ASKING_S).stdout
        figures: dict[str, float] = json.loads(said)
        return figures

    def _create(self, name: str, node: Node, command: Sequence[str]) -> None:
        container: dict[str, Any] = {
            "name": "main",
            "image": self._cluster.image.name_of("system"),
            "command": [*command],
        }
        if name != _CLIENT:
            probe = {"tcpSocket": {"port": wire.DOOR}, "periodSeconds": 1}
            container["readinessProbe"] = probe
        self._api.request(
            "POST",
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": {
                    "nodeName": node.instance,
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                },
            },
        )
