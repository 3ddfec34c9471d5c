"""The SIFs that a cluster's nodes run as they are: a folder that all of them see, and none changes.

DIGEST.sif     a SIF, by its SHA-256
DIGEST.json    the layer by which images stand for it, and keys that were verified to have signed it
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sykube.host.files import write_atomically
from sykube.image.oci import Blob

# Where nodes see it: runtime/sif.go.
PLACE = "/var/lib/sykube/sifs"
_BLOCK = 1 << 22
# linux/fs.h
_FICLONE = 0x40049409


@dataclass(frozen=True)
class Stored:
    """A SIF in the folder, its bytes, and the layer that stands for it; empty where none does."""

    sif: Path
    size: int
    layer: str


def adopt(folder: Path, source: Path, work: Path) -> Blob:
    """Take a copy of a SIF, unless it is there: shared with it where the file system can.

    The digest is of what the copy holds, whatever becomes of the source meanwhile.

    Args:
        work: a folder of the same file system, for a copy that is not whole yet.

    Raises:
        OSError: the disk is full, or the source cannot be read.
    """
    part = work / "sif"
    digest = _copy(source, part)
    file = folder / f"{digest}.sif"
    if file.exists():
        part.unlink()
    else:
        part.chmod(0o400)
        part.replace(file)
    return Blob(f"sha256:{digest}", file.stat().st_size, file)


def note(sif: Blob, layer: str, signers: Sequence[str]) -> None:
    """Note what nodes go by: runtime/sif.go.

    Args:
        layer: the digest of that which stands for it.
        signers: fingerprints of keys by which all of the SIF was verified to be signed.
    """
    text = json.dumps({"layer": layer, "signers": [*signers]})
    write_atomically(sif.file.with_suffix(".json"), text, mode=0o600)


def stored(folder: Path) -> list[Stored]:
    return [
        Stored(sif, sif.stat().st_size, _layer(sif.with_suffix(".json")))
        for sif in sorted(folder.glob("*.sif"))
    ]


def remove(found: Stored) -> None:
    """Remove a SIF; containers that run on it keep it until they end."""
    found.sif.unlink(missing_ok=True)
    found.sif.with_suffix(".json").unlink(missing_ok=True)


def remove_unnoted(folder: Path) -> None:
    """Remove SIFs of which nothing was noted."""
    for each in stored(folder):
        if not each.layer:
            remove(each)


def _layer(note: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(note.read_text(encoding="utf-8"))["layer"])
    return ""


def _copy(source: Path, target: Path) -> str:
    """Copy a file; the SHA-256 of the copy, as hexadecimal digits."""
    with source.open("rb") as read, target.open("w+b") as written:
        if _share(read, written):
            return hashlib.file_digest(written, "sha256").hexdigest()
        return _copy_blocks(read.fileno(), written.fileno())


def _share(read: IO[bytes], written: IO[bytes]) -> bool:
    try:
        fcntl.ioctl(written, _FICLONE, read.fileno())
    except OSError:
        return False
    return True


def _copy_blocks(source: int, target: int) -> str:
    """The kernel copies a block while the one before it is hashed, from the copy.

    Meanwhile what is there goes to the disk: a loop device waits until all of it has.
    """
    digester, copied = hashlib.sha256(), 0
    hashing, writing = Future[None](), Future[None]()
    hashing.set_result(None)
    writing.set_result(None)
    block = memoryview(bytearray(_BLOCK))

    def add(offset: int, size: int) -> None:
        os.preadv(target, [block[:size]], offset)
        digester.update(block[:size])

    with ThreadPoolExecutor(2) as pool:
        while size := os.sendfile(target, source, None, _BLOCK):
            hashing.result()
            hashing, copied = pool.submit(add, copied, size), copied + size
            if writing.done():
                writing.result()
                writing = pool.submit(os.fdatasync, target)
        hashing.result()
        writing.result()
    return digester.hexdigest()
