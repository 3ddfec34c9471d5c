"""Node images as folders: a user has no loop device to mount a SIF by.

squashfuse would mount it, and fuse-overlayfs what a node writes, where the machine has both and
lets users have /dev/fuse. A folder needs nothing of that, is read by the kernel itself, and can
belong to a user who has one ID only. It is unpacked once, into the user's cache.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sykube.errors import HostError, SykubeError
from sykube.host import lock
from sykube.host.host import Host

_TIMEOUT_S = 1800.0
# What cannot be kept, such as devices and owners, is no error: unsquashfs(1), exit status.
_NOT_FATAL = (0, 2)
_INIT = "usr/lib/sykube/node-init"
# A SIF's descriptors begin where its header says: github.com/apptainer/sif, pkg/sif/sif.go.
_SQUASHFS_MAGIC = b"hsqs"
_ALIGNMENT = 4096
_ONE_USER = "-one-user"
_UNPACKING = ".unpacking-"


def folder(host: Host) -> Path:
    return host.cache / "unpacked"


def root_of(host: Host, sif: Path) -> Path:
    """The root folder of a node image; several nodes that ask at once wait for one.

    Raises:
        SykubeError: it cannot be unpacked.
    """
    root = _place(host, sif)
    if not root.is_dir():
        with lock.in_turn(folder(host)):
            if not root.is_dir():
                # Of one that was killed: whoever unpacks holds the folder.
                for left in folder(host).glob(f"{_UNPACKING}*"):
                    shutil.rmtree(left, ignore_errors=True)
                _make(host, sif, root)
    return root


def prune(host: Host, keep: frozenset[str]) -> list[Path]:
    """Remove those that are not of images with some fingerprints.

    Returns:
        What was removed.
    """
    if not folder(host).is_dir():
        return []
    with lock.in_turn(folder(host)):
        there = [each for each in folder(host).iterdir() if each.is_dir()]
        removed = [each for each in there if each.name.removesuffix(_ONE_USER) not in keep]
        for each in removed:
            shutil.rmtree(each)
    return removed


def keep(host: Host, work: Path, sif: Path) -> None:
    """Let an image that was looked into while its folder had another name be found by its own.

    Args:
        work: the folder that it was in, below another name than it has now.
        sif: where it is now.
    """
    root = _place(host, work / sif.name)
    if root.is_dir():
        shutil.rmtree(_place(host, sif), ignore_errors=True)
        root.rename(_place(host, sif))


def forget(host: Host, work: Path) -> None:
    """Remove what was unpacked of an image that was not kept."""
    shutil.rmtree(_place(host, work / "node.sif"), ignore_errors=True)


def _place(host: Host, sif: Path) -> Path:
    return folder(host) / f"{sif.parent.name}{'' if host.grants.users else _ONE_USER}"


def _make(host: Host, sif: Path, root: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=root.parent))
    try:
        unpack(host, sif, work / "root")
        if not (work / "root" / _INIT).exists():
            raise SykubeError(
                f"{sif} is no node image of sykube",
                resolution="Make one with: sykube node-image build",
            )
        (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def unpack(host: Host, sif: Path, root: Path) -> None:
    """Unpack any SIF into a folder that is not there yet.

    Raises:
        SykubeError: it cannot be unpacked.
    """
    if host.which("unsquashfs") is None:
        raise HostError(
            "could not find unsquashfs, which is required to unpack images",
            resolution="Ask the administrator for: apt-get install -y squashfs-tools",
        )
    # As an ordinary user it leaves owners alone, of which there is one; root's chown would fail for
    # each file.
    alone = [] if host.grants.users else ["unshare", "--user", "--map-user=1", "--map-group=1"]
    options = [] if host.grants.users else ["-no-xattrs"]
    done = host.run(
        [
            *alone, "unsquashfs", "-quiet", "-no-progress", "-offset", str(_offset(sif)),
            *options, "-dest", root, sif,
        ],
        timeout=_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.code not in _NOT_FATAL or not root.is_dir():
        raise SykubeError(
            f"{sif} cannot be unpacked into {root.parent}",
            details="\n".join((done.stdout + done.stderr).splitlines()[-5:]),
            resolution="Make room there, or set SYKUBE_CACHE_DIR to another folder.",
        )
    root.chmod(0o755)


def _offset(sif: Path) -> int:
    """Where its file system begins, in bytes.

    Raises:
        SykubeError: it has none.
    """
    with sif.open("rb") as file:
        for place in range(0, sif.stat().st_size, _ALIGNMENT):
            file.seek(place)
            if file.read(len(_SQUASHFS_MAGIC)) == _SQUASHFS_MAGIC:
                return place
    raise SykubeError(
        f"{sif} holds no squashfs",
        resolution="Build it again: sykube node-image build --force",
    )
