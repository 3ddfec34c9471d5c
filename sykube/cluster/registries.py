"""The registries of a cluster: what its nodes know of mirrors, credentials and its own registry."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from sykube.addons.registry import SERVICE
from sykube.cluster import ports
from sykube.cluster.cluster import DOMAIN, Cluster
from sykube.cluster.spec import ClusterSpec
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host import lock
from sykube.host.files import write_atomically
from sykube.image import registries
from sykube.image.registries import Login, Mirror
from sykube.kubernetes.api import Api
from sykube.kubernetes.kubeconfig import Owner
from sykube.network.ports import PortMap
from sykube.node.node import Node
from sykube.ui import Ui

_CONNECT_TIMEOUT_S = 2.0
_CERTS, _AUTH = "certs.d", "registry-auth.toml"
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


def tell(cluster: Cluster, node: Node) -> None:
    """Write what a node's containerd knows of registries; it looks at each pull.

    But for credentials, which it reads when it starts.
    """
    wanted = _hosts(cluster)
    folder = node.config / _CERTS
    for old in folder.iterdir() if folder.is_dir() else []:
        if old.name not in wanted:
            shutil.rmtree(old)
    for host, text in wanted.items():
        (folder / host).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / host / "hosts.toml", text)
    # A restored cluster has them in its nodes alone.
    for source in (cluster.paths.root / _AUTH, cluster.master.config / _AUTH):
        if source.exists():
            write_atomically(node.config / _AUTH, source.read_text(), mode=0o600)
            return


def expose(cluster: Cluster, api: Api) -> str:
    """Let the cluster's own registry be reached from the host and by its nodes.

    Returns:
        Its address on the host.

    Raises:
        SykubeError: all ports that it may have are taken.
    """
    node_port = int(api.get(SERVICE)["spec"]["ports"][0]["nodePort"])
    with lock.host_settings():
        known = cluster.state.registry
        port = PortMap.parse(known) if known else None
        if port is None or port.node_port != node_port:
            _hide(cluster)
            port = _free(cluster, node_port)
        if port not in cluster.state.ports:
            cluster.state.ports = [*cluster.state.ports, port]
        cluster.state.registry = str(port)
        cluster.save()
        cluster.bridge.create(cluster.wiring)
    for node in cluster.nodes:
        tell(cluster, node)
    return f"{port.address}:{port.host_port}"


def problem(cluster: Cluster) -> str:
    """What keeps the host from reaching the cluster's own registry, or nothing."""
    port = PortMap.parse(cluster.state.registry)
    try:
        socket.create_connection((port.address, port.host_port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{port.address}:{port.host_port} does not answer: {error}"
    return ""


def conceal(cluster: Cluster) -> None:
    """Undo `expose`."""
    with lock.host_settings():
        _hide(cluster)
        cluster.save()
        cluster.bridge.create(cluster.wiring)
    for node in cluster.nodes:
        tell(cluster, node)


def _hide(cluster: Cluster) -> None:
    known = cluster.state.registry
    cluster.state.ports = [port for port in cluster.state.ports if str(port) != known]
    cluster.state.registry = ""


def _free(cluster: Cluster, node_port: int) -> PortMap:
    for number in _HOST_PORTS:
        wanted = PortMap("127.0.0.1", number, node_port)
        try:
            ports.check(cluster.state, wanted)
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
    if cluster.state.registry:
        port = PortMap.parse(cluster.state.registry)
        place = registries.elsewhere(f"http://{cluster.endpoint_address}:{port.node_port}")
        names = (f"127.0.0.1:{port.host_port}", f"localhost:{port.host_port}")
        found |= dict.fromkeys((*names, f"registry.kube-system.svc.{DOMAIN}:5000"), place)
    return found
