"""The runner: a visible list of steps, each with done, apply and undo."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.model.state import DONE, STARTED
from sykube.errors import SykubeError

log = logging.getLogger("sykube.plan")


@dataclass(frozen=True)
class Step:
    """A part of making a cluster.

    Attributes:
        name: its key in the state.
        title: what people read. Steps in a row that have the same one need nothing of each other,
            and are applied at the same time.
        is_done: whether what it makes is there, as seen on the host, not as recorded.
        apply: makes it; may be called again after it failed half-way.
        undo: removes it, whether it was made whole, in part or not at all; nothing where all that
            it makes is in the nodes.
    """

    name: str
    title: str
    is_done: Callable[[Cluster], bool]
    apply: Callable[[Cluster], None]
    undo: Callable[[Cluster], None] = lambda _cluster: None


def execute(cluster: Cluster, steps: Sequence[Step]) -> None:
    """Apply the steps that are not done yet, in order.

    The state says "started" before a step and "done" after it. A step that was done before
    is skipped when its result is still there.
    """
    for title, group in itertools.groupby(steps, lambda step: step.title):
        waiting = [
            step
            for step in group
            if cluster.state.steps.get(step.name) != DONE or not step.is_done(cluster)
        ]
        if not waiting:
            continue
        cluster.state.steps |= {step.name: STARTED for step in waiting}
        cluster.save()
        for step in waiting:
            _point(f"before:{step.name}")
        with cluster.ui.step(title):
            on_each(waiting, lambda step: step.apply(cluster))
        for step in waiting:
            _point(f"after:{step.name}")
            cluster.state.steps[step.name] = DONE
            cluster.save()


def undo(cluster: Cluster, steps: Sequence[Step]) -> list[str]:
    """Undo every step, the last one first; a failing one does not keep the others from it.

    Returns:
        What could not be undone, a line each.
    """
    failed = []
    for step in reversed(steps):
        try:
            step.undo(cluster)
        except Exception as error:
            # Whatever it is: the other steps have their turn, and it is reported.
            log.warning("undo of %s", step.name, exc_info=error)
            failed.append(f"{step.name}: {error}")
    return failed


def _point(name: str) -> None:
    """A place where tests make init fail (SYKUBE_FAIL_AT=before:network)."""
    if os.environ.get("SYKUBE_FAIL_AT") == name:
        raise SykubeError(f"made to fail at {name}", resolution="Unset SYKUBE_FAIL_AT.")
