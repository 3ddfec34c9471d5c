"""Ending the work of a cluster before the batch job ends that it is in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sykube.cluster.commands import power, snapshots
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model.state import State
from sykube.cluster.operations import archive
from sykube.cluster.operations.opening import opened
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.job import clock
from sykube.host.paths import ClusterPaths
from sykube.ui import Ui

_BEFORE = re.compile(r"(\d+)([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
# A clock that was set back would let it come too early; a wait this long is looked at again.
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Deadline:
    """When a cluster stops, and what it is saved as then.

    Attributes:
        at: seconds since the epoch; 0 for never.
        snapshot: a name; empty where it is not saved.
    """

    at: float = 0.0
    snapshot: str = ""


def before_end(host: Host, before: str, snapshot: str) -> Deadline:
    """What --stop-before and --snapshot ask for.

    Args:
        before: how long before the job's end, such as 5m; empty for never.

    Raises:
        UsageError: that is no such time, there is a snapshot of that name, or this is no job.
        HostError: the job's end is not known, or nearer than that.
    """
    if snapshot:
        archive.check_free(host, snapshot)
    if not before:
        return Deadline(snapshot=snapshot)
    match = _BEFORE.fullmatch(before)
    if not match:
        raise UsageError(
            f"--stop-before takes a time such as 5m, 90s or 1h, not {before!r}",
            resolution="Correct it and run the command again.",
        )
    job = host.grants.job
    if job is None:
        raise UsageError(
            "--stop-before is for a batch job, and this is none that sykube knows",
            resolution="Leave it out, or run the command in a job: docs/jobs.md.",
        )
    if not job.end:
        raise HostError(
            f"--stop-before needs to know when the job ends, but {job.until}",
            resolution="Leave it out, and let the script stop the cluster in time: sykube stop",
        )
    at = job.end - int(match[1]) * _SECONDS[match[2]]
    if at <= host.time():
        raise HostError(
            f"the job ends at {clock(job.end)}, in less than {before}",
            resolution="Give it more time (sbatch --time), or choose a shorter --stop-before.",
        )
    return Deadline(at, snapshot)


def keep(host: Host, name: str, wanted: Deadline, ui: Ui) -> None:
    """Let a process wait for the time and stop the cluster then, while this one goes on."""
    with opened(host, name, ui) as cluster:
        cluster.state.stop_at = wanted.at
        cluster.save()
    host.in_background(lambda: _wait_and_stop(host, name, wanted, ui), ClusterPaths(host, name).log)


def _wait_and_stop(host: Host, name: str, wanted: Deadline, ui: Ui) -> None:
    while (left := wanted.at - host.time()) > 0:
        host.sleep(min(left, _LONGEST_WAIT_S))
    state = State.load(ClusterPaths(host, name).state)
    # One that was deleted meanwhile, or another one of that name.
    if state is None or state.stop_at != wanted.at:
        return
    try:
        stop_and_save(host, name, wanted.snapshot, ui)
    except (SykubeError, OSError) as error:
        ui.warn(f"it did not stop in time as asked, or is not saved: {error}")


def stop_and_save(host: Host, name: str, snapshot: str, ui: Ui) -> None:
    """Stop a cluster in order, and save it where it shall be.

    Raises:
        SykubeError: one of the two failed.
    """
    power.stop(host, name, StopOptions(), ui)
    if snapshot:
        snapshots.save(host, name, snapshot, ui)
