"""What the programs of this folder share: options, running sykube, and what nodes take."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import ModuleType

from sykube.cli import extras
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import clusters
from sykube.errors import HostError
from sykube.host.host import Host
from sykube.node import cgroups
from sykube.node.node import Node
from sykube.ui import Ui

_LONGEST_S = 900.0


def add_node_image(parser: argparse.ArgumentParser) -> None:
    """The option for another Kubernetes than the one that sykube chooses here."""
    parser.add_argument(
        "--node-image", type=Path, metavar="FILE", help="clusters of this node image"
    )


def drawing(file: Path | None) -> ModuleType | None:
    """What draws plots, where one is wanted: looked for before hours of measuring.

    Raises:
        SystemExit: matplotlib is not installed; says how to get it.
    """
    if file is None:
        return None
    try:
        return extras.require("sykube.bench.plots", "plots", "matplotlib")
    except HostError as error:
        Ui().error(error)
        sys.exit(error.exit_code)


def of_image(spec: ClusterSpec, image: Path | None) -> ClusterSpec:
    """The same cluster of a node image that was made on this machine, whatever its cgroups."""
    if image is None:
        return spec
    return replace(spec, local_image=str(image.absolute()), no_verify=True, allow_cgroup_v1=True)


def image_options(spec: ClusterSpec) -> list[str]:
    """What tells `sykube init` the same."""
    if not spec.local_image:
        return []
    return ["--local-image", spec.local_image, "--no-verify", "--allow-cgroup-v1"]


@contextlib.contextmanager
def cluster_of_two(name: str, *options: str) -> Iterator[float | None]:
    """The cluster of that name, which stays as it is; or a new one, which is deleted at the end.

    Args:
        options: of its init.

    Yields:
        Seconds of the new one's init.
    """
    if name in clusters(Host()):
        yield None
        return
    try:
        yield sykube("init", "--name", name, "--workers", "1", *options, "--quiet")[0]
    finally:
        sykube("delete", "--name", name, "--yes", "--quiet", check=False)


def middle(values: Sequence[float], digits: int = 2) -> float | None:
    """The median, rounded; None where nothing was measured."""
    return round(median(values), digits) if values else None


def shown(value: float | None, form: str, unit: str = "") -> str:
    """A figure of a table: right-aligned as `form` has it, such as "6.1"; or a dash."""
    width = int(form.partition(".")[0])
    return f"{value:{form}f}{unit}" if value is not None else f"{'-':>{width}}"


def sykube(
    *arguments: str | Path, check: bool = True, timeout: float = _LONGEST_S
) -> tuple[float, str]:
    """Run the command line; seconds and what it printed."""
    return timed([sys.executable, "-m", "sykube", *arguments], check=check, timeout=timeout)


def timed(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    given: str | None = None,
    timeout: float = _LONGEST_S,
) -> tuple[float, str]:
    """Run a command, with this as its input; seconds and what it printed.

    Args:
        timeout: seconds.
    """
    # An installed sykube has its bytecode; a checkout writes it unless this forbids it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.monotonic()
    done = subprocess.run(
        command,
        check=check,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout,
        env=environment,
        input=given,
    )
    return time.monotonic() - started, done.stdout


def processes_of(instance: str) -> list[Path]:
    """Where /proc has a node's processes."""
    return [Path(f"/proc/{pid}") for pid in cgroups.members(Host(), instance)]


def memory_mb(instance: str) -> float:
    """Proportional set sizes of a node's processes: what is shared counts once in all."""
    total = 0.0
    for process in processes_of(instance):
        with contextlib.suppress(OSError):
            total += set_size_mb(process)
    return total


def set_size_mb(process: Path, kind: str = "Pss") -> float:
    """The proportional set size of one.

    Args:
        kind: as smaps_rollup names it: Pss, or the part of it that is of no file, Pss_Anon.

    Raises:
        OSError: it is gone.
    """
    rollup = (process / "smaps_rollup").read_text(encoding="utf-8")
    found = [line.split() for line in rollup.splitlines()]
    return sum(int(words[1]) for words in found if words[0] == f"{kind}:") / 1024


def disk_mb(node: Node) -> float:
    """What a node's files take beside the node image, which all nodes share."""
    return sum(node.disk().values()) / 2**20
