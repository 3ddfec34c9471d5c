"""`sykube slurm down`: a Slurm cluster removed, with its queue, and perhaps with what it keeps."""

from __future__ import annotations

from typing import Any

from sykube.cluster.commands.slurm.place import Place, at, held
from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.kubernetes.api import wait_until
from sykube.ui import Ui

_TIMEOUT_S = 120.0
_MANAGER = "app.kubernetes.io/managed-by"
# Those first that would make pods again.
_KINDS = (
    *("statefulsets", "deployments", "services", "secrets"),
    *("rolebindings", "roles", "serviceaccounts"),
)
_POLICIES = "networkpolicies"
# Claims of what outlives it: users' files, and what their jobs took.
KEPT = ("home", "accounting")


def down(host: Host, name: str, namespace: str, ui: Ui, *, volumes: bool, force: bool) -> None:
    """Remove a Slurm cluster.

    Args:
        volumes: with what is in /home and what is kept of jobs, and the namespace where `up` has
            created it.
        force: even if jobs wait or run, which end.

    Raises:
        SykubeError: there is none, or it has jobs; nothing was changed.
    """
    with at(host, name, namespace, ui) as place:
        place.require()
        with held(place):
            count = _unfinished(place)
            if count and not force:
                raise SykubeError(
                    f"{count} jobs wait or run in the Slurm cluster {namespace}",
                    resolution=f"See them: sykube slurm shell{place.options} -- squeue\n"
                    "  To end them: --force",
                )
            with ui.step(f"Removing the Slurm cluster {namespace}"):
                remove(place, volumes=volumes)


def remove(place: Place, *, volumes: bool) -> None:
    """Remove all of a Slurm cluster that is there, whatever of it works.

    Args:
        volumes: also KEPT, and the namespace where it is the Slurm cluster's own.

    Raises:
        SykubeError: something of it does not go within 2 minutes.
    """
    for kind in _KINDS:
        for each in _labelled(place, kind):
            place.api.delete(place.path(kind, each["metadata"]["name"]))
    # Their hooks would wait for jobs, which have nowhere to go on.
    for pod in place.pods():
        path = place.path("pods", pod["metadata"]["name"])
        place.api.request("DELETE", path, {"gracePeriodSeconds": 1})
    wait_until(
        place.cluster.host,
        f"the end of the pods in {place.namespace}",
        lambda: ", ".join(pod["metadata"]["name"] for pod in place.pods()),
        _TIMEOUT_S,
    )
    claims = ["state", *(KEPT if volumes else ())]
    for claim in claims:
        place.api.delete(place.path("persistentvolumeclaims", claim))
    # Else the next `up` would find them, and then not.
    wait_until(
        place.cluster.host,
        f"the end of the volumes in {place.namespace}",
        lambda: ", ".join(e for e in claims if place.get("persistentvolumeclaims", e)),
        _TIMEOUT_S,
    )
    # While there is a slurmctld, it needs it.
    for each in _labelled(place, _POLICIES):
        place.api.delete(place.path(_POLICIES, each["metadata"]["name"]))
    place.api.delete(place.path("configmaps", "slurmdbd"))
    # Last: it is the record, without which a second try would find nothing.
    place.api.delete(place.path("configmaps", "slurm"))
    path = f"/api/v1/namespaces/{place.namespace}"
    namespace = place.find(path)
    if volumes and namespace and is_owned(namespace):
        place.api.delete(path)
        wait_until(
            place.cluster.host,
            f"the end of the namespace {place.namespace}",
            lambda: "it is still there" if place.find(path) else "",
            _TIMEOUT_S,
        )


def remove_accounting(place: Place, *, volumes: bool) -> None:
    """Remove what `up --accounting` has begun to add.

    Args:
        volumes: also what is kept of jobs.
    """
    for kind, name in (
        ("statefulsets", "slurmdbd"),
        ("services", "slurmdbd"),
        ("configmaps", "slurmdbd"),
        *([("persistentvolumeclaims", "accounting")] if volumes else []),
    ):
        place.api.delete(place.path(kind, name))


def is_owned(namespace: dict[str, Any]) -> bool:
    """Whether a namespace was created for a Slurm cluster by sykube."""
    labels = namespace["metadata"].get("labels") or {}
    return bool(labels.get(_MANAGER) == "sykube")


def _unfinished(place: Place) -> int:
    try:
        return place.controller.unfinished()
    except CommandError:
        # Without slurmctld nobody knows, and nothing goes on.
        place.cluster.ui.warn("slurmctld does not answer: whether there are jobs is not known")
        return 0


def _labelled(place: Place, kind: str) -> list[dict[str, Any]]:
    found = place.api.get(place.path(kind), labelSelector="app.kubernetes.io/name=slurm")
    return list(found["items"])
