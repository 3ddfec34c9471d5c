"""The cluster's DNS."""

from __future__ import annotations

from sykube.addons import dns
from sykube.cluster.cluster import DOMAIN, Cluster


class Dns:
    name = "dns"
    title = "Adding the cluster DNS"

    def is_done(self, cluster: Cluster) -> bool:
        with cluster.api() as api:
            return dns.is_installed(api)

    def apply(self, cluster: Cluster) -> None:
        subnets = cluster.state.subnets
        with cluster.api() as api:
            dns.install(
                api,
                cluster_ip=subnets.dns,
                domain=DOMAIN,
                reverse_cidrs=(str(subnets.services), str(subnets.pods)),
                endpoint=cluster.endpoint,
                # Where a node may fail, names go on being answered.
                replicas=min(2, len(cluster.control_planes)),
            )

    def undo(self, cluster: Cluster) -> None:
        """It lives in the cluster alone."""
