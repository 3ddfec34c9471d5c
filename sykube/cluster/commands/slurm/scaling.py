"""`sykube slurm scale`: more or fewer nodes while jobs run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from sykube.cluster.commands.slurm import image, setup
from sykube.cluster.commands.slurm.place import Place, at, held
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.kubernetes.api import wait_until
from sykube.slurm import manifests
from sykube.slurm.controller import SlurmNode
from sykube.slurm.spec import MOST_NODES, SlurmSpec, nodes_problem
from sykube.ui import Ui

_REASON = "sykube slurm scale"
_POLL_S = 1.0
# For a pod without jobs to end: its hook asks slurmctld once.
_POD_S = 180.0


@dataclass(frozen=True)
class Scaled:
    """What a Slurm cluster has gained or lost, by the nodes' names."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def scale(
    host: Host, name: str, namespace: str, count: int, ui: Ui, *, grace: float | None = None
) -> Scaled:
    """Give a Slurm cluster a number of nodes.

    Those that go are idle ones, or get no more jobs and are waited for. With no node left, the
    entry of the last one stays, so that jobs can be submitted.

    Args:
        grace: seconds after which jobs on nodes that go are put back into the queue; for ever if
            None.

    Raises:
        UsageError: there is no room for so many, or it scales by itself.
        NoRoomError: some new nodes have no place in the cluster: they wait for it.
        SykubeError: there is no such Slurm cluster, or new nodes do not come up.
    """
    if problem := nodes_problem(count, least=0):
        raise UsageError(problem, resolution=f"Take a number from 0 to {MOST_NODES}.")
    with at(host, name, namespace, ui) as place:
        spec = place.require()
        if spec.is_automatic:
            raise UsageError(
                f"the Slurm cluster {namespace} scales by itself: it has {spec.nodes} to"
                f" {spec.most} nodes, as its jobs need",
                resolution="Submit jobs, and it grows. For other limits:"
                f" sykube slurm scale{place.options} MIN-MAX",
            )
        if count > len(place.numbers()):
            setup.require_room(place, spec, count)
            image.give(place.cluster, spec, lambda _: False)
        with held(place):
            if count > len(place.numbers()):
                return grow(place, spec, count)
            return shrink(place, count, grace)


def grow(place: Place, spec: SlurmSpec, count: int) -> Scaled:
    """Add nodes up to a number, and wait until they take jobs."""
    before = place.numbers()
    entries = place.controller.nodes()
    new = _new_numbers(before, [*entries], count)
    with place.cluster.ui.step(f"Adding {', '.join(manifests.pod_names(new))}"):
        # That of a node which went, so that jobs could be submitted.
        kept = [each for each in manifests.pod_names(new) if each in entries]
        place.controller.undrain([each for each in kept if entries[each].is_drained])
        setup.add_nodes(place, spec, new)
        setup.wait_for(place, new)
    return Scaled(added=tuple(manifests.pod_names(new)))


def _new_numbers(there: list[int], entries: list[str], count: int) -> list[int]:
    """The numbers of new nodes: those that Slurm has an entry of, then the lowest."""
    known = sorted(number for each in entries if (number := manifests.node_number(each)))
    order = dict.fromkeys([*known, *range(1, MOST_NODES + 1)])
    return [number for number in order if number not in there][: count - len(there)]


def shrink(place: Place, count: int, grace: float | None) -> Scaled:
    """Remove nodes down to a number, each when no job is on it; see `scale`."""
    host, ui = place.cluster.host, place.cluster.ui
    removed: list[str] = []
    left = manifests.pod_names(place.numbers())
    # Which of them had been drained by somebody else stay so, where they stay.
    drained: set[str] = set()
    began = host.monotonic()
    if count == len(left):
        return Scaled()
    with ui.step(f"Removing {len(left) - count} of {len(left)} nodes"):
        try:
            while len(left) > count:
                nodes = place.controller.nodes()
                going = _going(nodes, left, len(left) - count)
                place.controller.drain(
                    [e for e in going if e in nodes and not nodes[e].is_drained], _REASON
                )
                place.controller.undrain(sorted(drained - {*going}))
                drained = {e for e in going if nodes.get(e) and _is_ours(nodes[e])}
                nodes = place.controller.nodes()
                free = [each for each in going if each not in nodes or not nodes[each].is_busy]
                if not free:
                    if grace is not None and host.monotonic() - began > grace:
                        place.controller.fail(going, _REASON)
                    ui.note(f"waiting for jobs on {', '.join(going)}")
                    host.sleep(_POLL_S)
                    continue
                remove(place, free, keep_one=len(free) == len(left))
                left = [each for each in left if each not in free]
                drained -= {*free}
                removed += free
        except BaseException:
            # Where slurmctld is what failed, this does, too.
            with contextlib.suppress(CommandError):
                place.controller.undrain(sorted(drained & {*left}))
            raise
    return Scaled(removed=tuple(removed))


def _is_ours(node: SlurmNode) -> bool:
    return not node.is_drained or node.reason == _REASON


def _going(nodes: dict[str, SlurmNode], left: list[str], count: int) -> list[str]:
    """Which nodes are to go: those without a pod that runs, those without jobs, the youngest."""

    def order(name: str) -> tuple[bool, bool, int]:
        node = nodes.get(name)
        there = bool(node and node.responds and node.word != "down")
        return bool(node and node.is_busy), there, -manifests.node_number(name)

    return sorted(left, key=order)[:count]


def remove(place: Place, names: list[str], *, keep_one: bool) -> None:
    """Remove nodes without jobs: their pods, then what Slurm knows of them.

    Args:
        keep_one: leave Slurm one entry. With none it refuses jobs, as it knows no node for them.
    """
    for each in names:
        place.api.delete(
            place.path("statefulsets", manifests.node_name(manifests.node_number(each)))
        )
    wait_until(
        place.cluster.host,
        f"the end of {', '.join(names)}",
        lambda: ", ".join(e for e in names if place.get("pods", e)),
        _POD_S,
    )
    known = place.controller.nodes()
    gone = [each for each in names if each in known]
    kept = gone[:1] if keep_one else []
    place.controller.forget([each for each in gone if each not in kept])
    # Down, and not drained: it comes back with its pod, whoever creates that.
    place.controller.fail(kept, _REASON)
    place.controller.undrain(kept)
