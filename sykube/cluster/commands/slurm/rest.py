"""Tokens for the REST API of a Slurm cluster."""

from __future__ import annotations

from sykube.cluster.commands.slurm import jobs
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import SykubeError


def token(place: Place, user: str, lifetime_s: int) -> str:
    """A new token of a user: the first one where none is named.

    Raises:
        UsageError: there is no such user.
        SykubeError: there is no Slurm cluster (NO_SUCH_CLUSTER), it has no REST API, or slurmctld
            makes no token.
    """
    spec = place.require()
    chosen = jobs.user_of(spec, user)
    if not spec.rest:
        raise SykubeError(
            f"the Slurm cluster {place.namespace} has no REST API",
            resolution="Add it, with its other options as they are: "
            f"sykube slurm up{place.options} --rest",
        )
    found = place.controller.token(chosen, lifetime_s)
    if not found:
        raise SykubeError(
            f"slurmctld makes no token for {chosen}",
            resolution=f"See what it logs: sykube slurm logs{place.options}",
        )
    return found
