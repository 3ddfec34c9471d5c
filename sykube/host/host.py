"""The machine that sykube runs on, as one object: where its files are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A machine; made once, in cli/, and passed on to whatever touches it.

    Attributes:
        root: its root folder; tests have one of their own.
    """

    root: Path = Path("/")

    @property
    def data(self) -> Path:
        """A folder for each cluster, and what clusters share."""
        return self.root / "var/lib/sykube"

    @property
    def records(self) -> Path:
        """The host's settings as they were before the first cluster."""
        return self.data / "host"

    @property
    def snapshots(self) -> Path:
        return self.data / "snapshots"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/sykube"

    @property
    def locks(self) -> Path:
        return self.root / "run/sykube"

    @property
    def cache(self) -> Path:
        """/var/cache/sykube, or SYKUBE_CACHE_DIR."""
        return Path(os.environ.get("SYKUBE_CACHE_DIR") or self.root / "var/cache/sykube")

    @property
    def proc_sys(self) -> Path:
        return self.root / "proc/sys"

    @property
    def cgroups(self) -> Path:
        """The root of the cgroup hierarchies."""
        return self.root / "sys/fs/cgroup"
