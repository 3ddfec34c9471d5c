"""Programs of a node image, run on this host without a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sykube.host.host import Host
from sykube.host.run import Completed
from sykube.rootless import unpacked

if TYPE_CHECKING:
    # It uses what is here.
    from sykube.image.build import Builder


def run_in(
    host: Host, sif: Path, argv: Sequence[str], folder: Path, builder: Builder, *, timeout: float
) -> Completed:
    """Run a program of an image to its end.

    Args:
        folder: what it sees as /mnt, the only place that it can write to.
        timeout: seconds.

    Raises:
        CommandError: it failed.
    """
    image = unpacked.root_of(host, sif) if host.grants.rootless else sif
    return host.run(
        [
            builder.binary, "--silent", "exec", "--cleanenv", "--no-home", "--no-mount",
            "tmp,cwd,bind-paths", "--bind", f"{folder}:/mnt", "--pwd", "/", image, *argv,
        ],
        env=builder.environment,
        timeout=timeout,
    )  # fmt: skip
