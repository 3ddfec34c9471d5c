"""The logs of nodes, read from the host's side: those of stopped nodes, too."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from sykube.cluster.model import members
from sykube.cluster.model.cluster import Cluster
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths

# Named as supervisord's programs are, in the order in which a node starts them.
SERVICES = ("supervisord", "containerd", "keepalived", "kubelet")
_INTERVAL_S = 0.25
_BLOCK = 65536


@dataclass(frozen=True)
class Source:
    """The log of one program in one node; supervisord keeps older parts as NAME.log.1, .2 …"""

    node: str
    service: str
    path: Path

    def parts(self) -> list[Path]:
        """Its files, the oldest first."""
        older = [
            path
            for path in self.path.parent.glob(f"{self.path.name}.*")
            if re.fullmatch(r"\.[0-9]+", path.suffix)
        ]
        older.sort(key=lambda path: -int(path.suffix[1:]))
        return [*older, *([self.path] if self.path.exists() else [])]


def node_folders(host: Host, name: str) -> dict[str, Path]:
    """The folders of a cluster's nodes by node, as found on the host: its record may be lost."""
    prefix = f"{name}-"
    nodes = ClusterPaths(host, name).root / "nodes"
    found = {
        folder.name.removeprefix(prefix): folder
        for folder in nodes.glob(f"{prefix}*")
        if members.is_node(folder.name.removeprefix(prefix))
    }
    return {node: found[node] for node in members.order(list(found))}


def sources(host: Host, name: str, nodes: Sequence[str], services: Sequence[str]) -> list[Source]:
    """The logs of some nodes, node by node; a program that a node does not have is left out."""
    folders = node_folders(host, name)
    wanted = [
        Source(node, service, folders[node] / "log" / "sykube" / f"{service}.log")
        for node in nodes
        if node in folders
        for service in services
    ]
    return [source for source in wanted if source.parts()]


def read(source: Source, count: int | None = None) -> Iterator[str]:
    """The lines of a log, of its older files first; with `count`, the last so many."""
    if count is None:
        for path in source.parts():
            yield from _lines(path)
        return
    kept: deque[str] = deque(maxlen=count)
    for path in source.parts():
        kept.extend(_lines(path))
    yield from kept


def follow(
    found: Sequence[Source],
    count: int,
    on_line: Callable[[Source, str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Hand out the last lines of logs, then every new one; ends only by what `sleep` raises.

    A log that is rotated is read to its end, then from the start of its new file.
    """
    followers = []
    for source in found:
        follower = _Follower(source.path)
        last: deque[str] = deque(maxlen=count)
        for path in source.parts():
            # The newest is read by who goes on with it: nothing can come in between.
            last.extend(follower.lines() if path == source.path else _lines(path))
        for line in last:
            on_line(source, line)
        followers.append((source, follower))
    while True:
        for source, follower in followers:
            for line in follower.lines():
                on_line(source, line)
        sleep(_INTERVAL_S)


class _Follower:
    """What is new in a file that another process writes, rotates or empties."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedReader | None = None
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """The finished lines since the last call."""
        yield from self._read()
        if self._replaced():
            # The last words may have come between the two looks.
            yield from self._read()
            if self._rest:
                yield self._rest.decode(errors="replace")
            if self._file:
                self._file.close()
            self._file, self._rest = None, b""
            yield from self._read()

    def _read(self) -> Iterator[str]:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except OSError:
                return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
        while block := self._file.read(_BLOCK):
            *whole, self._rest = (self._rest + block).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except OSError:
            return False


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\r\n").decode(errors="replace")
    except OSError:
        # Rotated away in this moment.
        return


def keep(cluster: Cluster) -> None:
    """Copy the nodes' own logs to the log folder, the last failure's only."""
    shutil.rmtree(cluster.paths.node_logs, ignore_errors=True)
    for node in cluster.nodes:
        target = cluster.paths.node_logs / node.name
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(node.folder / "log" / "sykube", target / "sykube")
            shutil.copytree(node.folder / "log" / "pods", target / "pods", symlinks=True)
