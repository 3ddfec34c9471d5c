"""Where sykube keeps its things on the host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DATA = Path("/var/lib/sykube")
HOST_RECORDS = DATA / "host"
SNAPSHOTS = DATA / "snapshots"
LOGS = Path("/var/log/sykube")
LOCKS = Path("/run/sykube")
# Stands for --name where that is not given.
CLUSTER_VARIABLE = "SYKUBE_CLUSTER"


def cache_dir() -> Path:
    """/var/cache/sykube, or SYKUBE_CACHE_DIR."""
    return Path(os.environ.get("SYKUBE_CACHE_DIR") or "/var/cache/sykube")


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster.

    `root` is a link where the cluster lives in another folder (--dest).
    """

    name: str

    @property
    def root(self) -> Path:
        return DATA / self.name

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def volumes(self) -> Path:
        """What claims have asked for; every node sees it."""
        return self.root / "volumes"

    @property
    def engine(self) -> Path:
        """The engine's own configuration for this cluster: CNI and apptainer.conf."""
        return self.root / "engine"

    @property
    def pod_network(self) -> Path:
        """The manifest of the pod network that init applies, where there is one."""
        return self.root / "pod-network.yaml"

    @property
    def lock(self) -> Path:
        return LOCKS / f"{self.name}.lock"

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def node_logs(self) -> Path:
        """Where the logs of nodes go when init fails."""
        return LOGS / self.name

    def node(self, instance: str) -> Path:
        return self.root / "nodes" / instance
