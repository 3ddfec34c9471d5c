"""What kind of file system a folder is on."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sykube.host.host import Host

# Types as /proc/self/mountinfo has them. They keep users apart by a server, which knows nothing of
# IDs that a host maps for its users, and an overlay cannot write to them: filesystems/overlayfs.rst
# of the kernel's documentation, "upper and lower".
_NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs",
    "pvfs2", "smb3", "virtiofs", "wekafs",
    "fuse.beegfs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs", "fuse.sshfs",
})  # fmt: skip


def nearest(folder: Path) -> Path:
    """The folder, or that of those above it that is there."""
    place = folder.absolute()
    # Path.exists raises where it may not look.
    while not os.path.exists(place):  # noqa: PTH110
        place = place.parent
    return place.resolve()


def network_type(host: Host, folder: Path) -> str:
    """The type of the network file system that a folder is on or will be; nothing for another."""
    place, found, length = nearest(folder), "", 0
    try:
        lines = (host.proc / "self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_plain(before.split(" ")[4]))
        # One that is mounted on another comes after it.
        if place.is_relative_to(point) and len(point.parts) >= length:
            found, length = after.split(" ")[0], len(point.parts)
    return found if found in _NETWORK else ""


def _plain(field: str) -> str:
    """A field without its escapes: proc_pid_mountinfo(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
