"""Pods that try what only the cluster knows: whether it lets a Slurm cluster be as it is to be."""

from __future__ import annotations

import secrets
from typing import Any

from sykube.cluster.commands.slurm.place import Place
from sykube.kubernetes.api import wait_until
from sykube.slurm import manifests
from sykube.slurm.spec import SlurmSpec

_PODS = "/api/v1/namespaces/default/pods"
# It takes a minute and a half at most, and an image may have to be there first.
_TIMEOUT_S = 180.0


def run(place: Place, spec: SlurmSpec, what: str, *words: str) -> int:
    """Run slurm-role in a pod of the namespace default, which is deleted again.

    Args:
        what: the pod does, for people.
        words: of slurm-role (definitions/slurm/slurm-role).

    Returns:
        Its exit code; -1 where its deadline ended it, or it was never started.

    Raises:
        SykubeError: it has not ended within 3 minutes.
    """
    name = f"slurm-probe-{secrets.token_hex(4)}"
    path = f"{_PODS}/{name}"
    try:
        place.api.apply(manifests.probe_object(spec, name, words))
        wait_until(
            place.cluster.host,
            f"the pod {name} of the namespace default, which {what}",
            lambda: "" if _exit_code(place.api.get(path)) is not None else "it has not ended",
            _TIMEOUT_S,
        )
        code = _exit_code(place.api.get(path))
    finally:
        place.api.delete(path)
    assert code is not None
    return code


def _exit_code(pod: dict[str, Any]) -> int | None:
    """What the probe has ended with; None while it runs."""
    for each in pod["status"].get("containerStatuses") or []:
        if ended := each["state"].get("terminated"):
            return int(ended["exitCode"])
    # By its deadline, or never started.
    return -1 if pod["status"].get("phase") == "Failed" else None
