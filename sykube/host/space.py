"""Room on the file system of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sykube.errors import SykubeError
from sykube.host.host import Host

# Kubelets do not look at the disk, which is the host's (kubeadm.py), and etcd stops when it is
# full: of these shares, the one is worth a warning, the other a failure.
_LOW, _LEAST = 0.15, 0.10
_LEAST_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Space:
    """What is free where a folder lies or will lie, in bytes."""

    place: Path
    free: int
    total: int

    @property
    def is_low(self) -> bool:
        return self.free < _LOW * self.total or self.is_short

    @property
    def is_short(self) -> bool:
        return self.free < max(_LEAST * self.total, _LEAST_BYTES)

    def __str__(self) -> str:
        return f"{_mb(self.free)} free of {_mb(self.total)} in {self.place}"


def free(host: Host, folder: Path) -> Space:
    """The space for a folder, which need not exist yet."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    usage = host.disk_usage(place)
    return Space(place, usage.free, usage.total)


def require(host: Host, folder: Path, needed: int) -> None:
    """Refuse what does not fit.

    Args:
        needed: bytes.

    Raises:
        SykubeError: there is less room.
    """
    found = free(host, folder)
    if found.free < needed:
        raise SykubeError(
            f"the disk is too small: {_mb(needed)} needed in {folder}",
            details=f"{_mb(found.free)} are free",
            resolution="Free some space: `sykube snapshot list` and `sykube node-image list` show "
            "what takes it.",
        )


def _mb(count: int) -> str:
    return f"{count // 1_000_000} MB"
