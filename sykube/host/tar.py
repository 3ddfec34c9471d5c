"""Archives of folders that hold whole systems: devices, attributes, owners that the host lacks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from sykube.host.host import Host

_TIMEOUT_S = 3600.0
# Overlays hold devices (0:0) and trusted.* attributes that say what of the image was removed, and
# files belong to users that the host does not know.
_FAITHFUL = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")
# Program of the host → suffix, and how tar calls it; the better one first. Of a fresh cluster's
# 68 MB, mostly etcd's empty log, zstd makes 0.4 MB in 0.1 s, gzip 0.9 MB in 0.3 s.
_COMPRESSION = {"zstd": (".zst", "zstd -1 -T0"), "gzip": (".gz", "gzip -1")}
_PROGRAMS = {suffix: program for program, (suffix, _) in _COMPRESSION.items()}


def pack(host: Host, root: Path, names: Sequence[str], folder: Path) -> Path:
    """Archive what is in `root` under some names, into a folder that others cannot enter.

    Returns:
        The archive, data.tar.zst or data.tar.gz, which only its owner can read.

    Raises:
        CommandError: tar failed.
    """
    # Debian cannot be without gzip.
    suffix, program = next(
        how for name, how in _COMPRESSION.items() if name == "gzip" or has(host, name)
    )
    file = folder / f"data.tar{suffix}"
    # Before tar fills it.
    file.touch(mode=0o600)
    command = ["tar", "--create", *_FAITHFUL, "--sparse", "--one-file-system"]
    # Nodes share parts of images by links, and one of them may be unpacked without the others.
    command += ["--hard-dereference"]
    # Sockets are what it leaves out.
    command += ["--warning=no-file-ignored", f"--use-compress-program={program}"]
    host.run([*command, f"--file={file}", f"--directory={root}", *names], timeout=_TIMEOUT_S)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return file


def unpack(
    host: Host, file: Path, target: Path, *, only: Sequence[str] = (), without: Sequence[str] = ()
) -> None:
    """Unpack an archive into an empty folder.

    Args:
        only: members to unpack instead of all.
        without: patterns of members that are left out, with all that is in them; their * matches
            no slash.

    Raises:
        CommandError: tar failed.
    """
    command = ["tar", "--extract", *_FAITHFUL, "--preserve-permissions", "--same-owner"]
    command += [f"--use-compress-program={program_of(file.name)}"]
    command += ["--anchored", "--wildcards", "--no-wildcards-match-slash"]
    command += [f"--exclude={pattern}" for pattern in without]
    host.run([*command, f"--file={file}", f"--directory={target}", *only], timeout=_TIMEOUT_S)


def program_of(name: str) -> str:
    """What an archive of that name is unpacked with; empty where no archive has such a name."""
    return _PROGRAMS.get(Path(name).suffix, "")


def has(host: Host, program: str) -> bool:
    return host.which(program) is not None


def digest(file: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_of(root: Path, names: Sequence[str]) -> int:
    """Bytes on disk of what would be archived."""
    found = [root / name for name in names]
    for name in names:
        for folder, folders, files in os.walk(root / name):
            found += [Path(folder, each) for each in (*folders, *files)]
    return sum(path.lstat().st_blocks * 512 for path in found)
