"""Folders of the host that nodes see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sykube.errors import UsageError

# What nodes are made of, and what they have of their own at these places.
_RESERVED = ("/", "/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/usr", "/var")
_RESERVED_BELOW = (
    *("/dev", "/etc/kubernetes", "/etc/sykube", "/proc", "/run", "/sys", "/usr"),
    *("/var/lib/containerd", "/var/lib/etcd", "/var/lib/kubelet", "/var/lib/sykube", "/var/log"),
    "/var/run",
)
# Where kind's users have the policy of audit logs: site/content/docs/user/auditing.md of kind.
_FREE_BELOW = ("/etc/kubernetes/policies",)


@dataclass(frozen=True)
class Mount:
    """A folder of the host at a place in every node.

    Attributes:
        host: the folder, or file.
        inside: where the nodes see it.
    """

    host: Path
    inside: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Read HOST:NODE or HOST:NODE:ro, both absolute.

        Raises:
            ValueError: it is not that, or nodes have something of their own there.
        """
        parts = text.split(":")
        read_only = len(parts) == 3 and parts[2] == "ro"
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise ValueError(f"the mount {text!r} is not HOST:NODE, such as /scratch:/scratch")
        if not all(part.startswith("/") for part in parts[:2]) or "," in text:
            raise ValueError(f"the mount {text!r} needs two absolute paths, without commas")
        inside = PurePosixPath(parts[1])
        if ".." in inside.parts:
            raise ValueError(f"the mount {text!r} has .. in its second path")
        below = any(inside.is_relative_to(place) for place in _RESERVED_BELOW)
        free = any(inside.is_relative_to(place) for place in _FREE_BELOW)
        if str(inside) in _RESERVED or (below and not free):
            raise ValueError(f"the mount {text!r} is where nodes have something of their own")
        return cls(Path(parts[0]), str(inside), read_only)

    @property
    def destination(self) -> str:
        """The second half of the engine's --bind."""
        return f"{self.inside}:ro" if self.read_only else self.inside

    def check(self) -> None:
        """Refuse what is not there.

        Raises:
            UsageError: the host has no such folder.
        """
        if not self.host.exists():
            raise UsageError(
                f"the folder {self.host} to be mounted does not exist",
                resolution=f"Make it, or leave --mount out: mkdir {self.host}",
            )
