"""Volumes in a folder of the host that every node sees at the same place.

So a pod finds its volume on whatever node it is, and several nodes can write to one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sykube.addons.addon import Addon, AddonContext

# Where each node sees the host's folder; also in sykube/incluster/storage.py, by its command line.
VOLUMES = "/var/lib/sykube/volumes"


@dataclass(frozen=True)
class Storage(Addon):
    """Dynamic provisioning: a claim gets a folder, which goes with it."""

    def variables(self, context: AddonContext) -> dict[str, Any]:
        return {"volumes": VOLUMES}


STORAGE = Storage(
    name="storage",
    summary="A default StorageClass, and `shared` for ReadWriteMany, in the cluster's folder",
    template="storage.yaml.j2",
    deployments=("kube-system/storage",),
    by_default=True,
)
