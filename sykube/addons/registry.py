"""A registry for the cluster's own images: Debian's docker-registry, in a pod.

Whoever reaches this host's loopback, or a pod, can read and write it: it is for images alone that
everybody there may see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sykube.addons.addon import Manifested, Site
from sykube.errors import SykubeError
from sykube.image import versions
from sykube.kubernetes import api as kubernetes
from sykube.kubernetes.api import ApiError

NAME = "registry"
SERVICE = "/api/v1/namespaces/kube-system/services/registry"
_CLASS = "/apis/storage.k8s.io/v1/storageclasses/standard"


@dataclass(frozen=True)
class Registry(Manifested):
    """Its images are in a volume, which stays when it is switched off."""

    def variables(self, site: Site) -> dict[str, Any]:
        return {"image": versions.SYSTEM_IMAGE}

    def enable(self, site: Site) -> None:
        """See Addon.

        Raises:
            SykubeError: there is nothing to make its volume.
        """
        try:
            site.api.get(_CLASS)
        except ApiError as error:
            if error.status != 404:
                raise
            raise SykubeError(
                "the registry keeps its images in a volume, and there is no StorageClass standard",
                resolution="sykube addons enable storage",
            ) from error
        super().enable(site)

    def disable(self, site: Site) -> None:
        for each in reversed(self.objects(site)):
            if each["kind"] != "PersistentVolumeClaim":
                site.api.delete(f"{kubernetes.collection_path(each)}/{each['metadata']['name']}")


REGISTRY = Registry(
    name=NAME,
    summary="A registry for images, on this host's loopback and in the cluster",
    template="registry.yaml.j2",
    deployments=("kube-system/registry",),
)
