"""A cluster as the steps see it: what was asked for, its state, its nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sykube.cluster.model import members, pod_network
from sykube.cluster.model.state import State
from sykube.errors import ExitCode, SykubeError
from sykube.host import proxies
from sykube.host.host import Host
from sykube.host.paths import CLUSTER_VARIABLE, ClusterPaths
from sykube.image.node_image import NodeImage
from sykube.kubernetes import readiness
from sykube.kubernetes.api import API_PORT, Api, Credentials
from sykube.network.bridge import Bridge
from sykube.network.ports import ANY, PortMap
from sykube.network.rules import Wiring
from sykube.node.engine import CommandLineEngine, Engine
from sykube.node.local import LocalNode
from sykube.node.node import Node
from sykube.ui import Ui

if TYPE_CHECKING:
    from sykube.image.versions import Minor

# Nodes are worked on at the same time, but a host has only so many cores.
_PARALLEL = 8
# Of the cluster's own names.
DOMAIN = "cluster.local"
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass
class Cluster:
    """One cluster. `engine` can be replaced by a fake one in tests."""

    host: Host
    state: State
    ui: Ui
    engine: Engine

    @classmethod
    def of(cls, host: Host, state: State, ui: Ui) -> Cluster:
        """The cluster of a state, with the engine that the state names."""
        files = ClusterPaths(host, state.spec.name)
        kind = CommandLineEngine
        if host.grants.rootless:
            # Not above: root needs none of it.
            from sykube.rootless.engine import RootlessEngine

            kind = RootlessEngine
        engine = kind(
            host, Path(state.engine), files.engine / "apptainer.conf", state.engine_environment
        )
        return cls(host, state, ui, engine)

    @property
    def name(self) -> str:
        return self.state.spec.name

    @property
    def paths(self) -> ClusterPaths:
        return ClusterPaths(self.host, self.name)

    @property
    def image(self) -> NodeImage:
        return NodeImage(self.state.image, Path(self.state.image_folder))

    def image_of(self, node: Node) -> NodeImage:
        """What a node is started from: while an update is under way, not all from the same."""
        update = self.state.update
        return update.of_node(node.name).image if update else self.image

    @property
    def allows_cgroup_v1(self) -> bool:
        """Whether the user lets kubelets run on cgroup v1 that would refuse it."""
        update = self.state.update
        return self.state.spec.allow_cgroup_v1 or bool(update and update.allow_cgroup_v1)

    @property
    def minor(self) -> Minor:
        """The minor version of its Kubernetes.

        Raises:
            UsageError: this sykube does not know it.
        """
        # Not above: most commands need none of the tables of versions.
        from sykube.image import versions

        return versions.minor(self.state.versions["kubernetes"])

    @property
    def bridge(self) -> Bridge:
        return Bridge(self.host, self.name)

    @property
    def wiring(self) -> Wiring:
        """What the bridge and its rules are made for."""
        return Wiring(
            self.state.subnets,
            self.state.loopback_resolver,
            self.endpoint_address,
            tuple((port, self._address_of(port)) for port in self._arrivals()),
            tuple((port.protocol, port.address, port.host_port) for port in self._ports()),
        )

    def _ports(self) -> list[PortMap]:
        """The ports of the host that lead to nodes, that of the API server where it has one."""
        api = PortMap("127.0.0.1", self.state.api_port, API_PORT)
        return [*self.state.ports, *([api] if self.state.api_port else [])]

    def _arrivals(self) -> list[PortMap]:
        """The same as they are to be led on from here.

        Where what comes to them arrives at another address, also from there.
        """
        ports, arrival = self._ports(), self.host.network.arrival
        away = [port for port in ports if arrival and port.address != ANY]
        return [*ports, *(replace(port, address=arrival) for port in away)]

    def _address_of(self, port: PortMap) -> str:
        return self.node(port.node).address if port.node else self.endpoint_address

    @property
    def pod_network(self) -> pod_network.PodNetwork:
        return pod_network.from_setting(self.state.spec.pod_network)

    @property
    def network_name(self) -> str:
        """Name of the CNI configuration that the nodes' instances use."""
        return self.bridge.name

    @property
    def network_dir(self) -> Path:
        return Path(self.state.spec.network_dir or self.paths.engine / "network")

    @property
    def endpoint_address(self) -> str:
        """The control plane's own address, which can move from node to node."""
        return str(self.state.subnets.nodes[-2])

    @property
    def endpoint(self) -> str:
        return f"{self.endpoint_address}:{API_PORT}"

    @property
    def nodes(self) -> list[Node]:
        """The control planes, then the workers."""
        return [self.node(name) for name in self.state.nodes]

    @property
    def master(self) -> Node:
        """The first control plane, which kubeadm init ran on."""
        return self.node(members.MASTER)

    @property
    def control_planes(self) -> list[Node]:
        return [node for node in self.nodes if node.is_control_plane]

    @property
    def workers(self) -> list[Node]:
        return [node for node in self.nodes if not node.is_control_plane]

    def running(self) -> list[Node]:
        """The nodes that run, frozen ones among them."""
        return [node for node in self.nodes if node.is_running()]

    def api_of(self, node: Node) -> Api:
        """A client of one control plane's own API server."""
        credentials = Credentials.read(self.paths.kubeconfig)
        return Api(self.host, replace(credentials, server=f"https://{node.address}:{API_PORT}"))

    def running_control_plane(self, without: Collection[Node] = ()) -> Node:
        """A control plane that runs, the first one where it does.

        Args:
            without: those that it may not be.

        Raises:
            SykubeError: none does (STOPPED).
        """
        for node in self.control_planes:
            if node not in without and node.is_running():
                return node
        raise SykubeError(
            f"no control plane of the cluster {self.name} runs",
            resolution=f"sykube start{self.name_option}",
            exit_code=ExitCode.STOPPED,
        )

    @property
    def name_option(self) -> str:
        """How commands in messages name this cluster: nothing for the default one."""
        return "" if self.name == "sykube" else f" --name {self.name}"

    def dns_problem(self, node: Node) -> str:
        """What is wrong with the cluster DNS as seen from a node."""
        # A name that every cluster has.
        name = f"kubernetes.default.svc.{DOMAIN}"
        return readiness.dns_answers(node.exchange, self.state.subnets.dns, name)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The given variables, with those that let a program talk to it as administrator."""
        # Manifests of the world may need a proxy, the cluster's own API server has none.
        found = proxies.with_exception(environ, self.endpoint_address)
        return {**found, "KUBECONFIG": str(self.paths.kubeconfig), CLUSTER_VARIABLE: self.name}

    def save(self) -> None:
        """Write the state."""
        self.state.save(self.paths.state)

    def api(self) -> Api:
        """A client with the cluster's admin credentials; a context manager."""
        credentials = Credentials.read(self.paths.kubeconfig)
        if self.state.api_port:
            # The user's way to it is not needed here.
            credentials = replace(credentials, server=f"https://{self.endpoint}")
        return Api(self.host, credentials)

    def node(self, name: str) -> Node:
        """The node of that name, whether it is there or not."""
        instance, place = f"{self.name}-{name}", members.place(name)
        return LocalNode(
            name,
            instance,
            self.state.subnets.node_address(place),
            self.state.subnets.pod_subnet(place),
            members.is_control_plane(name),
            self.host,
            self.paths.node(instance),
            self.engine,
        )


def on_each(nodes: Sequence[_T], action: Callable[[_T], _R]) -> list[_R]:
    """Do something for several nodes at once; return when all have ended.

    Returns:
        What it returned, in the order of the nodes.

    Raises:
        The first error, in the order of the nodes, after all of them have ended.
    """
    if len(nodes) < 2:
        return [action(node) for node in nodes]
    # Not above: many commands ask one node, or none.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(_PARALLEL, len(nodes))) as pool:
        futures = [pool.submit(action, node) for node in nodes]
    return [future.result() for future in futures]
