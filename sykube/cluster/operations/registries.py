"""The registries of a cluster: what its nodes know of mirrors, credentials and its own registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sykube.cluster.model.cluster import DOMAIN, Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations.ports import require_free
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host import lock
from sykube.host.files import write_atomically
from sykube.host.owner import Owner
from sykube.image import registries
from sykube.image.registries import Login, Mirror
from sykube.network import ports
from sykube.network.ports import PortMap
from sykube.node.node import Node
from sykube.ui import Ui

_AUTH = "registry-auth.toml"
_CERTS, _AUTH_IN_NODE = "/etc/sykube/certs.d", f"/etc/sykube/{_AUTH}"
# Docker's own registry listens on the first; the next are for further clusters.
_HOST_PORTS = range(5000, 5100)


def logins(spec: ClusterSpec, ui: Ui) -> list[Login]:
    """The credentials that the nodes shall have.

    Of the user's own Docker configuration those alone that --registry-mirror asks for.

    Raises:
        UsageError: the file of --registry-auth cannot be used.
    """
    if spec.registry_auth:
        return registries.read_logins(Path(spec.registry_auth))
    wanted = {host for text in spec.registry_mirrors for host in Mirror.parse(text).hosts}
    file = Owner.of_caller().home / ".docker" / "config.json"
    if not wanted or not file.exists():
        return []
    try:
        return registries.read_logins(file, wanted)
    except UsageError as error:
        ui.warn(f"{error.brief}: {error.details}")
        return []


def keep(cluster: Cluster, found: list[Login]) -> None:
    """Put credentials into the cluster's folder, where nodes get them from."""
    if found:
        text = registries.auth_toml(found, cluster.state.versions["containerd"])
        write_atomically(cluster.paths.root / _AUTH, text, mode=0o600)


def configure(cluster: Cluster, node: Node) -> None:
    """Write what a node's containerd knows of registries; it looks at each pull.

    But for credentials, which it reads when it starts.
    """
    wanted = _hosts(cluster)
    folder = node.pull(_CERTS)
    for old in folder.iterdir() if folder.is_dir() else []:
        if old.name not in wanted:
            node.discard(f"{_CERTS}/{old.name}")
    for host, text in wanted.items():
        node.write(f"{_CERTS}/{host}/hosts.toml", text)
    # A restored cluster has them in its nodes alone.
    for source in (cluster.paths.root / _AUTH, cluster.master.pull(_AUTH_IN_NODE)):
        if source.exists():
            node.write(_AUTH_IN_NODE, source.read_text(encoding="utf-8"), mode="0600")
            return


@dataclass(frozen=True)
class RegistryPort:
    """The port of the host that leads to a cluster's own registry; see sykube.addons.addon."""

    cluster: Cluster

    def open(self, node_port: int) -> None:
        """Let the host and the nodes reach the registry.

        Raises:
            SykubeError: all ports that it may have are taken.
        """
        state = self.cluster.state
        with lock.host_settings(self.cluster.host):
            port = state.registry
            if port is None or port.node_port != node_port:
                self._forget()
                port = _free(self.cluster, node_port)
            if port not in state.ports:
                state.ports = [*state.ports, port]
            state.registry = port
            self._apply()
        place = f"{port.address}:{port.host_port}"
        self.cluster.ui.say(f"The registry is at {place}, for this host and for the nodes.")

    def close(self) -> None:
        with lock.host_settings(self.cluster.host):
            self._forget()
            self._apply()

    def is_open(self) -> bool:
        return self.cluster.state.registry in self.cluster.state.ports

    def problem(self) -> str:
        port = self.cluster.state.registry
        if port is None:
            return "no port of this host leads to the registry"
        return ports.silence(self.cluster.host, port.address, port.host_port)

    def _forget(self) -> None:
        state = self.cluster.state
        state.ports = [port for port in state.ports if port != state.registry]
        state.registry = None

    def _apply(self) -> None:
        self.cluster.save()
        self.cluster.bridge.create(self.cluster.wiring)
        for node in self.cluster.nodes:
            configure(self.cluster, node)


def _free(cluster: Cluster, node_port: int) -> PortMap:
    for number in _HOST_PORTS:
        wanted = PortMap("127.0.0.1", number, node_port)
        try:
            require_free(cluster.host, cluster.state, wanted)
        except HostError:
            continue
        return wanted
    raise SykubeError(
        f"the ports {_HOST_PORTS[0]} to {_HOST_PORTS[-1]} of this host are all in use",
        resolution="Free one of them for the registry.",
    )


def _hosts(cluster: Cluster) -> dict[str, str]:
    """hosts.toml of each registry that is not where its name says, or not only there."""
    found = registries.mirrored(Mirror.parse(text) for text in cluster.state.spec.registry_mirrors)
    if port := cluster.state.registry:
        place = registries.elsewhere(f"http://{cluster.endpoint_address}:{port.node_port}")
        names = (f"127.0.0.1:{port.host_port}", f"localhost:{port.host_port}")
        found |= dict.fromkeys((*names, f"registry.kube-system.svc.{DOMAIN}:5000"), place)
    return found
