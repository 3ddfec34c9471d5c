"""A node: one machine of a cluster, and all that sykube asks of it.

`local.LocalNode` is an instance of this host; it is the only code that knows a node's folder,
overlay, cgroups and processes. A node of another kind (on another machine, without root) is a
second class, which `Cluster.node` makes. It must give what has no body here; mypy names what is
missing. `read`, `write` and `discard` come of `run`; `push` and `pull` move files and folders, and
may copy them. Calls for several nodes are made side by side, from threads.

What is not asked of a node, and is of this host alone: the bridge that `link` is on, the volumes
and mounts of `binds`, and the cluster's folder, which snapshots archive as a whole.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sykube.errors import SykubeError
from sykube.host.run import Completed
from sykube.node.limits import Limits


@dataclass(frozen=True)
class Usage:
    """What the processes of a node use; None where the kernel does not count it.

    Attributes:
        cpu: processor time since the node's cgroups were made, in seconds.
        memory: working set in bytes, as kubelets count it: without files that were not read lately.
    """

    cpu: float | None
    memory: int | None


class Log(Protocol):
    """The log of one program in one node."""

    def read(self, count: int | None = None) -> Iterator[str]:
        """Its lines, of older files first; with `count`, the last so many."""

    def follow(self, count: int) -> Callable[[], Iterator[str]]:
        """What returns the lines since its last call; at the first, the last so many."""


@dataclass(frozen=True)
class Node(Protocol):
    """A node of a cluster. What runs something in it raises SykubeError where it does not run.

    Attributes:
        name: what users call it: master, master2 …, node1, node2 …
        instance: its host name and its name in Kubernetes.
        address: its fixed address on the cluster's bridge.
        pod_subnet: the addresses of its pods.
    """

    name: str
    instance: str
    address: str
    pod_subnet: str
    is_control_plane: bool

    # Its life: prepare, start, kill, start …, remove. Each may be called again after it failed.

    def exists(self) -> bool:
        """Whether its files are there."""

    def prepare(self, files: Mapping[str, str], limits: Limits) -> None:
        """Make its folders and cgroups, and write what it finds in /etc/sykube, by name.

        It may run: then it sees the new files, and has the new limits.
        """

    def restore(self, folder: Path) -> None:
        """Move files of a saved node into the place of its own; it does not run."""

    def fit(self, fingerprint: str, present: str) -> None:
        """Make its files fit the image that it is to be started from; see image_files.fit."""

    def previous_containerd(self) -> Path:
        """A folder of this host: /var/lib/containerd before `fit`; it may not be there."""

    def forget_previous(self) -> None:
        """Remove what `fit` put aside: there is no way back from here."""

    def start(
        self,
        image: Path,
        *,
        binds: Sequence[tuple[Path, str]],
        network: str,
        prefix_length: int,
        gateway: str,
        extra: tuple[str, ...],
    ) -> None:
        """Start it; it boots from then on.

        Args:
            image: its node image, a SIF.
            binds: (path on its host, path in the node) pairs beside its own; each must exist.
            network: name of the CNI configuration that connects it.
            prefix_length: of its address.
            extra: further options of the engine, as the user gave them.
        """

    def wait_booted(self) -> None:
        """Wait until its supervisord answers.

        Raises:
            SykubeError: it does not within 3 minutes; holds the end of the node's first log.
        """

    def kill(self) -> None:
        """End it at once, with all that runs in it; its files stay. None that runs is no error."""

    def remove(self) -> None:
        """Kill it and remove all of it."""

    def freeze(self, *, frozen: bool) -> None:
        """Stop or go on with every process of it, where it has any."""

    def is_running(self) -> bool:
        """Whether it was started and has not ended; a frozen one runs, too."""

    def is_frozen(self) -> bool:
        """Whether its processes are stopped."""

    # Commands and files.

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        """Run a command in the node; see sykube.host.run.run."""

    def exec(self, argv: Sequence[str]) -> None:
        """Become a command that runs in the node, with this process's terminal."""

    def push(self, source: Path | bytes, path: str, *, shared: bool = False) -> None:
        """Put a file or folder in the place of one in the node; folders above it are made.

        Outside /etc/sykube and the folders below /var that outlive an instance, only while the
        node does not run.

        Args:
            source: on this host, or what the file is to hold.
            shared: they may be linked: nobody changes them any more, and they lie on the file
                system of the cluster's folder.
        """

    def pull(self, path: str) -> Path:
        """A file or folder of the node, on this host: it or a copy. It may not be there."""

    def read(self, path: str, *, secret: bool = False) -> str:
        """The text of a file in the node; a secret one is kept out of the log."""
        return self.run(["cat", path], secret=secret).stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Replace a file in the node; its text never appears on a command line."""
        name = shlex.quote(path)
        self.run(
            [
                "sh",
                "-c",
                f"umask 077 && cat > {name}.new && chmod {mode} {name}.new && mv {name}.new {name}",
            ],
            stdin=text,
        )

    def discard(self, path: str) -> None:
        """Remove a file or folder of the node; where the node is gone, it went with it."""
        with contextlib.suppress(SykubeError):
            self.run(["rm", "-rf", path])

    # What can be seen of it.

    def services(self) -> dict[str, str]:
        """The state of each supervised program: RUNNING, STARTING, BACKOFF, STOPPED, FATAL …

        Raises:
            SykubeError: supervisord does not answer within 10 s.
        """

    def stop_service(self, name: str) -> None:
        """End a supervised program, if it runs.

        Raises:
            SykubeError: supervisord refuses, or does not answer within a minute.
        """

    def start_service(self, name: str) -> None:
        """Start a supervised program, if it does not run.

        Raises:
            SykubeError: supervisord refuses, or does not answer within 10 s.
        """

    def log(self, service: str) -> Log | None:
        """The log of a program, also while the node does not run; None where it has none."""

    def boot_log(self) -> str:
        """What its start script has written."""

    def usage(self) -> Usage:
        """What its processes use now."""

    def disk(self) -> dict[str, int]:
        """Bytes that its files take: overlay, images, etcd, other; none where it cannot be had."""

    def overlay_usage(self) -> tuple[int, str]:
        """Bytes written outside of the folders that are for it, and the command that lists them."""

    def exchange(self, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        """Send one datagram from the node's network and return the answer to it.

        Raises:
            OSError: the node does not run, or there is no answer in `timeout` seconds.
        """

    def link(self) -> str:
        """The index of the other end of its eth0 on its host; empty where it has no eth0."""

    def inherited(self) -> list[str]:
        """What it has of the process that started it, in words; see process.inherited.

        Raises:
            OSError: it ends meanwhile.
        """

    def processes(self) -> list[int]:
        """Its processes, as `ps` and `kill` on its host know them, whatever the engine does."""

    def lost_process(self) -> int:
        """Of a node that runs but not for the engine: what to kill for its end; 0 for others."""
