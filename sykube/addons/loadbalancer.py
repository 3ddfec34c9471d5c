"""Addresses for Services of type LoadBalancer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sykube.addons.addon import Manifested, Site
from sykube.image import versions


@dataclass(frozen=True)
class LoadBalancer(Manifested):
    """Each gets its cluster address, which the host reaches by the route to the Services."""

    def variables(self, site: Site) -> dict[str, Any]:
        return {"image": versions.SYSTEM_IMAGE}


LOAD_BALANCER = LoadBalancer(
    name="loadbalancer",
    summary="Addresses that this host reaches for Services of type LoadBalancer",
    template="loadbalancer.yaml.j2",
    deployments=("kube-system/loadbalancer",),
    by_default=True,
)
