"""Addresses for Services of type LoadBalancer.

Each gets its cluster address, which the host reaches by the route to the Services.
"""

from __future__ import annotations

from sykube.addons.addon import Addon

LOAD_BALANCER = Addon(
    name="loadbalancer",
    summary="Addresses that this host reaches for Services of type LoadBalancer",
    template="loadbalancer.yaml.j2",
    deployments=("kube-system/loadbalancer",),
    by_default=True,
)
