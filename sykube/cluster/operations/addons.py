"""The add-ons that a cluster begins with."""

from __future__ import annotations

from sykube.addons import catalog
from sykube.cluster.commands import addons
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.addon_site import site


class Addons:
    """Makes their objects; the step `ready` waits for their pods."""

    name = "addons"
    title = "Installing the add-ons"

    def is_done(self, cluster: Cluster) -> bool:
        return _wanted(cluster) <= {*cluster.state.addons}

    def apply(self, cluster: Cluster) -> None:
        wanted = _wanted(cluster)
        with cluster.api() as api:
            there = site(cluster, api)
            # In the order of the catalogue: some need others.
            for name in [each for each in catalog.NAMES if each in wanted]:
                catalog.find(name).enable(there)
        addons.record(cluster, wanted)

    def undo(self, cluster: Cluster) -> None:
        """What they have outside the cluster goes with its network and its nodes."""


def _wanted(cluster: Cluster) -> set[str]:
    return {addon.name for addon in catalog.ALL if addon.by_default} | {*cluster.state.spec.addons}
