"""Whether a Slurm cluster that believes everybody is reached by its own pods only: by trying."""

from __future__ import annotations

import secrets
from typing import Any

from sykube.cluster.commands.slurm.place import Place
from sykube.errors import SykubeError, UsageError
from sykube.kubernetes.api import wait_until
from sykube.slurm import manifests
from sykube.slurm.controller import POD
from sykube.slurm.spec import SlurmSpec

_PODS = "/api/v1/namespaces/default/pods"
# The probe's exit codes: definitions/slurm/slurm-role, outside.
_UNREACHED, _REACHED = 0, 3
# It takes a minute and a half at most, and an image may have to be there first.
_TIMEOUT_S = 180.0


def require(place: Place, spec: SlurmSpec) -> None:
    """Refuse a namespace whose slurmctld, which is up, a pod of another namespace reaches.

    Raises:
        UsageError: it does.
        SykubeError: the pod cannot tell.
    """
    service, pod = place.get("services", "slurmctld"), place.get("pods", POD)
    assert service
    assert pod
    name = f"slurm-probe-{secrets.token_hex(4)}"
    path = f"{_PODS}/{name}"
    addresses = [service["spec"]["clusterIP"], pod["status"]["podIP"]]
    try:
        place.api.apply(manifests.probe_object(spec, name, addresses))
        wait_until(
            place.cluster.host,
            f"the pod {name} of the namespace default, which tries to reach slurmctld",
            lambda: "" if _exit_code(place.api.get(path)) is not None else "it has not ended",
            _TIMEOUT_S,
        )
        code = _exit_code(place.api.get(path))
    finally:
        place.api.delete(path)
    if code == _UNREACHED:
        return
    if code == _REACHED:
        raise UsageError(
            f"--auth none: other namespaces reach the slurmctld of {spec.namespace}",
            details="no NetworkPolicy keeps them away, or none is enforced",
            resolution=f"sykube addons enable network-policy{place.cluster.name_option}\n"
            "  Or let Slurm know who asks: --auth slurm",
        )
    raise SykubeError(
        "--auth none: whether other namespaces reach slurmctld cannot be told",
        details=f"a pod of the namespace default reaches nothing at all (exit code {code})",
        resolution="Let pods of the namespace default reach the API server, or take --auth slurm.",
    )


def _exit_code(pod: dict[str, Any]) -> int | None:
    """What the probe has ended with; None while it runs."""
    for each in pod["status"].get("containerStatuses") or []:
        if ended := each["state"].get("terminated"):
            return int(ended["exitCode"])
    # By its deadline, or never started.
    return -1 if pod["status"].get("phase") == "Failed" else None
