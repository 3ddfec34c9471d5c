"""SIFs written by hand: a header, one file system, and bytes in its place."""

from __future__ import annotations

import struct

_HEADER_SIZE, _RECORD_SIZE = 128, 585
_DATA = 4096
AMD64, SQUASHFS, ENCRYPTED = b"02\0", 1, 5


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
        "<i?3I7q128s2i376s", 0x4004, True, 1, 1, 0, _DATA, len(content), len(content), *[0] * 4,
        b"it", file_system, 2, b"",
    )  # fmt: skip
    return (header + record).ljust(_DATA, b"\0") + content
