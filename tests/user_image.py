"""A node image that an ordinary user builds is root's: python3 -m tests.user_image

A user with subordinate IDs, whose cache is empty, builds what root has built before: the same files
with the same owners, modes and capabilities. Nodes of it become healthy, and run a Slurm whose image
the user builds, too. About 10 minutes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image import build, inside, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.rootless.host import SHARED_CACHE
from tests.e2e.of_users import cluster_of, host_changes
from tests.hostdiff import HostSnapshot
from tests.machine import users
from tests.machine.users import User

_NAME = "image"
_USER, _IDS = "image-user", 880_000
_BUILD_S = 3600.0
_LIST = "find / -xdev -printf '%P %m %U:%G %y %l\\n'; getcap -r / 2> /dev/null"


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    host = Host()
    roots = build.cached(host, versions.DEBIAN, apt.Mirror(""))
    if roots is None:
        sys.exit("root has built no node image of this checkout: `make node-image` does")
    with users.made(_USER, ids=_IDS) as user:
        before = HostSnapshot.take([user.home])
        cluster = cluster_of(user, _NAME)
        # Root's Apptainer is to be found, and its images are not.
        shared = user.shown / "cache"
        shared.mkdir()
        (shared / "apptainer").symlink_to(host.cache / "apptainer")
        cluster.own[SHARED_CACHE] = str(shared)
        words = ("node-image", "build", "--source", versions.DEBIAN.name)
        print(cluster.sykube(*words, timeout=_BUILD_S).stderr, flush=True)
        mine = _image_of(user)
        assert mine.fingerprint == roots.fingerprint, (mine, roots)
        different = sorted(_files(host, roots) ^ _files(host, mine))
        print("\n".join(different), flush=True)
        assert not different, f"{len(different)} files differ"
        try:
            cluster.sykube("init", "--name", _NAME, "--workers", "1", timeout=_BUILD_S)
            print(cluster.sykube("status", "--name", _NAME).stdout, flush=True)
            cluster.sykube("slurm", "image", timeout=_BUILD_S)
            slurm = ("--name", _NAME, "--namespace", "slurm")
            cluster.sykube("slurm", "up", *slurm, "--nodes", "1", "--memory", "256Mi", timeout=600)
            ran = cluster.sykube("slurm", "run", *slurm, "--", "id", "-un").stdout
            assert ran == "user\n", ran
        finally:
            with contextlib.suppress(AssertionError):
                cluster.sykube("delete", "--yes", "--name", _NAME)
        assert host_changes(before) == []
    print("1 passed, 0 failed")
    return 0


def _image_of(user: User) -> NodeImage:
    folder = next((user.home / ".cache/sykube/node-images").glob("*/complete")).parent
    return NodeImage(folder.name, folder)


def _files(host: Host, image: NodeImage) -> set[str]:
    """Each with its mode, owners, type and where it leads; and what has capabilities."""
    engine = engines.find_for_files(host)
    with tempfile.TemporaryDirectory() as folder:
        done = inside.run_in(
            host, image.sif, ["sh", "-c", _LIST], Path(folder),
            Builder(engine.binary, engine.environment), timeout=300,
        )  # fmt: skip
    return set(done.stdout.splitlines())


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("as root, who makes the user")
    sys.exit(main())
