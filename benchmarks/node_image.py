"""`sykube node-image build` of a release of upstream's Kubernetes, from a mirror on loopback.

Each run begins with an empty cache, but for the engine; then the image is built again of what an
update to another Kubernetes finds in the cache: Debian's roots, and no container images.

Run it as root: python3 -m benchmarks.node_image --release DIR [--runs 3] [--port 5463]
DIR is a folder of programs (docs/testing-releases.md). --runs 0 asks for what is cached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import middle, shown, sykube
from sykube.host import engines
from sykube.host.host import Host
from tests.upstream import mirror

# As sykube.ui and sykube.image.build say it.
_STEP = re.compile(r"^done: (.+) \((?:(\d+) min )?([\d.]+) s\)$", re.MULTILINE)
_PART = re.compile(r"^ *built (.+) in ([\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Build:
    """One build, in seconds, and the image's size in bytes."""

    seconds: float
    stages: dict[str, float]
    size: int


def build(cache: Path, options: Sequence[str]) -> Build:
    """Run the command with a cache folder."""
    command = [sys.executable, "-m", "sykube", "node-image", "build", "-v", *options, "--yes"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--output", "json"],
        env=os.environ | {"SYKUBE_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-3000:]
    stages = {
        title: 60 * float(minutes or 0) + float(rest)
        for title, minutes, rest in _STEP.findall(done.stderr)
    }
    stages |= {f"  {title}": float(took) for title, took in _PART.findall(done.stderr)}
    return Build(seconds, stages, Path(json.loads(done.stdout)["file"]).stat().st_size)


def forget_images(cache: Path) -> None:
    """What is of one Kubernetes goes; its programs stay, as if they were downloaded."""
    shutil.rmtree(cache / "node-images")
    for each in (cache / "build").glob("container-images-*"):
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def measure(release: Path, runs: int, port: int) -> tuple[list[Build], list[Build]]:
    """Builds with an empty cache, and those after them."""
    first, again = [], []
    with (
        tempfile.TemporaryDirectory(prefix="sykube-bench-", dir="/var/tmp") as name,
        mirror.running(Path(name), [release], plain=True, ports=(port, port + 1)) as running,
    ):
        for number in range(runs):
            cache = Path(name) / "cache"
            cache.mkdir()
            (cache / "apptainer").symlink_to(engines.private(Host()).root)
            first.append(build(cache, running.options()))
            forget_images(cache)
            again.append(build(cache, running.options()))
            print(
                f"run {number + 1}: {first[-1].seconds:.1f} s, again {again[-1].seconds:.1f} s",
                flush=True,
            )
            shutil.rmtree(cache)
    return first, again


def main() -> None:
    """Measure, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get(mirror.VARIABLE)
    parser.add_argument("--release", type=Path, default=Path(named) if named else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--port", type=int, default=5463)
    options = parser.parse_args()
    first: list[Build] = []
    again: list[Build] = []
    if options.runs == 0:
        sykube("node-image", "list")
    elif options.release is None:
        parser.error("--release is missing")
    else:
        first, again = measure(options.release.absolute(), options.runs, options.port)
    stages: dict[str, list[float]] = defaultdict(list)
    for each in first:
        for title, seconds in each.stages.items():
            stages[title].append(seconds)
    found = {
        "build_s": middle([each.seconds for each in first]),
        "again_s": middle([each.seconds for each in again]),
        "image_mb": middle([each.size / 1e6 for each in first]),
        "stages": {title: round(median(each), 1) for title, each in stages.items()},
        "runs": options.runs,
    }
    print(f"\nmedians of {options.runs} runs")
    print(f"  node-image build, empty cache        {shown(found['build_s'], '6.1', ' s')}")
    for title, seconds in found["stages"].items():
        print(f"    {title:<34} {shown(seconds, '6.1', ' s')}")
    print(f"  with the cached roots of Debian      {shown(found['again_s'], '6.1', ' s')}")
    print(f"  size of the image                    {shown(found['image_mb'], '6.1', ' MB')}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
