"""What the header of a SIF says, without running or mounting anything of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.image import oci

# github.com/apptainer/sif, pkg/sif/sif.go: a launch script, the magic word, the version, the
# architecture, an ID, when it was made and changed; then how many records are free and there, and
# where they begin.
_HEADER = struct.Struct("<32s 10s 3s 3s 16s q q q q q")
# The kind of an object, whether it is used, three IDs, where it begins and its bytes; two times,
# two owners and its name; of a file system, its format and role.
_RECORD = struct.Struct("<i ? I I I q q q q q q q 128s i i 376s")
_MOST_RECORDS = 10_000
_ARCHITECTURES = {b"02": "amd64", b"04": "arm64"}
_PARTITION, _PRIMARY_SYSTEM = 0x4004, 2
# By dm-crypt, which root has, and by gocryptfs, for who is not root.
_ENCRYPTED = frozenset([5, 6])


@dataclass(frozen=True)
class Header:
    """What is of use here.

    Attributes:
        architecture: as OCI calls it; empty for what is not known here.
        made: seconds since the epoch.
        end: bytes that the file must have at least.
        encrypted: whether the file system of its containers is.
    """

    architecture: str
    made: int
    end: int
    encrypted: bool


def read(file: Path) -> Header:
    """The header of a file that looks like a SIF.

    Raises:
        UsageError: it ends before its header does.
    """
    with file.open("rb") as stream:
        fields = _HEADER.unpack(stream.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
        count, start = fields[-2:]
        end, encrypted = start, False
        stream.seek(max(start, 0))
        for _ in range(min(count, _MOST_RECORDS)):
            record = stream.read(_RECORD.size)
            if len(record) < _RECORD.size:
                raise damaged(file)
            kind, used, _, _, _, offset, size, *_, format_, role, _ = _RECORD.unpack(record)
            if not used:
                continue
            end = max(end, offset + size)
            if kind == _PARTITION and role == _PRIMARY_SYSTEM:
                encrypted = format_ in _ENCRYPTED
    return Header(_ARCHITECTURES.get(fields[3][:2], ""), fields[5], end, encrypted)


def check(host: Host, file: Path) -> Header:
    """The header of a SIF whose containers this machine can run.

    Raises:
        UsageError: it is for others, encrypted, or cut off.
    """
    header = read(file)
    if header.architecture != oci.machine(host):
        raise UsageError(
            f"{file} is for {header.architecture or 'a machine that sykube does not know'}",
            resolution=f"This machine needs one for {oci.machine(host)}.",
        )
    if header.encrypted:
        raise UsageError(
            f"{file} is encrypted, and pods have no key for it",
            resolution="Build one that is not: apptainer build FILE DEFINITION",
        )
    if file.stat().st_size < header.end:
        raise damaged(file, f"it has {file.stat().st_size} of {header.end} bytes")
    return header


def damaged(file: Path, details: str = "") -> UsageError:
    return UsageError(
        f"{file} is damaged or cut off", details=details, resolution="Create the file again."
    )
