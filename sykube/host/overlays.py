"""What overlays in a user's namespaces need of a file system."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

from sykube.host.file_systems import nearest

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
