"""The cluster's data folder, in memory where it is ephemeral."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host import belonging
from sykube.host.host import Host


def exists(cluster: Cluster) -> bool:
    return (cluster.paths.root / "nodes").is_dir()


def make(cluster: Cluster) -> None:
    """Make what is in the data folder, which is there since the state lies in it."""
    for folder in ("nodes", "engine"):
        (cluster.paths.root / folder).mkdir(mode=0o700, exist_ok=True)


def remove(cluster: Cluster) -> None:
    """Remove the data folder, whatever it is: a folder, a link to one, a mount.

    And the folders above it that were made for it.
    """
    host, root = cluster.host, cluster.paths.root
    folder = root.resolve()
    if folder.is_dir():
        if host.is_mount(folder):
            host.run(["umount", folder])
        shutil.rmtree(folder)
    if root.is_symlink():
        root.unlink()
    belonging.forget(host, cluster.name)
    for owned in reversed(cluster.state.owned_folders):
        with contextlib.suppress(OSError):
            Path(owned).rmdir()


def make_root(host: Host, root: Path, dest: str, *, ephemeral: bool) -> list[str]:
    """Make the data folder of a cluster before anything is recorded in it.

    Returns:
        The folders above it that did not exist, the outermost first.

    Raises:
        SykubeError: a folder of that name below `dest` holds something already.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = root
    if dest and not root.is_symlink():
        folder = Path(dest) / root.name
        if folder.exists() and any(folder.iterdir()):
            raise SykubeError(
                f"{folder} is not empty",
                resolution="Give another folder with --dest, or move away what is there.",
            )
        root.symlink_to(folder)
    belonging.note(host, root.name)
    folder = root.resolve()
    made = make_folders(folder.parent) if dest else []
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    if ephemeral and not host.is_mount(folder):
        host.run(["mount", "-t", "tmpfs", "-o", "mode=711", "sykube", folder])
    return made


def remains_after_boot(cluster: Cluster) -> None:
    """Refuse to start from a data folder that lost the nodes' files.

    Raises:
        SykubeError: a node's folder is gone.
    """
    lost = [node.name for node in cluster.nodes if not node.exists()]
    if lost:
        raise SykubeError(
            f"the files of {', '.join(lost)} are gone",
            details=f"they were in {cluster.paths.root.resolve()}",
            resolution=f"sykube delete{cluster.name_option}, then init again.",
        )


def make_folders(folder: Path) -> list[str]:
    """Make a folder and those above it that do not exist; these, the outermost first."""
    made = [str(place) for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made[::-1]
