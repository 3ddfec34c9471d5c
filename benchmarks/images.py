"""`sykube image load` into two nodes against `ctr images import` of the same file into one.

The image is 200 MB of random bytes in five layers, which no node has; it and its content are
removed, and the disk is up to date, before each run.

Run it as root: python3 -m benchmarks.images [--runs 5] [--name bench]
A cluster of that name is used as it is. --runs 0 does both once and judges nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import cluster_of_two, middle, shown, sykube
from sykube.cluster.model import lookup
from sykube.host.host import Host
from sykube.node.node import Node
from sykube.ui import Ui
from tests import containers
from tests.containers import Image

IMAGE = "docker.io/library/bench:1"
_LAYERS, _LAYER_BYTES = 5, 40_000_000


def make(folder: Path) -> Path:
    """The image, as an OCI archive."""
    layers = [
        containers.tar({f"data/{number}": os.urandom(_LAYER_BYTES)}) for number in range(_LAYERS)
    ]
    return containers.oci_archive(folder / "bench.tar", Image(layers, {}), IMAGE)


def load(file: Path, cluster: str) -> float:
    """Seconds of the whole command, into both nodes."""
    return sykube("image", "load", file, "--name", cluster, "--quiet")[0]


def ctr_import(file: Path, node: Node) -> float:
    """Seconds of `ctr images import` of the file, which is in the node's own folder."""
    inside = f"/var/lib/containerd/{file.name}"
    started = time.monotonic()
    node.run(["ctr", "images", "import", inside], timeout=600)
    return time.monotonic() - started


def forget(nodes: list[Node]) -> None:
    """Remove the image and its content from all nodes, and let the disk come to rest."""
    for node in nodes:
        names = node.run(["ctr", "images", "list", "--quiet"]).stdout.split()
        ids = _ids(node)
        if gone := [name for name in names if name == IMAGE or name in ids]:
            node.run(["ctr", "images", "rm", "--sync", *gone])
        content = node.pull("/var/lib/containerd") / "io.containerd.content.v1.content/blobs/sha256"
        large = [blob for blob in content.iterdir() if not blob.is_symlink()]
        left = [blob.name for blob in large if blob.stat().st_size >= _LAYER_BYTES]
        assert not left, f"{node.name} still has {left}"
    subprocess.run(["sync"], check=True)


def _ids(node: Node) -> set[str]:
    """What else the image is called: its ID."""
    listed = [line.split() for line in node.run(["ctr", "images", "list"]).stdout.splitlines()]
    digests = {words[2] for words in listed if words[0] == IMAGE}
    return {words[0] for words in listed if words[2] in digests}


def measure(cluster: str, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of each load and of each import; both are done once for 0 runs, too."""
    ours: list[float] = []
    theirs: list[float] = []
    nodes = lookup.load(Host(), cluster, Ui(quiet=True)).nodes
    with tempfile.TemporaryDirectory(prefix="sykube-bench-") as folder:
        file = make(Path(folder))
        copy = nodes[-1].pull(f"/var/lib/containerd/{file.name}")
        copy.write_bytes(file.read_bytes())
        try:
            for number in range(max(runs, 1)):
                # Which one goes first changes, so that neither has the warmer host.
                for kind in ("load", "import") if number % 2 == 0 else ("import", "load"):
                    forget(nodes)
                    if kind == "load":
                        ours.append(load(file, cluster))
                        print(f"run {number + 1}: image load {ours[-1]:.2f} s", flush=True)
                    else:
                        theirs.append(ctr_import(copy, nodes[-1]))
                        print(f"run {number + 1}: ctr import {theirs[-1]:.2f} s", flush=True)
        finally:
            copy.unlink()
            forget(nodes)
    return ours[:runs], theirs[:runs]


def main() -> None:
    """Measure in turns, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    with cluster_of_two(options.name):
        ours, theirs = measure(options.name, options.runs)
    load_s, import_s = middle(ours, 3), middle(theirs, 3)
    ratio = round(load_s / import_s, 3) if load_s and import_s else None
    print(f"\nmedians of {options.runs} alternated runs")
    print(f"  sykube image load, two nodes         {shown(load_s, '6.2', ' s')}")
    print(f"  ctr images import, one node          {shown(import_s, '6.2', ' s')}")
    print(f"  ratio                                {shown(ratio, '6.2')}")
    print(
        json.dumps({"load_s": load_s, "import_s": import_s, "ratio": ratio, "runs": options.runs})
    )
    # To be at most 1.5.
    sys.exit(ratio is not None and ratio > 1.5)


if __name__ == "__main__":
    main()
