"""Snapshots on disk: /var/lib/sykube/snapshots/NAME, which root alone can read.

manifest.json      what it is a snapshot of, and how to see that the archive is whole
state.json         the cluster's record
data.tar.zst       the nodes' files and the admin kubeconfig (data.tar.gz without zstd)
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sykube.cluster.model.state import State
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host import distribution, space, tar
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.image.node_image import NodeImage

# From 2 on, there may be SIFs in it: without any it is of version 1, for those that know no other.
VERSION = 2
# What is archived of a cluster's data folder; start makes the rest anew.
SIFS = "sifs"
CONTENTS = ("nodes", "volumes", "kubeconfig", SIFS)
_NAME = re.compile(r"[A-Za-z0-9][-_.A-Za-z0-9]{0,99}")


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot.

    Attributes:
        cluster: name of the cluster it was taken of.
        created: UTC, as in 2026-11-22T14:30:00Z.
        image: fingerprint of the node image that it needs.
        archive: file name of the archive.
        size: bytes of the archive.
        unpacked: bytes that its files take.
        contents: what it has of CONTENTS.
    """

    host: Host
    name: str
    cluster: str
    created: str
    kubernetes: str
    image: str
    archive: str
    sha256: str
    size: int
    unpacked: int
    contents: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return self.host.snapshots / self.name

    @property
    def file(self) -> Path:
        return self.folder / self.archive

    def state(self) -> State:
        """The record of the cluster at that time.

        Raises:
            SykubeError: it is damaged.
        """
        state = State.load(self.folder / "state.json")
        if state is None:
            raise _damaged(self.name, "state.json is missing")
        return state


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a snapshot.

    Raises:
        UsageError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name {name!r} is none for a snapshot",
            resolution="Take letters, digits and inner hyphens, dots and underscores.",
        )


def names(host: Host) -> list[str]:
    """Names of all snapshots, damaged ones among them."""
    if not host.snapshots.is_dir():
        return []
    return sorted(
        folder.name for folder in host.snapshots.iterdir() if _NAME.fullmatch(folder.name)
    )


def find(host: Host, name: str) -> Snapshot:
    """The snapshot of that name.

    Raises:
        UsageError: no snapshot can have such a name.
        SykubeError: there is none (NO_SUCH_SNAPSHOT), or its manifest is damaged.
    """
    check_name(name)
    try:
        stored = json.loads((host.snapshots / name / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if (host.snapshots / name).is_dir():
            raise _damaged(name, "manifest.json is missing") from error
        raise _no_such(host, name) from error
    except (OSError, ValueError) as error:
        raise _damaged(name, str(error)) from error
    try:
        if stored["version"] > VERSION:
            raise SykubeError(
                f"the snapshot {name} was saved by a later version of sykube",
                resolution="Use that version, or a later one.",
            )
        return Snapshot(
            host,
            name=name,
            cluster=str(stored["cluster"]),
            created=str(stored["created"]),
            kubernetes=str(stored["kubernetes"]),
            image=str(stored["image"]),
            archive=str(stored["archive"]),
            sha256=str(stored["sha256"]),
            size=int(stored["bytes"]),
            unpacked=int(stored["unpackedBytes"]),
            contents=_contents(stored["version"] > 1),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(name, repr(error)) from error


def images(host: Host) -> set[str]:
    """Fingerprints of the node images that snapshots need."""
    found = set()
    for name in names(host):
        with contextlib.suppress(SykubeError):
            found.add(find(host, name).image)
    return found


def create(host: Host, name: str, state: State, root: Path) -> Snapshot:
    """Archive a cluster's data folder; the snapshot is there as a whole or not at all.

    Raises:
        SykubeError: there is one of that name, the disk is too small, or tar failed.
    """
    check_free(host, name)
    host.snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its cluster is locked: what lies there was left by a save that was killed.
    work = host.snapshots / f".new-{state.spec.name}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(mode=0o700)
        contents = _contents(any((root / SIFS).glob("*")))
        unpacked = tar.size_of(root, contents)
        space.require(host, work, unpacked)
        file = tar.pack(host, root, contents, work)
        snapshot = Snapshot(
            host,
            name=name,
            cluster=state.spec.name,
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            kubernetes=state.versions["kubernetes"],
            image=state.image,
            archive=file.name,
            sha256=tar.digest(file),
            size=file.stat().st_size,
            unpacked=unpacked,
            contents=contents,
        )
        state.save(work / "state.json")
        _write_manifest(snapshot, work / "manifest.json")
        work.rename(snapshot.folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        _forget_empty_folders(host)
        raise
    return snapshot


def check_free(host: Host, name: str) -> None:
    """Refuse a name that a snapshot has.

    Raises:
        UsageError: no snapshot can have such a name.
        SykubeError: one has it.
    """
    check_name(name)
    if (host.snapshots / name).exists():
        raise SykubeError(
            f"there is a snapshot {name!r} already",
            resolution=f"Choose another name, or: sykube snapshot delete {name}",
        )


def check_whole(host: Host, snapshot: Snapshot) -> None:
    """Look whether a snapshot can be unpacked: its archive, its node image, the host's programs.

    Raises:
        SykubeError: it cannot.
    """
    if not snapshot.file.is_file():
        raise _damaged(snapshot.name, f"{snapshot.archive} is missing")
    if (
        snapshot.file.stat().st_size != snapshot.size
        or tar.digest(snapshot.file) != snapshot.sha256
    ):
        raise _damaged(snapshot.name, f"{snapshot.archive} is not what was saved")
    image_of(snapshot)
    program = tar.program_of(snapshot.archive)
    if not program:
        raise _damaged(snapshot.name, f"{snapshot.archive} is no archive that sykube makes")
    if not tar.has(host, program):
        raise SykubeError(
            f"could not find {program}, which is required to unpack {snapshot.name}",
            resolution=distribution.this(host).fix([program]),
        )


def image_of(snapshot: Snapshot) -> NodeImage:
    """The node image that a snapshot's nodes need: their files are only what differs from it.

    Raises:
        SykubeError: it is no longer in the cache.
    """
    image = NodeImage(snapshot.image, Path(snapshot.state().image_folder))
    if not (image.folder / "complete").exists():
        raise SykubeError(
            f"the node image {image.fingerprint} of the snapshot {snapshot.name} is gone",
            details=f"it was in {image.folder}",
            resolution="Put that folder back, or build the image again with the sykube that saved "
            "the snapshot: sykube node-image build",
        )
    return image


def unpack(
    host: Host,
    snapshot: Snapshot,
    target: Path,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> None:
    """Unpack a snapshot's archive into an empty folder; see sykube.host.tar.unpack.

    Raises:
        SykubeError: the disk is too small, or tar failed.
    """
    space.require(host, target, snapshot.unpacked)
    tar.unpack(host, snapshot.file, target, only=only, without=without)


def remove(host: Host, name: str) -> None:
    """Remove a snapshot, also a damaged one.

    Raises:
        SykubeError: there is none (NO_SUCH_SNAPSHOT).
    """
    check_name(name)
    folder = host.snapshots / name
    if not folder.is_dir():
        raise _no_such(host, name)
    # Gone at once for everybody, however long its files take.
    going = folder.with_name(f".old-{name}")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)
    _forget_empty_folders(host)


def _contents(with_sifs: bool) -> tuple[str, ...]:
    return tuple(name for name in CONTENTS if with_sifs or name != SIFS)


def _write_manifest(snapshot: Snapshot, path: Path) -> None:
    stored: dict[str, Any] = {
        "version": VERSION if SIFS in snapshot.contents else 1,
        "cluster": snapshot.cluster,
        "created": snapshot.created,
        "kubernetes": snapshot.kubernetes,
        "image": snapshot.image,
        "archive": snapshot.archive,
        "sha256": snapshot.sha256,
        "bytes": snapshot.size,
        "unpackedBytes": snapshot.unpacked,
    }
    write_atomically(path, json.dumps(stored, indent=2), mode=0o600)


def _forget_empty_folders(host: Host) -> None:
    for folder in (host.snapshots, host.data):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _no_such(host: Host, name: str) -> SykubeError:
    others = names(host)
    return SykubeError(
        f"there is no snapshot {name!r}",
        details=f"snapshots here: {', '.join(others)}" if others else "",
        resolution=f"Save one of a stopped cluster with: sykube snapshot save {name}",
        exit_code=ExitCode.NO_SUCH_SNAPSHOT,
    )


def _damaged(name: str, why: str) -> SykubeError:
    return SykubeError(
        f"the snapshot {name} is damaged",
        details=why,
        resolution=f"Take another one; `sykube snapshot delete {name}` removes it.",
    )
