"""Where the page's data comes from: the cluster's nodes on this host, and its API."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sykube.cluster.commands import status
from sykube.cluster.commands.slurm import place
from sykube.cluster.commands.slurm.place import Place
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import logs as node_logs
from sykube.dashboard import rows, slurm_data
from sykube.errors import SykubeError, UsageError
from sykube.host.host import Host
from sykube.kubernetes.api import Api, ApiError, Stream
from sykube.node.limits import Limits
from sykube.node.node import Usage
from sykube.ui import Ui

Json = dict[str, Any]

MAX_REPLICAS = 100
_TAIL = 500


class Log(Protocol):
    """A log as it comes."""

    def follow(self, take: Callable[[str], None]) -> None:
        """Hand out its last lines, then every new one, until it ends or is closed."""

    def close(self) -> None:
        """End it, also while another thread follows it."""


class ClusterData(Protocol):
    """What the page shows; each call may take seconds and raise SykubeError."""

    def collect(self) -> Json:
        """How the cluster and its nodes are."""

    def usage(self) -> dict[str, Usage]:
        """What each node uses now, by its name."""

    def disk(self) -> dict[str, dict[str, int]]:
        """Bytes of each node's files on the host, by its name and by kind."""

    def objects(self) -> Json:
        """Pods, Deployments and events."""

    def slurm(self) -> Json:
        """Nodes and jobs of the Slurm clusters."""

    def slurm_efficiency(self) -> Json:
        """What jobs of the Slurm clusters made of their CPUs."""

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Give a Deployment another number of pods."""

    def pod_log(self, namespace: str, name: str, container: str) -> Log:
        """A container's log, followed."""

    def node_log(self, node: str, service: str) -> Log:
        """The log of a node's program, followed."""


@dataclass(frozen=True)
class LiveData:
    host: Host
    name: str
    ui: Ui

    def collect(self) -> Json:
        cluster = self._load()
        found = status.collect(cluster)
        spec = cluster.state.spec
        sif = cluster.image.sif
        controls = {node.name for node in cluster.control_planes}
        instances = {node.name: node.instance for node in cluster.nodes}
        return {
            "name": cluster.name,
            "option": cluster.name_option,
            "status": found.summary if cluster.state.complete else "unfinished",
            "kubernetes": found.kubernetes,
            "endpoint": found.endpoint,
            "parts": found.parts,
            "certificates": found.certificates,
            "image_bytes": sif.stat().st_size if sif.exists() else 0,
            **_room(spec.limits),
            "limited": bool(spec.cpus or spec.memory),
            "nodes": [
                {
                    "name": node.name,
                    "instance": instances[node.name],
                    "address": node.address,
                    "control_plane": node.name in controls,
                    "state": node.state,
                    "problem": node.problem,
                    "services": node.services,
                    **_room(spec.node(node.name).limits),
                }
                for node in found.nodes
            ],
        }

    def usage(self) -> dict[str, Usage]:
        return {node.name: node.usage() for node in self._load().nodes}

    def disk(self) -> dict[str, dict[str, int]]:
        return {node.name: node.disk() for node in self._load().nodes}

    def objects(self) -> Json:
        with self._api() as api:
            usage = {
                f"{each['metadata']['namespace']}/{each['metadata']['name']}": each
                for each in _metrics(api)
            }
            return {
                "pods": rows.pods(api.get("/api/v1/pods")["items"], usage),
                "deployments": rows.deployments(
                    api.get("/apis/apps/v1/deployments")["items"],
                    api.get("/apis/apps/v1/replicasets")["items"],
                ),
                "events": rows.events(api.get("/api/v1/events")["items"]),
                "measured": bool(usage),
            }

    def slurm(self) -> Json:
        with self._slurm() as places:
            return {"clusters": slurm_data.clusters(places)}

    def slurm_efficiency(self) -> Json:
        with self._slurm() as places:
            return {"clusters": slurm_data.efficiencies(places)}

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        check_replicas(replicas)
        with self._api() as api:
            api.request(
                "PATCH",
                f"/apis/apps/v1/namespaces/{_word(namespace)}/deployments/{_word(name)}/scale",
                {"spec": {"replicas": replicas}},
                content_type="application/merge-patch+json",
            )

    def pod_log(self, namespace: str, name: str, container: str) -> Log:
        path = f"/api/v1/namespaces/{_word(namespace)}/pods/{_word(name)}/log"
        options = {"container": container} if container else {}
        return _PodLog(self._api().stream(path, follow="true", tailLines=str(_TAIL), **options))

    def node_log(self, node: str, service: str) -> Log:
        there = node_logs.nodes(self.host, self.name, self.ui)
        found = node_logs.sources([there[node]] if node in there else [], [service])
        if service not in node_logs.SERVICES or not found:
            raise UsageError(
                f"there is no log of {service} in {node}",
                resolution=f"Services: {', '.join(node_logs.SERVICES)}",
            )
        return _NodeLog(found)

    @contextlib.contextmanager
    def _slurm(self) -> Iterator[list[Place]]:
        cluster = self._load()
        with cluster.api() as api:
            yield place.all_in(cluster, api)

    def _load(self) -> Cluster:
        return lookup.load(self.host, self.name, self.ui)

    def _api(self) -> Api:
        return self._load().api()


class _PodLog:
    """A log of the API, whose text comes in pieces."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def follow(self, take: Callable[[str], None]) -> None:
        rest = ""
        for piece in self._stream:
            *whole, rest = (rest + piece).split("\n")
            for line in whole:
                take(line)
        if rest:
            take(rest)

    def close(self) -> None:
        self._stream.close()


class _Closed(Exception):
    """The log is no longer wanted."""


class _NodeLog:
    def __init__(self, found: Sequence[node_logs.LogSource]) -> None:
        self._found = found
        self._closed = threading.Event()

    def follow(self, take: Callable[[str], None]) -> None:
        with contextlib.suppress(_Closed):
            node_logs.follow(self._found, _TAIL, lambda _, line: take(line), self._sleep)

    def close(self) -> None:
        self._closed.set()

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise _Closed


def _room(limits: Limits) -> Json:
    """The processors and bytes of memory that a node may use: all of the host's without limits."""
    return {
        "cores": limits.millicores / 1000 if limits.millicores else os.cpu_count(),
        "memory": limits.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def check_replicas(replicas: int) -> None:
    """Refuse a number that is a slip of the hand.

    Raises:
        UsageError: it is not between 0 and 100.
    """
    if not 0 <= replicas <= MAX_REPLICAS:
        raise UsageError(
            f"a Deployment gets 0 to {MAX_REPLICAS} pods here, not {replicas}",
            resolution="For more: sykube kubectl scale",
        )


def _word(name: str) -> str:
    """A name of Kubernetes, fit for a path.

    Raises:
        UsageError: it is none.
    """
    if not name or not all(letter.isalnum() or letter in "-." for letter in name):
        raise UsageError(f"{name!r} is no name of an object", resolution="Load the page again.")
    return name


def _metrics(api: Api) -> list[Json]:
    try:
        return list(api.get("/apis/metrics.k8s.io/v1beta1/pods")["items"])
    except ApiError:
        # The add-on is off, or not ready: the page says so by its empty columns.
        return []


def problem_of(error: Exception) -> str:
    """One line of what went wrong, for the page."""
    if isinstance(error, SykubeError):
        return error.brief
    return f"{type(error).__name__}: {error}"
