"""Objects of the API as the page shows them: short, and in words that kubectl uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from sykube.kubernetes.readiness import has_ended

Json = dict[str, Any]

# Newer ones are what somebody looks for; the API keeps an hour of them.
_EVENTS = 200
_FACTORS = {
    **{suffix: Fraction(1000) ** power for power, suffix in enumerate(("", "k", "M", "G", "T"))},
    **{f"{s}i": Fraction(1024) ** power for power, s in enumerate(("K", "M", "G", "T"), 1)},
    **{suffix: Fraction(1, 1000**power) for power, suffix in enumerate(("m", "u", "n"), 1)},
}


def pods(found: Iterable[Json], usage: Mapping[str, Json]) -> list[Json]:
    """Rows of pods, by namespace and name.

    Args:
        usage: metrics of pods by NAMESPACE/NAME; without the add-on, there are none.
    """
    rows = []
    for pod in found:
        metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
        states = status.get("containerStatuses", [])
        measured = usage.get(f"{metadata['namespace']}/{metadata['name']}", {})
        used = [each["usage"] for each in measured.get("containers", [])]
        owner: Json = next(iter(metadata.get("ownerReferences", [])), {})
        rows.append(
            {
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "node": spec.get("nodeName", ""),
                "status": pod_status(pod),
                "ended": has_ended(pod),
                "ready": sum(bool(each.get("ready")) for each in states),
                "containers": [each["name"] for each in spec.get("containers", [])],
                "restarts": sum(each.get("restartCount", 0) for each in states),
                "created": metadata.get("creationTimestamp", ""),
                "owner": f"{owner.get('kind', '')}/{owner.get('name', '')}" if owner else "",
                "cpu": _total(used, "cpu"),
                "memory": _total(used, "memory"),
            }
        )
    return sorted(rows, key=lambda row: (row["namespace"], row["name"]))


def pod_status(pod: Json) -> str:
    """The word that `kubectl get pods` has for a pod."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    started = status.get("initContainerStatuses", [])
    for number, each in enumerate(started):
        ended = each.get("state", {}).get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        return f"Init:{_reason(each) or f'{number}/{len(started)}'}"
    reasons = (_reason(each) for each in status.get("containerStatuses", []))
    phase = str(status.get("reason") or status.get("phase", "Unknown"))
    found = next(filter(None, reasons), "")
    # Of several containers, one that has completed says nothing of the pod.
    return phase if not found or (found == "Completed" and phase == "Running") else found


def _reason(container: Json) -> str:
    state = container.get("state", {})
    if waiting := state.get("waiting"):
        reason = str(waiting.get("reason", ""))
        return "" if reason == "PodInitializing" else reason
    if ended := state.get("terminated"):
        return str(ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
    return ""


def deployments(found: Iterable[Json], replica_sets: Iterable[Json]) -> list[Json]:
    """Rows of Deployments, by namespace and name, with the ReplicaSets whose pods are theirs."""
    owned: dict[str, list[str]] = {}
    for each in replica_sets:
        for owner in each["metadata"].get("ownerReferences", []):
            owned.setdefault(owner["uid"], []).append(each["metadata"]["name"])
    rows = [
        {
            "namespace": each["metadata"]["namespace"],
            "name": each["metadata"]["name"],
            "wanted": each["spec"].get("replicas", 1),
            "ready": each.get("status", {}).get("readyReplicas", 0),
            "sets": sorted(owned.get(each["metadata"].get("uid", ""), [])),
        }
        for each in found
    ]
    return sorted(rows, key=lambda row: (row["namespace"], row["name"]))


def events(found: Iterable[Json]) -> list[Json]:
    """Rows of the last events, the newest first."""
    rows = [
        {
            "id": each["metadata"].get("uid") or each["metadata"]["name"],
            "time": each.get("lastTimestamp")
            or (each.get("series") or {}).get("lastObservedTime")
            or each.get("eventTime")
            or each["metadata"].get("creationTimestamp", ""),
            "type": each.get("type") or "Normal",
            "reason": each.get("reason", ""),
            "message": (each.get("message") or "").strip(),
            "kind": each["involvedObject"].get("kind", ""),
            "name": each["involvedObject"].get("name", ""),
            "namespace": each["involvedObject"].get("namespace", ""),
            "count": each.get("count") or 1,
        }
        for each in found
    ]
    return sorted(rows, key=lambda row: str(row["time"]), reverse=True)[:_EVENTS]


def quantity(text: str) -> float:
    """The number of a quantity such as 250m, 64Mi or 1234567n.

    Raises:
        ValueError: it is none.
    """
    digits = text.rstrip("kKMGTimun")
    try:
        return float(Fraction(digits) * _FACTORS[text[len(digits) :]])
    except KeyError as error:
        raise ValueError(f"{text!r} is no quantity") from error


def _total(used: list[Json], what: str) -> float | None:
    return sum(quantity(each[what]) for each in used) if used else None
