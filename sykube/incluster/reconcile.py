"""What controllers have in common: objects as the API has them, and a loop that acts on changes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .api import Api, Json
from .console import log_to_stderr
from .watch import Watcher

# What failed may succeed by now: a full disk may have room again.
_LOOK_AGAIN_S = 30.0
# Several changes at once are one.
_PAUSE_S = 0.05


_Key = tuple[str, str]


@dataclass
class Objects:
    """Objects of some resources as the API has them; a sink for watchers.

    Args:
        keep: what is kept of an object of a resource.
    """

    keep: Callable[[str, Json], Any] = lambda _resource, obj: obj
    changed: threading.Event = field(default_factory=threading.Event)
    _found: dict[str, dict[_Key, Any]] = field(default_factory=dict)

    def replace(self, resource: str, objects: Sequence[Json]) -> None:
        self._found[resource] = {_key(each): self.keep(resource, each) for each in objects}
        self.changed.set()

    def change(self, resource: str, obj: Json) -> None:
        # A new dictionary: other threads read the old one.
        self._found[resource] = {**self._found[resource], _key(obj): self.keep(resource, obj)}
        self.changed.set()

    def remove(self, resource: str, obj: Json) -> None:
        gone = _key(obj)
        self._found[resource] = {k: v for k, v in self._found[resource].items() if k != gone}
        self.changed.set()

    def has(self, *resources: str) -> bool:
        """Whether all of them were listed once."""
        return all(resource in self._found for resource in resources)

    def all(self, resource: str) -> list[Any]:
        """What was kept of those that were seen last."""
        return list(self._found.get(resource, {}).values())


def _key(obj: Json) -> _Key:
    """Namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def serve(resources: Sequence[str], act: Callable[[Api, Objects], None]) -> None:
    """Call `act` after every change of some core/v1 resources, until SIGTERM.

    It exits with 1 when a watcher has died, to be restarted.
    """
    log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    api, objects = Api.in_cluster(os.environ), Objects()
    watchers = [Watcher(api, resource, objects) for resource in resources]
    for watcher in watchers:
        watcher.start()
    while all(watcher.is_alive() for watcher in watchers):
        objects.changed.wait(_LOOK_AGAIN_S)
        time.sleep(_PAUSE_S)
        objects.changed.clear()
        if objects.has(*resources):
            act(api, objects)
    sys.exit(1)
