"""SIFs written by hand: a header, one file system, and bytes in its place."""

from __future__ import annotations

import struct

_HEADER_SIZE, _RECORD_SIZE = 128, 585
# In the header: how many records, and where they begin. In a record: its kind, format and role.
_TABLE, _KIND, _FORMAT, _ROLE = 88, 0, 201, 205
_PARTITION, _PRIMARY_SYSTEM = 0x4004, 2
_DATA = 4096
AMD64, SQUASHFS = b"02\0", 1
# By dm-crypt and by gocryptfs.
ENCRYPTED = (5, 6)


def made(
    content: bytes = b"squashfs", *, architecture: bytes = AMD64, file_system: int = SQUASHFS
) -> bytes:
    """What such a file holds, by github.com/apptainer/sif, pkg/sif/sif.go."""
    header = struct.pack(
        "<32s10s3s3s16s8q",
        *(b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01\0", architecture, b"", 99, 99),
        *(0, 1, _HEADER_SIZE, _RECORD_SIZE, _DATA, len(content)),
    )
    record = struct.pack(
        "<i?3I7q128s2i376s", _PARTITION, True, 1, 1, 0, _DATA, len(content), len(content), *[0] * 4,
        b"it", file_system, _PRIMARY_SYSTEM, b"",
    )  # fmt: skip
    return (header + record).ljust(_DATA, b"\0") + content


def said_to_be(content: bytes, file_system: int) -> bytes:
    """A SIF that says of its containers' file system that it is of another format."""
    found = bytearray(content)
    count, start = struct.unpack_from("<2q", found, _TABLE)
    for record in range(start, start + count * _RECORD_SIZE, _RECORD_SIZE):
        kind, role = (struct.unpack_from("<i", found, record + at)[0] for at in (_KIND, _ROLE))
        if (kind, role) == (_PARTITION, _PRIMARY_SYSTEM):
            struct.pack_into("<i", found, record + _FORMAT, file_system)
    return bytes(found)
