"""The zone as the Kubernetes API has it now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..api import Json
from .records import Key, Zone, key_of, parse_endpoints, parse_service

log = logging.getLogger(__name__)


class LiveZone:
    """The zone as it is now: watchers write it, the server reads it."""

    def __init__(self, zone: Zone) -> None:
        self._lock = threading.Lock()
        self._zone = zone
        self._waiting_for = set(_PARSERS)

    @property
    def zone(self) -> Zone | None:
        """The zone, or None until both Services and Endpoints were listed once."""
        return None if self._waiting_for else self._zone

    def replace(self, resource: str, objects: Sequence[Json]) -> None:
        changes: dict[Key, Any] = dict.fromkeys(getattr(self._zone, resource))
        changes.update(_parsed(resource, obj) for obj in objects)
        self._update(resource, changes)
        self._waiting_for.discard(resource)

    def change(self, resource: str, obj: Json) -> None:
        self._update(resource, dict([_parsed(resource, obj)]))

    def remove(self, resource: str, obj: Json) -> None:
        self._update(resource, {key_of(obj): None})

    def _update(self, resource: str, changes: Mapping[Key, Any]) -> None:
        with self._lock:
            self._zone = self._zone.updated(**{resource: changes})


_PARSERS: dict[str, Callable[[Json], Any]] = {
    "services": parse_service,
    "endpoints": parse_endpoints,
}


def _parsed(resource: str, obj: Json) -> tuple[Key, Any]:
    """An object and its key; one that makes no sense counts as gone."""
    key = key_of(obj)
    try:
        return key, _PARSERS[resource](obj)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        log.warning("ignored resource=%s object=%s/%s error=%r", resource, *key, error)
        return key, None
