"""A registry for the cluster's own images: Debian's docker-registry, in a pod.

Whoever reaches this host's loopback, or a pod, can read and write it: it is only for images
that everybody there may see.
"""

from __future__ import annotations

from dataclasses import dataclass

from sykube.addons.addon import Addon, AddonContext
from sykube.errors import SykubeError
from sykube.kubernetes.api import Api, ApiError, wait_until

_DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/registry"
_SERVICE = "/api/v1/namespaces/kube-system/services/registry"
_CLASS = "/apis/storage.k8s.io/v1/storageclasses/standard"
_ANSWER_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Registry(Addon):
    """Its images are in a volume; the host and the nodes reach it by a port of the host."""

    def enable(self, context: AddonContext) -> None:
        """As Addon.enable.

        Raises:
            SykubeError: there is nothing to make its volume, or no port of the host is free.
        """
        try:
            context.api.get(_CLASS)
        except ApiError as error:
            if error.status != 404:
                raise
            raise SykubeError(
                "the registry keeps its images in a volume, and there is no StorageClass standard",
                resolution="sykube addons enable storage",
            ) from error
        super().enable(context)
        service = context.api.get(_SERVICE)
        context.registry_port.open(int(service["spec"]["ports"][0]["nodePort"]))

    def disable(self, context: AddonContext) -> None:
        context.registry_port.close()
        super().disable(context)

    def wait(self, context: AddonContext) -> None:
        """Wait until it answers: nodes send connections to a new pod a moment after it is Ready.

        Raises:
            SykubeError: it does not in the time of wait_until.
        """
        if context.registry_port.is_open() and _has_pods(context.api):
            wait_until(
                context.host, "the registry", context.registry_port.problem, _ANSWER_TIMEOUT_S
            )

    def problem(self, context: AddonContext) -> str:
        return super().problem(context) or context.registry_port.problem()


def _has_pods(api: Api) -> bool:
    """The user has neither removed its Deployment nor scaled it to nothing."""
    try:
        return bool(api.get(_DEPLOYMENT)["spec"]["replicas"])
    except ApiError as error:
        if error.status != 404:
            raise
        return False


REGISTRY = Registry(
    name="registry",
    summary="A registry for images, on this host's loopback and in the cluster",
    template="registry.yaml.j2",
    deployments=("kube-system/registry",),
    kept=("PersistentVolumeClaim",),
)
