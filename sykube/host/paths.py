"""Where sykube keeps its things on the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host

# Stands for --name where that is not given.
CLUSTER_VARIABLE = "SYKUBE_CLUSTER"


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster.

    `root` is a link where the cluster lives in another folder (--dest).
    """

    host: Host
    name: str

    @property
    def root(self) -> Path:
        return self.host.data / self.name

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
    def sifs(self) -> Path:
        """SIFs that nodes run as they are; every node sees it."""
        return self.root / "sifs"

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
        return self.host.locks / f"{self.name}.lock"

    @property
    def log(self) -> Path:
        return self.host.logs / f"{self.name}.log"

    @property
    def node_logs(self) -> Path:
        """Where the logs of nodes go when init fails."""
        return self.host.logs / self.name

    def node(self, instance: str) -> Path:
        return self.root / "nodes" / instance
