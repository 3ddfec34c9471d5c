"""A node: one machine of the cluster, and the only way into its instance."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import SykubeError
from sykube.host.run import Completed
from sykube.node.engine import Engine


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        name: what users call it: master, master2 …, node1, node2 …
        instance: name of its instance, its host name and its name in Kubernetes.
        address: its fixed address on the cluster's bridge.
        pod_subnet: the addresses of its pods.
        folder: its files on the host.
    """

    name: str
    instance: str
    address: str
    pod_subnet: str
    folder: Path
    engine: Engine
    is_control_plane: bool

    @property
    def config(self) -> Path:
        """The folder that the node sees as /etc/sykube."""
        return self.folder / "config"

    @property
    def overlay(self) -> Path:
        return self.folder / "overlay"

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
        return self.engine.exec(
            self.instance, argv, stdin=stdin, timeout=timeout, check=check, secret=secret
        )

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
        """Remove a file of the node; where the node is gone, the file went with it."""
        with contextlib.suppress(SykubeError):
            self.run(["rm", "-f", path])

    def read(self, path: str, *, secret: bool = False) -> str:
        """The text of a file in the node; a secret one is kept out of the log."""
        return self.run(["cat", path], secret=secret).stdout
