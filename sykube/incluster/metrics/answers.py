"""What the API answers: its discovery documents and the metrics themselves.

Types: https://github.com/kubernetes/metrics/blob/v0.20.2/pkg/apis/metrics/v1beta1/types.go
"""

from __future__ import annotations

import json
import math
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from ..api import Json
from .objects import Objects
from .samples import NODE, Key, Meter, Usage
from .selectors import Selector, SelectorError, parse

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
GROUP_VERSION = f"{GROUP}/{VERSION}"
_DISCOVERY = json.loads(Path(__file__).with_name("discovery.json").read_text(encoding="utf-8"))
# A node that has been silent for longer has no metrics: old ones would mislead autoscalers.
_MAX_AGE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """A status of HTTP and its JSON."""

    status: HTTPStatus
    body: Json


class RefusedError(Exception):
    """A request that gets a Status instead of what it asked for."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.answer = failure(status, reason, message)


def failure(status: HTTPStatus, reason: str, message: str) -> Answer:
    """A Status object as the API's own."""
    return Answer(
        status,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": int(status),
        },
    )


class Metrics:
    """Answers requests from what watchers and scrapes have brought.

    Args:
        now: the time, in seconds since the epoch.
    """

    def __init__(self, objects: Objects, meter: Meter, now: Callable[[], float]) -> None:
        self._objects, self._meter, self._now = objects, meter, now

    def answer(self, method: str, target: str) -> Answer:
        """What a request gets whose sender is known.

        Args:
            target: path and query.
        """
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        try:
            return self._route(method, parts, query)
        except RefusedError as error:
            return error.answer

    def _route(self, method: str, parts: list[str], query: Mapping[str, str]) -> Answer:
        match parts:
            case ["apis", group] if group == GROUP:
                found = _DISCOVERY["group"]
            case ["apis", group, version] if (group, version) == (GROUP, VERSION):
                found = _DISCOVERY["resources"]
            case ["apis", group, version, *rest] if (group, version) == (GROUP, VERSION):
                return self._metrics(method, rest, query)
            case _:
                raise _not_found("the server could not find the requested resource")
        if method != "GET":
            raise _method_not_allowed(method)
        return Answer(HTTPStatus.OK, found)

    def _metrics(self, method: str, rest: list[str], query: Mapping[str, str]) -> Answer:
        one: list[str] = []
        match rest:
            case ["nodes", *one] if len(one) < 2:
                kind, found = "NodeMetrics", self._nodes()
            case ["pods"]:
                kind, found = "PodMetrics", self._pods()
            case ["namespaces", namespace, "pods", *one] if len(one) < 2:
                kind, found = "PodMetrics", self._pods(namespace)
            case _:
                raise _not_found("the server could not find the requested resource")
        if method != "GET" or query.get("watch") in ("true", "1"):
            raise _method_not_allowed("watch" if method == "GET" else method)
        if one:
            for each in found:
                if each["metadata"]["name"] == one[0]:
                    return Answer(HTTPStatus.OK, _typed(kind, each))
            resource = "nodes" if kind == "NodeMetrics" else "pods"
            raise _not_found(f'{resource}.{GROUP} "{one[0]}" not found')
        wanted = _selectors(query)
        items = [_typed(kind, each) for each in found if wanted(each["metadata"])]
        listed = {"kind": f"{kind}List", "apiVersion": GROUP_VERSION, "metadata": {}}
        return Answer(HTTPStatus.OK, {**listed, "items": items})

    def _nodes(self) -> Iterator[Json]:
        usage = self._usage()
        for node in self._objects.nodes():
            found = usage.get(node.name, {}).get(NODE)
            if found:
                metadata = {"name": node.name, "labels": dict(node.labels)}
                yield self._object(metadata, [found]) | {"usage": _quantities(found)}

    def _pods(self, namespace: str | None = None) -> Iterator[Json]:
        usage = self._usage()
        for pod in self._objects.pods():
            if namespace not in (None, pod.namespace):
                continue
            known = usage.get(pod.node, {})
            found = {name: known.get(Key(pod.namespace, pod.name, name)) for name in pod.containers}
            # A pod without one of its containers would look idle to an autoscaler.
            complete = {name: each for name, each in found.items() if each}
            if not complete or len(complete) < len(found):
                continue
            metadata = {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)}
            containers = [
                {"name": name, "usage": _quantities(each)} for name, each in complete.items()
            ]
            yield self._object(metadata, [*complete.values()]) | {"containers": containers}

    def _usage(self) -> dict[str, dict[Key, Usage]]:
        return self._meter.usage(self._now() - _MAX_AGE_S)

    def _object(self, metadata: Json, usage: list[Usage]) -> Json:
        # Of several containers, the oldest sample: nothing in it is older than it says.
        oldest = min(usage, key=lambda each: each.time)
        return {
            "metadata": {**metadata, "creationTimestamp": _time(self._now())},
            "timestamp": _time(oldest.time),
            "window": f"{oldest.window:.3f}s",
        }


def _typed(kind: str, obj: Json) -> Json:
    return {"kind": kind, "apiVersion": GROUP_VERSION, **obj}


def _quantities(usage: Usage) -> Json:
    return {"cpu": f"{usage.nanocores}n", "memory": f"{math.ceil(usage.memory / 1024)}Ki"}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _selectors(query: Mapping[str, str]) -> Callable[[Json], bool]:
    try:
        labels = parse(query.get("labelSelector", ""))
        fields = _fields(query.get("fieldSelector", ""))
    except SelectorError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "BadRequest", str(error)) from error

    def selects(metadata: Json) -> bool:
        named = {f"metadata.{name}": metadata.get(name, "") for name in ("name", "namespace")}
        return labels(metadata["labels"]) and fields(named)

    return selects


def _fields(text: str) -> Selector:
    for part in filter(None, text.split(",")):
        if part.partition("=")[0].rstrip("!").strip() not in (
            "metadata.name",
            "metadata.namespace",
        ):
            raise SelectorError(f"field label not supported: {part!r}")
    return parse(text)


def _not_found(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.NOT_FOUND, "NotFound", message)


def _method_not_allowed(method: str) -> RefusedError:
    message = f"{method.lower()} is not supported on resources of kind {GROUP}"
    return RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
