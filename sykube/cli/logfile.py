"""sykube's own log file of a cluster that is there; what nodes log is in logs.py."""

from __future__ import annotations

from sykube.cli import context
from sykube.cluster.model import lookup
from sykube.host import identity


def open_for(name: str) -> None:
    """Log to the cluster's file from here on; a name that no cluster has gets none.

    Raises:
        SykubeError: the caller is not root, or there is no such cluster.
    """
    identity.check(context.host())
    if not lookup.exists(context.host(), name):
        raise lookup.no_such_cluster(context.host(), name)
    context.open_log(name)
