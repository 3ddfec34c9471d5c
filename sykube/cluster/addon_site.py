"""The cluster as its add-ons see it."""

from __future__ import annotations

from sykube.addons import catalog
from sykube.addons.addon import AddonContext
from sykube.cluster.cluster import DOMAIN, Cluster
from sykube.cluster.registries import RegistryPort
from sykube.kubernetes.api import Api


def site(cluster: Cluster, api: Api) -> AddonContext:
    """What add-ons are told."""
    addresses = cluster.state.subnets.load_balancers
    return AddonContext(
        cluster.host, api, DOMAIN, addresses, tuple(cluster.nodes), RegistryPort(cluster)
    )


def settle(cluster: Cluster, api: Api, *, networked: bool) -> None:
    """Tell the add-ons that are on which nodes there are; all of them are up.

    Args:
        networked: whether there is a pod network; without one nothing is waited for.
    """
    there = site(cluster, api)
    for name in cluster.state.addons:
        addon = catalog.find(name)
        addon.sync_nodes(there)
        if networked:
            addon.wait(there)
