"""The user's manifest of a pod network, applied to the cluster."""

from __future__ import annotations

from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host.run import WITHOUT_PROXIES, CommandError
from sykube.kubernetes.api import wait_until

_TIMEOUT_S = 120.0
# Kinds that the manifest itself defines are served a moment after kubectl has made them.
_NOT_YET = "no matches for kind"


def apply(cluster: Cluster) -> None:
    """Apply it; whether nodes become Ready by it is not waited for.

    Raises:
        SykubeError: it cannot be applied.
    """
    try:
        wait_until(
            cluster.host, "the kinds of the pod network", lambda: _problem(cluster), _TIMEOUT_S
        )
    except SykubeError as error:
        raise SykubeError(
            f"{cluster.state.spec.pod_network} cannot be applied",
            details=error.details or error.brief,
            resolution="Correct it and init again.",
        ) from error


def _problem(cluster: Cluster) -> str:
    """Apply it; what it does not know yet, or nothing.

    Raises:
        CommandError: kubectl failed for good.
    """
    kubectl, manifest = cluster.image.kubectl, cluster.paths.pod_network
    env = {**WITHOUT_PROXIES, "KUBECONFIG": str(cluster.paths.kubeconfig)}
    try:
        cluster.host.run(
            [kubectl, "apply", "--server-side", "-f", manifest], env=env, timeout=_TIMEOUT_S
        )
    except CommandError as error:
        if _NOT_YET not in error.output:
            raise
        return error.output
    return ""
