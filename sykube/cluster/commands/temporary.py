"""A cluster for one use: made for it, and deleted after it."""

from __future__ import annotations

from collections.abc import Callable

from sykube.cluster.commands import lifecycle, removal
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import SykubeError
from sykube.host import signals
from sykube.host.host import Host
from sykube.ui import Ui


def run(
    host: Host, spec: ClusterSpec, options: InitOptions, use: Callable[[Cluster], int], ui: Ui
) -> int:
    """Make a cluster, use it, and delete it, also after an error.

    Returns:
        What `use` returns.

    Raises:
        SykubeError: there is a cluster of that name, or none could be made: it is not used then.
    """
    if lookup.exists(host, spec.name):
        raise _taken(spec.name)
    cluster = lifecycle.init(host, spec, options, ui)
    if cluster is None:
        raise _taken(spec.name)
    try:
        return use(cluster)
    finally:
        with signals.uninterrupted():
            for problem in removal.delete(host, spec.name, ui):
                ui.warn(f"not undone: {problem}")


def _taken(name: str) -> SykubeError:
    return SykubeError(
        f"there is a cluster {name} already, and run deletes the one that it makes",
        resolution="Choose another --name.",
    )
