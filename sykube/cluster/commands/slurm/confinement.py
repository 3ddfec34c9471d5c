"""Whether slurmd can make cgroups for its jobs in the pods of a cluster."""

from __future__ import annotations

from sykube.cluster.commands.slurm import probe
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.node import cgroups
from sykube.slurm.spec import SlurmSpec

_INSTEAD = "Let each job have a pod of its own: --confine pod"


def require_version(host: Host) -> None:
    """Refuse cgroups for jobs on a host whose cgroups are not of the version that slurmd is told.

    Raises:
        UsageError: they are of v2.
    """
    if cgroups.is_v2(host):
        raise UsageError(
            "--confine cgroup: it is for cgroup v1, and this host has cgroup v2",
            resolution=_INSTEAD,
        )


def require(place: Place, spec: SlurmSpec) -> None:
    """Refuse them where a pod with slurmd's rights cannot make any: by trying.

    Raises:
        UsageError: it cannot.
        SykubeError: the pod has not ended within 3 minutes.
    """
    if code := probe.run(place, spec, "tries to make cgroups", "confines"):
        raise UsageError(
            "--confine cgroup: pods of this cluster cannot make cgroups",
            details="one of the namespace default with CAP_SYS_ADMIN could not mount its own to be "
            f"written to (exit code {code})",
            resolution=_INSTEAD,
        )
