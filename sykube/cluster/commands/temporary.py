"""A cluster for one use: made for it, and deleted after it."""

from __future__ import annotations

from collections.abc import Callable

from sykube.cluster.commands import deadline, lifecycle, removal
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import SykubeError
from sykube.host import signals
from sykube.host.host import Host
from sykube.ui import Ui


def run(
    host: Host,
    spec: ClusterSpec,
    options: InitOptions,
    use: Callable[[Cluster], int],
    ui: Ui,
    snapshot: str = "",
) -> int:
    """Make a cluster, use it, and delete it, also after an error.

    Args:
        snapshot: what it is saved as before that; empty where it is not saved.

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
            if snapshot:
                _save(host, spec.name, snapshot, ui)
            for problem in removal.delete(host, spec.name, ui):
                ui.warn(f"not undone: {problem}")


def _save(host: Host, name: str, snapshot: str, ui: Ui) -> None:
    try:
        deadline.stop_and_save(host, name, snapshot, ui)
    except (SykubeError, OSError) as error:
        # A full disk, too, keeps nobody from deleting it.
        ui.warn(f"not saved as {snapshot}: {error}")


def _taken(name: str) -> SykubeError:
    return SykubeError(
        f"there is a cluster {name} already, and run deletes the one that it makes",
        resolution="Choose another --name.",
    )
