"""How fast pods start and stop, by their RuntimeClasses."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from threading import Timer
from typing import Any

from sykube.bench.results import Measure, Result
from sykube.cluster.commands.bench import laboratory
from sykube.cluster.commands.bench.laboratory import PODS
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import runtimes
from sykube.errors import SykubeError, UsageError
from sykube.host.host import Host
from sykube.kubernetes.api import Api, ApiError, Stream
from sykube.ui import Ui

KIND = "start"
_BLOCK_S = 300.0
MEASURES = {
    "running": ("until a pod runs (median of a block)", "s"),
    "started": ("pods started", "a second"),
    "stopped": ("pods stopped", "a second"),
}


def measure(
    host: Host,
    name: str,
    ui: Ui,
    *,
    places: Sequence[str],
    runs: int,
    pods: int,
    margin: float,
    anyway: bool,
) -> Result:
    """Start some pods at once and stop them, under each runtime, in blocks.

    Args:
        places: names of RuntimeClasses, the first of which is what others are compared to; empty
            for all that sykube has put into the cluster.
        runs: blocks.
        pods: how many are started at once.
        margin: what counts as equal, as a part of 1.
        anyway: measure on a busy machine, too.

    Raises:
        UsageError: the cluster has no such runtime.
        HostError: the machine is busy.
        SykubeError: the namespace is there already, or pods do not start.
    """
    with laboratory.quiet(host, name, ui, anyway=anyway) as (cluster, machine):
        chosen = _chosen(cluster, places)
        measures = in_blocks(cluster, chosen, runs=runs, pods=pods, margin=margin)
        return laboratory.result(
            cluster, KIND, machine, measures,
            base=chosen[0], margin=margin, asked={"runs": runs, "pods": pods},
            programs=["containerd", *chosen],
        )  # fmt: skip


def in_blocks(
    cluster: Cluster, places: Sequence[str], *, runs: int, pods: int, margin: float
) -> dict[str, Measure]:
    """The figures alone; `measure` says of what."""
    with cluster.api() as api, laboratory.namespace(cluster.host, api, laboratory.kubectl(cluster)):
        once = _Lab(cluster, api, pods).once
        return laboratory.in_blocks(cluster, places, MEASURES, once, runs=runs, margin=margin)


def _chosen(cluster: Cluster, places: Sequence[str]) -> list[str]:
    offered = runtimes.offered(cluster)
    for place in places:
        if place not in offered:
            raise UsageError(
                f"pods of the cluster {cluster.name} cannot run in {place!r}",
                resolution=f"There are {', '.join(offered)}; "
                f"`sykube runtimes{cluster.name_option}` says more.",
            )
    return list(dict.fromkeys(places or offered))


class _Lab:
    """Pods of one kind, and when each changed."""

    def __init__(self, cluster: Cluster, api: Api, pods: int) -> None:
        self.host, self.api, self.pods = cluster.host, api, pods
        self.cluster, self.turn = cluster, 0
        self.image = cluster.image.name_of("system")

    def once(self, place: str) -> dict[str, float]:
        """Start pods and stop them; what MEASURES names.

        Raises:
            SykubeError: they do not all start, or end, within five minutes.
        """
        clock = self.host.monotonic
        self.turn += 1
        with self.cluster.api() as second, self._watching(second) as changes:
            asked: dict[str, float] = {}
            for number in range(self.pods):
                name = f"{place}-{self.turn}-{number}"
                asked[name] = clock()
                self.api.request("POST", PODS, self._pod(name, place))
            running = self._when(changes, "run", _runs)
            stopping = clock()
            self.api.request("DELETE", PODS, params={"gracePeriodSeconds": "30"})
            ended = self._when(changes, "have ended", _has_ended)
            # Kubelets take their time to clear up behind what has ended.
            self.api.request("DELETE", PODS, params={"gracePeriodSeconds": "0"})
        return {
            "running": median(running[name] - asked[name] for name in asked),
            "started": self.pods / (max(running.values()) - min(asked.values())),
            "stopped": self.pods / (max(ended.values()) - stopping),
        }

    def _pod(self, name: str, place: str) -> dict[str, Any]:
        # It ends when it is asked to: the shell waits for it.
        script = "trap 'exit 0' TERM; sleep 100000 & wait"
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "runtimeClassName": place,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "containers": [
                    {
                        "name": "main",
                        "image": self.image,
                        "command": ["sh", "-c", script],
                    }
                ],
            },
        }

    @contextmanager
    def _watching(self, api: Api) -> Iterator[Iterator[dict[str, Any]]]:
        stream = api.stream(PODS, watch="1")
        # The watch ends with it, and then what waits for it.
        alarm = Timer(_BLOCK_S, stream.close)
        alarm.start()
        try:
            yield _events(stream)
        finally:
            alarm.cancel()
            stream.close()

    def _when(
        self,
        changes: Iterator[dict[str, Any]],
        what: str,
        is_so: Callable[[str, dict[str, Any]], bool],
    ) -> dict[str, float]:
        """When something was first so of each pod."""
        seen: dict[str, float] = {}
        why: defaultdict[str, str] = defaultdict(str)
        for change in changes:
            pod = change["object"]
            if change["type"] == "ERROR":
                raise ApiError(f"the API server watches no more: {pod.get('message')}", 0)
            if is_so(change["type"], pod):
                seen.setdefault(pod["metadata"]["name"], self.host.monotonic())
            if len(seen) == self.pods:
                return seen
            why[pod["metadata"]["name"]] = _state(pod)
        lacking = {name: state for name, state in why.items() if name not in seen}
        raise SykubeError(
            f"only {len(seen)} of {self.pods} pods {what} after {_BLOCK_S:.0f} s",
            details="\n".join(f"{name}: {state}" for name, state in lacking.items()),
            resolution=f"sykube doctor{self.cluster.name_option}",
        )


def _events(stream: Stream) -> Iterator[dict[str, Any]]:
    rest = ""
    for piece in stream:
        *whole, rest = f"{rest}{piece}".split("\n")
        yield from map(json.loads, whole)


def _runs(_change: str, pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def _has_ended(change: str, pod: dict[str, Any]) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    return change == "DELETED" or any("terminated" in each["state"] for each in statuses)


def _state(pod: dict[str, Any]) -> str:
    """Why a pod is as it is, as far as its status says."""
    status = pod["status"]
    for container in status.get("containerStatuses", []):
        if waiting := container["state"].get("waiting"):
            return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", []):
        if condition["status"] == "False" and condition.get("message"):
            return str(condition["message"])
    return str(status.get("phase", ""))
