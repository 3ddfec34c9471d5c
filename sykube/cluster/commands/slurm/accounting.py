"""What a Slurm cluster keeps of jobs that have ended."""

from __future__ import annotations

from sykube.cluster.commands.slurm.place import Place
from sykube.errors import SykubeError
from sykube.host.run import CommandError
from sykube.slurm import efficiency, sacct
from sykube.slurm.efficiency import Survey

# src/sacct/options.c, where AccountingStorageType is none.
_DISABLED = "accounting storage is disabled"


def collect(place: Place) -> str:
    """All jobs of a Slurm cluster, as sacct prints them.

    Raises:
        SykubeError: there is no Slurm cluster (NO_SUCH_CLUSTER), or it has no accounting.
    """
    place.require()
    try:
        return place.controller.accounting()
    except CommandError as error:
        if _DISABLED not in error.output:
            raise
        raise SykubeError(
            f"the Slurm cluster {place.namespace} has no accounting of what its jobs took",
            resolution="Add it, with its other options as they are: "
            f"sykube slurm up{place.options} --accounting\n"
            "  Or give the output of another cluster's sacct: --file FILE",
        ) from error


def survey(place: Place) -> Survey:
    """What the jobs of a Slurm cluster have made of its CPUs.

    Raises:
        UsageError: no job has ended that took any time.
        SykubeError: as of `collect`.
    """
    jobs = sacct.read(collect(place).splitlines(), "sacct")
    return efficiency.survey(place.namespace, jobs)
