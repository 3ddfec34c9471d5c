"""What is compressed with zstd, which Python reads by itself from 3.14 on."""

from __future__ import annotations

import io
import sys
from typing import IO, cast

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

# Of a frame: https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1
MAGIC = b"\x28\xb5\x2f\xfd"
Error = zstd.ZstdError


def unpacked(file: io.BufferedReader) -> IO[bytes]:
    """What a file holds, uncompressed where it is compressed with zstd; it may be a pipe."""
    if file.peek(len(MAGIC))[: len(MAGIC)] != MAGIC:
        return file
    # It has all that tarfile asks of a file.
    return cast(IO[bytes], zstd.ZstdFile(file))
