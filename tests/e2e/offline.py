"""A machine without any network: namespaces whose only link is loopback, with folders of their own.

sykube's and CNI's data in them are not this machine's, so that nothing made there meets it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

_OWN_FOLDERS = ("/var/lib/sykube", "/var/lib/cni", "/run/sykube")
# sysfs shows the links of the namespace that mounts it; the cgroup trees below it stay.
_SET_UP = """
mkdir "$1/cgroup"
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$1/cgroup" /sys/fs/cgroup
shift
for folder in "$@"; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
ip link set lo up
echo ready
exec sleep infinity
"""


class Offline:
    """The namespaces; they go with `close` and what runs in them."""

    def __init__(self, folder: Path) -> None:
        # Something must be there to mount on, also outside.
        self._made = [each for each in map(Path, _OWN_FOLDERS) if not each.exists()]
        self._holder = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--propagation", "private"),
                *("sh", "-ec", _SET_UP, "sh", folder, *_OWN_FOLDERS),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs another one in there."""
        spaces = f"/proc/{self._holder.pid}/ns"
        return ("nsenter", f"--net={spaces}/net", f"--mount={spaces}/mnt")

    def output(self, *command: str) -> str:
        """What a command in there writes."""
        return subprocess.run(
            [*self.prefix, *command],
            env=os.environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        for each in self._made:
            with contextlib.suppress(OSError):
                each.rmdir()
