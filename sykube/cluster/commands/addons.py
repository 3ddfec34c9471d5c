"""Add-ons of a cluster, switched on and off."""

from __future__ import annotations

from dataclasses import dataclass

from sykube.addons import catalog
from sykube.addons.addon import Addon
from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.addons import (
    addon_context,
    check_pod_network,
    lacking_package,
    record,
)
from sykube.cluster.operations.opening import opened
from sykube.errors import SykubeError, UsageError
from sykube.host.host import Host
from sykube.kubernetes import readiness
from sykube.kubernetes.api import Api, wait_until
from sykube.ui import Ui

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Listed:
    """An add-on as `addons list` shows it."""

    name: str
    enabled: bool
    summary: str


def listing(cluster: Cluster) -> list[Listed]:
    """All add-ons, by what the cluster's record says of them."""
    return [
        Listed(addon.name, addon.name in cluster.state.addons, addon.summary)
        for addon in catalog.ALL
    ]


def enable(host: Host, name: str, addon_name: str, ui: Ui) -> bool:
    """Switch an add-on on and wait until it works; one that works already is left as it is.

    Returns:
        Whether anything was done.

    Raises:
        UsageError: there is no such add-on, or not for this cluster.
        SykubeError: the cluster does not run (STOPPED) or has no pod network yet, or the add-on
            does not come to work: it is switched off again.
    """
    addon = catalog.find(addon_name)
    with opened(host, name, ui, updating=True) as cluster:
        _require_fitting(cluster, addon)
        with cluster.api() as api:
            there = addon_context(cluster, api)
            if addon_name in cluster.state.addons and not addon.problem(there):
                return False
            _require_pod_network(cluster, api, addon_name)
            with ui.step(f"Enabling {addon_name}"):
                try:
                    addon.enable(there)
                    what = f"the add-on {addon_name}"
                    wait_until(host, what, lambda: addon.problem(there), _TIMEOUT_S)
                except BaseException:
                    if addon_name not in cluster.state.addons:
                        addon.disable(there)
                    raise
        record(cluster, {*cluster.state.addons, addon_name})
        return True


def disable(host: Host, name: str, addon_name: str, ui: Ui) -> bool:
    """Switch an add-on off.

    Returns:
        Whether it was on.

    Raises:
        UsageError: there is no such add-on.
        SykubeError: the cluster does not run (STOPPED).
    """
    addon = catalog.find(addon_name)
    with opened(host, name, ui, updating=True) as cluster:
        if addon_name not in cluster.state.addons:
            return False
        with cluster.api() as api:
            there = addon_context(cluster, api)
            loss = addon.loss(there)
            with ui.step(f"Disabling {addon_name}"):
                addon.disable(there)
        record(cluster, {*cluster.state.addons} - {addon_name})
        if loss:
            ui.warn(loss)
        return True


def _require_fitting(cluster: Cluster, addon: Addon) -> None:
    check_pod_network(addon, cluster.state.spec.pod_network)
    if package := lacking_package(cluster, addon):
        raise UsageError(
            f"the add-on {addon.name} needs {package}, which this cluster's node image lacks",
            resolution="It is of an earlier sykube: create the cluster again.",
        )


def _require_pod_network(cluster: Cluster, api: Api, addon_name: str) -> None:
    if cluster.pod_network.is_awaited(readiness.registered(api), cluster.nodes):
        raise SykubeError(
            f"the add-on {addon_name} needs a pod network, and {pod_network.NO_PLUGIN}",
            resolution=pod_network.INSTALL,
        )
