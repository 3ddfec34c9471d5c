"""Follows objects of the Kubernetes API.

A thread for each resource lists its objects, then watches for changes from there on. Whatever goes
wrong, it lists and watches again; while the API is away, the sink keeps what it has.
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from .api import Api, ApiError, GoneError, Json, error_of

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where watchers put what they see."""

    def replace(self, resource: str, objects: Sequence[Json]) -> None:
        """These are all objects there are."""

    def change(self, resource: str, obj: Json) -> None:
        """This object is new or different."""

    def remove(self, resource: str, obj: Json) -> None:
        """This object is gone."""


class Watcher(threading.Thread):
    """Keeps a sink up to date with all objects of one resource, for good.

    Args:
        api: where to ask.
        resource: such as "services".
        sink: what to keep up to date.
        group: the path of the resource's group and version.
    """

    def __init__(self, api: Api, resource: str, sink: Sink, group: str = "/api/v1") -> None:
        super().__init__(name=f"watch-{resource}", daemon=True)
        self._api = api
        self._group = group
        self._resource = resource
        self._sink = sink
        self._stop_asked = threading.Event()
        self._socket: socket.socket | None = None

    def stop(self) -> None:
        """Ask the thread to end, in the middle of a request if need be."""
        self._stop_asked.set()
        if (open_socket := self._socket) is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        timing = self._api.timing
        delay = timing.first_retry
        while not self._stop_asked.is_set():
            try:
                version = self._list()
                delay = timing.first_retry
                while not self._stop_asked.is_set():
                    version = self._watch(version)
                    self._stop_asked.wait(timing.first_retry)
            except GoneError as error:
                self._report("version expired, listing again", error)
            except Exception as error:
                self._report("trying again", error, retry_in=round(delay, 1))
            # Also after a version was gone: a list may be older than the API still watches from.
            self._stop_asked.wait(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, timing.last_retry)

    def _report(self, what: str, error: Exception, **more: object) -> None:
        if not self._stop_asked.is_set():
            fields = "".join(f" {name}={value}" for name, value in more.items())
            kind = type(error).__name__
            log.warning("%s resource=%s%s error=%s: %s", what, self._resource, fields, kind, error)

    def _list(self) -> str:
        objects: list[Json] = []
        page: Json = {}
        query = {"limit": str(self._api.page)}
        while True:
            with self._get(query) as response:
                page = json.load(response)
            objects.extend(page.get("items") or ())
            if not (more := page["metadata"].get("continue")):
                break
            query["continue"] = more
        version = str(page["metadata"]["resourceVersion"])
        self._sink.replace(self._resource, objects)
        log.info("listed resource=%s objects=%d version=%s", self._resource, len(objects), version)
        return version

    def _watch(self, version: str) -> str:
        """Take in changes until the API ends the watch; the version to go on from."""
        timing = self._api.timing
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timing.watch),
            "resourceVersion": version,
        }
        with self._get(query, silence=timing.silence) as response:
            while line := response.readline():
                event = json.loads(line)
                obj = event["object"]
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        self._sink.change(self._resource, obj)
                    case "DELETED":
                        self._sink.remove(self._resource, obj)
                    case "BOOKMARK":
                        pass
                    case "ERROR":
                        raise error_of(int(obj.get("code") or 0), str(obj.get("message")))
                    case other:
                        raise ApiError(f"unknown kind of event {other!r}")
                version = str(obj["metadata"]["resourceVersion"])
        return version

    @contextmanager
    def _get(
        self, query: Mapping[str, str], silence: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._api.connect()
        try:
            self._socket = connection.sock
            if self._stop_asked.is_set():
                raise ApiError("stopped")
            if silence is not None:
                connection.sock.settimeout(silence)
            path = f"{self._group}/{self._resource}?{urllib.parse.urlencode(query)}"
            connection.request("GET", path, headers=self._api.headers())
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise error_of(response.status, response.read(500).decode(errors="replace"))
            yield response
        finally:
            self._socket = None
            connection.close()
