"""Addresses for Services of type LoadBalancer.

Each gets one of its own in the nodes' subnet, which the host reaches over the bridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sykube.addons.addon import Addon, AddonContext


@dataclass(frozen=True)
class LoadBalancer(Addon):
    """A controller that gives addresses and answers for them on the nodes' bridge."""

    def variables(self, context: AddonContext) -> dict[str, Any]:
        return {"pool": "-".join(context.load_balancers)}


LOAD_BALANCER = LoadBalancer(
    name="loadbalancer",
    summary="Addresses that this host reaches for Services of type LoadBalancer",
    template="loadbalancer.yaml.j2",
    deployments=("kube-system/loadbalancer",),
    by_default=True,
)
