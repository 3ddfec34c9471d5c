"""`sykube slurm scale MIN-MAX`: other limits for a Slurm cluster that scales by itself."""

from __future__ import annotations

import contextlib
import dataclasses

from sykube.cluster.commands.slurm import image, scaling, setup
from sykube.cluster.commands.slurm.place import Place, at, held
from sykube.cluster.commands.slurm.scaling import Scaled
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.slurm import manifests
from sykube.ui import Ui

_REASON = "sykube slurm scale"
_POLL_S = 1.0


def set_limits(host: Host, name: str, namespace: str, least: int, most: int, ui: Ui) -> Scaled:
    """Give a Slurm cluster that scales by itself other limits; slurmctld is restarted.

    Nodes above the most get no more jobs, and go when theirs have ended.

    Returns:
        The nodes that may come now and could not before, and those that no longer may.

    Raises:
        UsageError: these are no limits, there is no room, or its nodes are by number.
        SykubeError: there is no such Slurm cluster, or slurmctld does not come up again.
    """
    with at(host, name, namespace, ui) as place:
        before = place.require()
        if not before.is_automatic:
            raise UsageError(
                f"the Slurm cluster {namespace} has a number of nodes, and no limits",
                resolution="Set the number, or make one that does, with the same /home:\n"
                f"  sykube slurm down{place.options}\n"
                f"  sykube slurm up{place.options} --nodes {least}-{most}",
            )
        spec = dataclasses.replace(before, nodes=least, most=most).check()
        setup.require_room(place, spec, most)
        if spec == before:
            return Scaled()
        image.give(place.cluster, spec, lambda _: False)
        with held(place):
            # A command that was interrupted may have left entries alone.
            known = {*place.replicas(), *map(manifests.node_number, place.controller.nodes())}
            if gone := [number for number in sorted(known) if number > most]:
                _retire(place, gone)
            setup.set_up(place, spec, new=False)
    new = range(before.most + 1, most + 1)
    return Scaled(tuple(manifests.pod_names(new)), tuple(manifests.pod_names(gone)))


def _retire(place: Place, numbers: list[int]) -> None:
    """Remove nodes, each when no job is on it."""
    names, controller = manifests.pod_names(numbers), place.controller
    host, ui = place.cluster.host, place.cluster.ui
    with ui.step(f"Removing {', '.join(names)}"):
        try:
            controller.drain([each for each in names if each in controller.nodes()], _REASON)
            while True:
                nodes = controller.nodes()
                busy = [each for each in names if each in nodes and nodes[each].is_busy]
                if not busy:
                    break
                ui.note(f"waiting for jobs on {', '.join(busy)}")
                host.sleep(_POLL_S)
        except BaseException:
            # Where slurmctld is what failed, this does, too.
            with contextlib.suppress(CommandError):
                controller.undrain(names)
            raise
        scaling.remove(place, names, keep_one=False)
