"""The logs of nodes, read from the host's side: those of stopped nodes, too."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.node.node import Log, Node
from sykube.ui import Ui

# Named as supervisord's programs are, in the order in which a node starts them.
SERVICES = ("supervisord", "containerd", "keepalived", "kubelet", "gpu-plugin")
_INTERVAL_S = 0.25


@dataclass(frozen=True)
class LogSource:
    """The log of one program in one node."""

    node: str
    service: str
    log: Log


def nodes(host: Host, name: str, ui: Ui) -> dict[str, Node]:
    """The nodes of a cluster whose files are there, by name; its record may be lost."""
    try:
        cluster = lookup.load(host, name, ui)
    except SykubeError:
        cluster = lookup.without_record(host, name, ui)
    return {node.name: node for node in cluster.nodes if node.exists()}


def sources(nodes: Iterable[Node], services: Sequence[str]) -> list[LogSource]:
    """The logs of some nodes, node by node; a program that a node does not have is left out."""
    return [
        LogSource(node.name, service, log)
        for node in nodes
        for service in services
        if (log := node.log(service))
    ]


def follow(
    found: Sequence[LogSource],
    count: int,
    on_line: Callable[[LogSource, str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Hand out the last lines of logs, then every new one; ends only by what `sleep` raises."""
    followed = [(source, source.log.follow(count)) for source in found]
    while True:
        for source, lines in followed:
            for line in lines():
                on_line(source, line)
        sleep(_INTERVAL_S)


def keep(cluster: Cluster) -> None:
    """Copy the nodes' own logs to the log folder, the last failure's only."""
    shutil.rmtree(cluster.paths.node_logs, ignore_errors=True)
    for node in cluster.nodes:
        target = cluster.paths.node_logs / node.name
        with contextlib.suppress(OSError, shutil.Error):
            logs = node.pull("/var/log")
            shutil.copytree(logs / "sykube", target / "sykube")
            shutil.copytree(logs / "pods", target / "pods", symlinks=True)
