"""Unpacks the snapshot that a cluster is made of (init --from)."""

from __future__ import annotations

from sykube.cluster import reborn
from sykube.cluster.cluster import Cluster


class Unpack:
    name = "unpack"
    title = "Unpacking the snapshot"

    def is_done(self, cluster: Cluster) -> bool:
        return all(node.exists() for node in cluster.nodes)

    def apply(self, cluster: Cluster) -> None:
        reborn.unpack(cluster, cluster.nodes, volumes=True)

    def undo(self, cluster: Cluster) -> None:
        """Nothing outside the cluster's folder, which goes as a whole."""
