"""`sykube image load` of a SIF into two nodes against a copy of the same file, in turn.

A copy ends when it is on the disk, as a load does: a loop device waits for its file. Beside it is
what `cp` alone takes, which leaves that to the kernel.

The SIF has random bytes, which nothing packs, and no node has it. Before each run the image and the
copy are removed and the disk is up to date; the file itself stays in memory, as one that was just
built or fetched.

Run it as root: python3 -m benchmarks.sif [--runs 5] [--megabytes 2000] [--name bench]
A cluster of that name is used as it is. --runs 0 does both once and judges nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import cluster_of_two, middle, shown, sykube, timed
from tests import containers
from tests.e2e import roots

IMAGE = "docker.io/library/bench-sif:1"
# A copy must be made in any case.
_MOST = 1.2


def make(folder: Path, megabytes: int) -> Path:
    """The SIF; its random bytes are in files of 100 MB at most."""
    root = roots.files()
    for number in range(0, megabytes, 100):
        root[f"data/{number}"] = os.urandom(min(100, megabytes - number) * 1_000_000)
    file = folder / "bench.sif"
    roots.build(file, containers.tar(root), "")
    for each in folder.iterdir():
        if each != file:
            each.unlink()
    return file


def load(file: Path, cluster: str) -> float:
    """Seconds of the whole command, into both nodes; the image is removed afterwards."""
    seconds, _ = sykube("image", "load", file, "--as", IMAGE, "--name", cluster, "--quiet")
    sykube("image", "delete", IMAGE, "--name", cluster, "--quiet")
    return seconds


def copy(file: Path, target: Path) -> tuple[float, float]:
    """Seconds of `cp` to the folder where clusters are, and until the copy is on the disk.

    It is removed afterwards.
    """
    copied, _ = timed(["cp", "--reflink=never", file, target])
    written, _ = timed(["sync", target])
    target.unlink()
    return copied, copied + written


def measure(
    cluster: str, megabytes: int, runs: int
) -> tuple[list[float], list[tuple[float, float]]]:
    """Seconds of each load and of each copy; both are done once for 0 runs, too."""
    loads: list[float] = []
    copies: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="sykube-bench-", dir="/var/lib/sykube") as folder:
        file = make(Path(folder), megabytes)
        for number in range(max(runs, 1)):
            # Which one goes first changes, so that neither has the warmer host.
            for kind in ("load", "copy") if number % 2 == 0 else ("copy", "load"):
                subprocess.run(["sync"], check=True)
                if kind == "load":
                    loads.append(load(file, cluster))
                    print(f"run {number + 1}: image load {loads[-1]:.2f} s", flush=True)
                else:
                    copies.append(copy(file, Path(folder) / "copy"))
                    cp, disk = copies[-1]
                    print(f"run {number + 1}: cp {cp:.2f} s, on disk {disk:.2f} s", flush=True)
    return loads[:runs], copies[:runs]


def main() -> None:
    """Measure in turns, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    with cluster_of_two(options.name):
        loads, copies = measure(options.name, options.megabytes, options.runs)
    load_s, copy_s = middle(loads, 3), middle([disk for _, disk in copies], 3)
    cp_s = middle([cp for cp, _ in copies], 3)
    ratio = round(load_s / copy_s, 3) if load_s and copy_s else None
    print(f"\n{options.megabytes} MB, medians of {options.runs} alternated runs")
    print(f"  sykube image load, two nodes         {shown(load_s, '6.2', ' s')}")
    print(f"  a copy on the disk                   {shown(copy_s, '6.2', ' s')}")
    print(f"  of that, cp                          {shown(cp_s, '6.2', ' s')}")
    print(f"  ratio                                {shown(ratio, '6.2')}")
    seconds = {"load_s": load_s, "copy_s": copy_s, "cp_s": cp_s}
    print(json.dumps({**seconds, "ratio": ratio, "runs": options.runs}))
    sys.exit(ratio is not None and ratio > _MOST)


if __name__ == "__main__":
    main()
