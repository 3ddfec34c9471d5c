"""What kind of file system a folder is on, and what overlays in a user's namespaces need of one."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
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
# What an overlay marks its files with as a user: overlayfs.rst, "userxattr".
_ATTRIBUTE = "user.sykube"
_DT_UNKNOWN = 0


class _Entry(ctypes.Structure):
    """struct dirent of both C libraries on 64-bit machines: readdir(3)."""

    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
    )


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


def lacking(folder: Path) -> str:
    """What an overlay needs and the file system of a folder, where one may write, has not.

    A file is made and removed there, which is how to find out.
    """
    with tempfile.TemporaryDirectory(prefix=".sykube-", dir=nearest(folder)) as made:
        file = Path(made) / "file"
        file.touch()
        try:
            os.setxattr(file, _ATTRIBUTE, b"")
        except OSError:
            return "user extended attributes (user_xattr)"
        if _type_of_first(made) == _DT_UNKNOWN:
            return "types in its folders (d_type; ftype=1 of XFS)"
    return ""


def _type_of_first(folder: str) -> int:
    """The type that readdir(3) gives the one file of a folder; Python keeps it to itself."""
    library = ctypes.CDLL(None, use_errno=True)
    library.opendir.restype = ctypes.c_void_p
    library.readdir.restype = ctypes.POINTER(_Entry)
    library.readdir.argtypes = library.closedir.argtypes = [ctypes.c_void_p]
    stream = library.opendir(folder.encode())
    if not stream:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    try:
        # Its own entry and that of the folder above may have one where no others do.
        kinds = []
        while entry := library.readdir(stream):
            name = ctypes.string_at(ctypes.addressof(entry.contents) + 19)
            kinds += [] if name in (b".", b"..") else [entry.contents.d_type]
    finally:
        library.closedir(stream)
    return int(kinds[0])
