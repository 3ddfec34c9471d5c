"""Pods of a Slurm cluster that Kubernetes has no place for, and how long that is waited for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sykube.cluster.commands.slurm.place import Place
from sykube.errors import ExitCode, SykubeError

# Seconds. Pods that go have half a minute to end (terminationGracePeriodSeconds), and the scheduler
# tries again up to 10 s after one has gone (kube-scheduler's podMaxBackoffSeconds).
_PATIENCE_S = 60.0
# Volumes are made once a pod asks for them, and until then there is no place for it, either.
_OF_VOLUMES = ("persistentvolumeclaim", "persistent volume")


@dataclass(frozen=True)
class Unscheduled:
    """A pod that no node of Kubernetes takes.

    Attributes:
        reason: in the scheduler's words.
    """

    pod: str
    reason: str


class NoRoomError(SykubeError):
    """Pods of a Slurm cluster have no place in Kubernetes; they wait for one.

    Attributes:
        takes_jobs: whether it has nodes that do, and only others are missing.
    """

    default_code = ExitCode.NO_ROOM

    def __init__(self, brief: str, *, details: str, resolution: str, takes_jobs: bool) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.takes_jobs = takes_jobs


def unscheduled(pods: Iterable[dict[str, Any]]) -> list[Unscheduled]:
    """Those of pods that the scheduler has no place for, by name."""
    found = []
    for pod in pods:
        for each in pod.get("status", {}).get("conditions") or []:
            refused = (each["type"], each["status"]) == ("PodScheduled", "False")
            if refused and not pod["metadata"].get("deletionTimestamp"):
                reason = each.get("message") or each.get("reason") or "not scheduled"
                found.append(Unscheduled(pod["metadata"]["name"], str(reason)))
    return sorted(found, key=lambda each: each.pod)


class Patience:
    """Looks on while pods wait for a place, and loses patience after a minute."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._since: float | None = None

    def lost(self) -> list[Unscheduled]:
        """The pods that have no place, where for a minute there always were some."""
        found = [
            each
            for each in unscheduled(self._place.pods())
            if not any(word in each.reason.lower() for word in _OF_VOLUMES)
        ]
        now = self._place.cluster.host.monotonic()
        if not found:
            self._since = None
        elif self._since is None:
            self._since = now
        return found if self._since is not None and now - self._since > _PATIENCE_S else []


def of_nodes(place: Place, waiting: list[Unscheduled], count: int, given_up: str) -> NoRoomError:
    """The error of a Slurm cluster that takes jobs, but not on all of its nodes.

    Args:
        waiting: pods of nodes.
        count: how many nodes there are to be.
        given_up: `scale`'s argument for those that there is room for.
    """
    return NoRoomError(
        f"there is no room for {len(waiting)} of the {count} nodes of the Slurm cluster"
        f" {place.namespace}",
        details=_lines(waiting),
        resolution="The others take jobs, and these will as soon as there is room: end other pods,"
        f" or: sykube node add{place.cluster.name_option}\n"
        f"  To do without them: sykube slurm scale{place.options} {given_up}",
        takes_jobs=True,
    )


def of_others(place: Place, waiting: list[Unscheduled]) -> NoRoomError:
    """The error of a Slurm cluster that takes no jobs, as it has no slurmctld or no login pod."""
    return NoRoomError(
        f"there is no room for the Slurm cluster {place.namespace}",
        details=_lines(waiting),
        resolution=f"End other pods, or: sykube node add{place.cluster.name_option}",
        takes_jobs=False,
    )


def _lines(waiting: list[Unscheduled]) -> str:
    return "\n".join(f"{each.pod} is Pending: {each.reason}" for each in waiting)
