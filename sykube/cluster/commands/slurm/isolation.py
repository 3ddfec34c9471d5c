"""Whether a Slurm cluster that believes everybody is reached by its own pods only: by trying."""

from __future__ import annotations

from sykube.cluster.commands.slurm import probe
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import SykubeError, UsageError
from sykube.slurm.controller import POD
from sykube.slurm.spec import SlurmSpec

# The probe's exit codes: definitions/slurm/slurm-role, outside.
_UNREACHED, _REACHED = 0, 3


def require(place: Place, spec: SlurmSpec) -> None:
    """Refuse a namespace whose slurmctld, which is up, a pod of another namespace reaches.

    Raises:
        UsageError: it does.
        SykubeError: the pod cannot tell.
    """
    service, pod = place.get("services", "slurmctld"), place.get("pods", POD)
    assert service
    assert pod
    addresses = (service["spec"]["clusterIP"], pod["status"]["podIP"])
    code = probe.run(place, spec, "tries to reach slurmctld", "outside", *addresses)
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
