"""The add-ons that there are."""

from __future__ import annotations

from sykube.addons.addon import Addon
from sykube.addons.loadbalancer import LOAD_BALANCER
from sykube.addons.metrics import METRICS
from sykube.addons.network_policy import NETWORK_POLICY
from sykube.addons.registry import REGISTRY
from sykube.addons.storage import STORAGE
from sykube.errors import UsageError

ALL: tuple[Addon, ...] = (NETWORK_POLICY, STORAGE, LOAD_BALANCER, REGISTRY, METRICS)
NAMES = tuple(addon.name for addon in ALL)


def find(name: str) -> Addon:
    """The add-on of that name.

    Raises:
        UsageError: there is none; names those that there are.
    """
    for addon in ALL:
        if addon.name == name:
            return addon
    raise UsageError(
        f"there is no add-on {name!r}",
        details=f"add-ons: {', '.join(NAMES)}",
        resolution="sykube addons list says what each is for.",
    )
