"""The add-ons of a cluster: what they are told of it, and which are on."""

from __future__ import annotations

from sykube.addons import catalog
from sykube.addons.addon import Addon, AddonContext
from sykube.cluster.model.cluster import DOMAIN, Cluster
from sykube.cluster.model.pod_network import from_setting
from sykube.cluster.operations.registries import RegistryPort
from sykube.errors import UsageError
from sykube.kubernetes.api import Api


def addon_context(cluster: Cluster, api: Api) -> AddonContext:
    """What add-ons are told."""
    addresses = cluster.state.subnets.load_balancers
    return AddonContext(
        cluster.host,
        api,
        DOMAIN,
        f"https://{cluster.endpoint}",
        addresses,
        tuple(cluster.nodes),
        RegistryPort(cluster),
    )


def reconcile(cluster: Cluster, api: Api, *, networked: bool) -> None:
    """Tell the add-ons that are on which nodes there are; all of them are up.

    Args:
        networked: whether there is a pod network; without one nothing is waited for.
    """
    there = addon_context(cluster, api)
    for name in cluster.state.addons:
        addon = catalog.find(name)
        addon.sync_nodes(there)
        if networked:
            addon.wait(there)


def are_enabled(cluster: Cluster) -> bool:
    """Whether those are on that a cluster begins with."""
    return _wanted(cluster) <= {*cluster.state.addons}


def enable(cluster: Cluster) -> None:
    """Make the objects of those that a cluster begins with; `reconcile` waits for their pods."""
    wanted = _wanted(cluster)
    with cluster.api() as api:
        there = addon_context(cluster, api)
        # In the order of the catalogue: some need others.
        for name in [each for each in catalog.NAMES if each in wanted]:
            catalog.find(name).enable(there)
    record(cluster, wanted)


def record(cluster: Cluster, names: set[str]) -> None:
    """Note which add-ons are on, in the order of the catalogue."""
    cluster.state.addons = [name for name in catalog.NAMES if name in names]
    cluster.save()


def check_pod_network(addon: Addon, pod_network: str) -> None:
    """Refuse an add-on that is a part of a pod network which a cluster has not.

    Args:
        pod_network: as --pod-network has it.

    Raises:
        UsageError: it is.
    """
    if addon.of_bridge and not from_setting(pod_network).built_in:
        raise UsageError(
            f"the add-on {addon.name} is a part of sykube's own pod network",
            resolution=f"With --pod-network {pod_network}, see what that CNI plugin has.",
        )


def fits(cluster: Cluster, addon: Addon) -> bool:
    """Whether a cluster can have an add-on: its pod network and its node image are for it."""
    suits = cluster.pod_network.built_in or not addon.of_bridge
    return suits and not lacking_package(cluster, addon)


def lacking_package(cluster: Cluster, addon: Addon) -> str:
    """What an add-on needs of Debian's packages and the cluster's node image lacks, or nothing."""
    return "" if not addon.package or addon.package in cluster.state.versions else addon.package


def _wanted(cluster: Cluster) -> set[str]:
    asked = cluster.state.spec.addons
    wanted = [addon for addon in catalog.ALL if addon.by_default or addon.name in asked]
    return {addon.name for addon in wanted if fits(cluster, addon)}
