"""The files of a node that belong to its node image, kept in step with it.

containerd of a node has links into the image that it was first started from, and the overlay can
hold files that would hide those of another image. Whoever starts a node from another image calls
`fit` first; what went out of the way is kept until the update is through, for the way back.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from sykube.host.files import write_atomically

# Below the overlay: what comes with the image, and not by what a node does. The others, such as
# /etc/kubernetes, are the node's own.
_OF_IMAGE = ("etc/containerd", "etc/ssl/certs", "etc/supervisor", "var/lib/dpkg")
_USERS_OWN = "local"
# node-init adds the authorities of the site anew where this is not there.
_AUTHORITIES = "usr/local/share/ca-certificates/sykube/complete"


def fit(folder: Path, fingerprint: str, present: str) -> None:
    """Make a node's files fit the image that it is to be started from; it does not run.

    May be called again after it was interrupted.

    Args:
        folder: the node's.
        fingerprint: of that image.
        present: of the one that they fit where nothing is noted.
    """
    fits = _noted(folder) or present
    if fits == fingerprint:
        return
    if _noted(aside(folder)) == fingerprint:
        _put_back(folder, aside(folder))
    else:
        _put_aside(folder, aside(folder), fits)
    _note(folder, fingerprint)


def aside(folder: Path) -> Path:
    """What went out of the way: the folders upper and containerd, where there is any."""
    return folder / "before"


def _put_aside(folder: Path, aside: Path, fits: str) -> None:
    aside.mkdir(mode=0o700, exist_ok=True)
    if not _noted(aside):
        upper = folder / "overlay" / "upper"
        for file in _shadows(upper):
            target = aside / "upper" / file.relative_to(upper)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        (upper / _AUTHORITIES).unlink(missing_ok=True)
        if (folder / "containerd").exists() and not (aside / "containerd").exists():
            (folder / "containerd").rename(aside / "containerd")
        _note(aside, fits)
    # Whatever is there now is of a start that was interrupted.
    shutil.rmtree(folder / "containerd", ignore_errors=True)
    (folder / "containerd").mkdir(mode=0o700)


def _put_back(folder: Path, aside: Path) -> None:
    upper = folder / "overlay" / "upper"
    for file in _shadows(upper):
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    for file in _shadows(aside / "upper"):
        target = upper / file.relative_to(aside / "upper")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    if (aside / "containerd").exists():
        shutil.rmtree(folder / "containerd", ignore_errors=True)
        (aside / "containerd").rename(folder / "containerd")
    _note(folder, _noted(aside))
    shutil.rmtree(aside)


def _shadows(upper: Path) -> list[Path]:
    """What an overlay holds that would hide files of another image."""
    found = [upper / name for name in _OF_IMAGE]
    with contextlib.suppress(FileNotFoundError):
        found += [file for file in (upper / "usr").iterdir() if file.name != _USERS_OWN]
    return [file for file in found if file.exists() or file.is_symlink()]


def _noted(folder: Path) -> str:
    """The fingerprint of the image that files fit, where that was noted."""
    try:
        return (folder / "image").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _note(folder: Path, fingerprint: str) -> None:
    write_atomically(folder / "image", fingerprint + "\n", mode=0o600)
