"""What every measurement in a cluster needs: a quiet machine, a namespace, blocks."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from sykube.bench import judging, machine
from sykube.bench.machine import Machine
from sykube.bench.results import Curves, Measure, Result
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.opening import opened
from sykube.errors import HostError, SykubeError
from sykube.host.host import Host
from sykube.kubernetes.api import ApiError, wait_until
from sykube.ui import Ui, duration

NAMESPACE = "sykube-bench"
_PATH = f"/api/v1/namespaces/{NAMESPACE}"
PODS = f"{_PATH}/pods"
_OBJECT = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
_GONE_S = 300.0
_READY_S = 120.0
# Blocks of which the spread is taken that says how many are needed.
_PILOT = 3
# What one place has of each measure, in one block.
Once = Callable[[str], Mapping[str, float]]
# Takes the status of each pod that is waited for, and raises where there is nothing to wait for.
Watch = Callable[[Mapping[str, Mapping[str, Any]]], None]


class Server(Protocol):
    """An API server: that of the cluster, or of another one."""

    def request(
        self, method: str, path: str, body: Any = None, *, params: dict[str, str] | None = None
    ) -> Any: ...

    def get(self, path: str, **params: str) -> Any: ...

    def delete(self, path: str, /) -> None: ...


@contextmanager
def quiet(host: Host, name: str, ui: Ui, *, anyway: bool) -> Iterator[tuple[Cluster, Machine]]:
    """Hold a cluster on a machine with nothing else to do.

    Raises:
        HostError: the machine is busy, and is not to be measured anyway.
    """
    with opened(host, name, ui) as cluster:
        found = machine.look(host)
        require_quiet(found, anyway=anyway)
        for each in found.disturbances:
            ui.warn(each)
        yield cluster, found


def require_quiet(found: Machine, *, anyway: bool) -> None:
    """Refuse a machine that others use.

    Raises:
        HostError: it is busy, and is not to be measured anyway.
    """
    if found.refused and not anyway:
        raise HostError(
            "this machine is busy: what is measured now would be of others, too",
            details="\n".join(found.disturbances),
            resolution="Try again when it is quiet, or give --anyway.",
        )


@contextmanager
def folder(cluster: Cluster, kind: str) -> Iterator[Path]:
    """A folder of the host for what is written there, which is gone at the end."""
    temporary = cluster.host.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=temporary))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def namespace(host: Host, api: Server, kubectl: str) -> Iterator[None]:
    """A namespace that is gone at the end.

    Args:
        kubectl: how a person calls it for the cluster.

    Raises:
        SykubeError: it is there already, or gets no service account within two minutes.
    """
    try:
        api.request("POST", "/api/v1/namespaces", _OBJECT)
    except ApiError as error:
        if error.status != 409:
            raise
        raise SykubeError(
            f"the namespace {NAMESPACE} is there already: another `sykube bench` was killed",
            resolution=f"{kubectl} delete namespace {NAMESPACE}",
        ) from error
    try:
        # Until then pods are refused; a controller that is busy takes its time.
        wait_until(
            host, f"{NAMESPACE} has a service account", lambda: _lacks_account(api), _READY_S
        )
        yield
    finally:
        # Nothing of theirs is worth waiting for.
        api.request("DELETE", PODS, params={"gracePeriodSeconds": "0"})
        api.delete(_PATH)
        wait_until(host, f"the namespace {NAMESPACE} is gone", lambda: _is_left(api), _GONE_S)


def _lacks_account(api: Server) -> str:
    # An error counts as missing.
    api.get(f"{_PATH}/serviceaccounts/default")
    return ""


def kubectl(cluster: Cluster) -> str:
    """How a person calls kubectl for a cluster of sykube's."""
    return f"sykube kubectl{cluster.name_option} --"


def ready(
    host: Host, api: Server, *, watch: Watch | None = None, timeout: float = _READY_S
) -> dict[str, dict[str, Any]]:
    """Wait until all pods of the namespace are ready.

    Args:
        watch: is asked whether there is something to wait for.
        timeout: seconds.

    Returns:
        The status of each, by its name.

    Raises:
        SykubeError: they are not in that time.
    """
    found: dict[str, dict[str, Any]] = {}

    def missing() -> str:
        for pod in api.get(PODS)["items"]:
            found[pod["metadata"]["name"]] = pod["status"]
        waiting = [
            f"{name} is {status.get('phase')}"
            for name, status in found.items()
            if not _is_ready(status)
        ]
        if watch:
            watch(found)
        return ", ".join(waiting)

    wait_until(host, "the pods answer", missing, timeout)
    return found


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def inside(cluster: Cluster, pod: str, *command: str, container: str = "main") -> list[str]:
    """The command line of a program in a pod of the namespace, which is handed its input."""
    return [
        str(cluster.image.kubectl),
        "--kubeconfig", str(cluster.paths.kubeconfig),
        "--namespace", NAMESPACE, "exec", "--stdin", pod, "--container", container, "--", *command,
    ]  # fmt: skip


def _is_left(api: Server) -> str:
    try:
        api.get(_PATH)
    except ApiError as error:
        if error.status == 404:
            return ""
        raise
    return "it ends"


def in_blocks(
    cluster: Cluster,
    places: Sequence[str],
    measures: Mapping[str, tuple[str, str]],
    once: Once,
    *,
    runs: int,
    margin: float,
) -> dict[str, Measure]:
    """Measure all places in each block, in an order by chance; one block before does not count.

    Args:
        measures: title and unit of each.
    """
    values: dict[str, dict[str, list[float]]] = {
        what: {place: [] for place in places} for what in measures
    }
    order, ui, clock = random.Random(), cluster.ui, cluster.host.monotonic
    begun = clock()
    with ui.step(f"Warming up: {', '.join(places)}"):
        for place in places:
            ui.note(place)
            once(place)
    for block in range(1, runs + 1):
        left = duration((clock() - begun) / block * (runs + 1 - block))
        with ui.step(f"Block {block} of {runs} (about {left} to go)"):
            for place in order.sample(places, len(places)):
                ui.note(place)
                for what, value in once(place).items():
                    values[what][place].append(value)
        if block == _PILOT < runs and len(places) > 1:
            ui.say(_needed(values, places, margin))
    return {what: Measure(title, unit, values[what]) for what, (title, unit) in measures.items()}


def _needed(
    values: Mapping[str, Mapping[str, Sequence[float]]], places: Sequence[str], margin: float
) -> str:
    """How many blocks the spread so far asks for."""
    most = max(
        judging.runs_needed(each[places[0]], each[place], margin)
        for each in values.values()
        for place in places[1:]
    )
    return (
        f"by the spread so far, about {most} blocks show that equal places are equal "
        f"within {margin:.0%} (--runs {most})"
    )


def result(
    cluster: Cluster,
    kind: str,
    found: Machine,
    measures: Mapping[str, Measure],
    *,
    base: str,
    margin: float,
    asked: Mapping[str, float],
    programs: Sequence[str],
    images: Mapping[str, str] | None = None,
    pinned: str = "",
    curves: Mapping[str, Curves] | None = None,
) -> Result:
    """What was measured, with all that it depends on.

    Args:
        programs: whose versions it depends on beside Kubernetes.
        images: further versions, by what they are of.
        pinned: which cores processes ran on, for people.
        curves: what is drawn beside the measures.
    """
    versions = {"sykube": version("sykube"), **(images or {})}
    for each in ("kubernetes", *programs):
        versions[each] = cluster.state.versions.get(each, "")
    disturbances = tuple(found.disturbances)
    return Result(
        kind, base, margin, asked, versions, found, disturbances, measures, pinned, curves or {}
    )
