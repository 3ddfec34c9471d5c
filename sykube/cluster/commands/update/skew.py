"""Which version of Kubernetes may follow which.

Source: https://kubernetes.io/releases/version-skew-policy/ and
https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sykube.errors import SykubeError, UsageError

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
# From this kubelet on, three minor versions may lie between it and the API server; before, two.
_WIDER_SINCE = 25


def require_supported_skew(running: str, kubelets: Mapping[str, str], wanted: str) -> None:
    """Refuse a version that a cluster cannot be brought to.

    Args:
        running: the oldest of its API servers.
        kubelets: each node's version by its name.
        wanted: what it is to be brought to.

    Raises:
        UsageError: it is an older one, or more than one minor version further.
        SykubeError: a kubelet is newer than `running`, or too old for `wanted`.
    """
    now, then = parse(running), parse(wanted)
    if then < now:
        raise UsageError(
            f"Kubernetes {wanted} is older than {running}, which the cluster runs: there is no way "
            "back to an older version",
            resolution="Make another cluster of it: sykube init --name NAME --kubernetes-version "
            f"{wanted.removeprefix('v')}",
        )
    if then[0] != now[0] or then[1] - now[1] > 1:
        following = f"{now[0]}.{now[1] + 1}"
        raise UsageError(
            f"Kubernetes {wanted} is more than one minor version after {running}, which the "
            "cluster runs",
            details="An API server may not skip a minor version.",
            resolution=f"Go there one by one, first to: --kubernetes-version {following}",
        )
    for node, version in kubelets.items():
        found = parse(version)
        if found > now:
            raise SykubeError(
                f"the kubelet of {node} is {version}, newer than the API server, which is "
                f"{running}",
                resolution=f"Remove {node} and add it again: sykube node delete, sykube node add",
            )
        if then[1] - found[1] > (3 if found[1] >= _WIDER_SINCE else 2):
            raise SykubeError(
                f"the kubelet of {node} is {version}, too old for an API server of {wanted}",
                resolution=f"Remove {node} and add it again: sykube node delete, sykube node add",
            )


def parse(version: str) -> tuple[int, int, int]:
    """MAJOR, MINOR and PATCH.

    Raises:
        SykubeError: it is no version.
    """
    found = _VERSION.match(version)
    if not found:
        raise SykubeError(
            f"{version!r} is no version of Kubernetes",
            resolution="`sykube versions` lists those that there are.",
        )
    return int(found[1]), int(found[2]), int(found[3])
