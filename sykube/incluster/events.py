"""Events of objects, which is where users look for what went wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from .api import Json


class Sends(Protocol):
    """As Api."""

    def send(self, method: str, path: str, body: Json | None = None) -> Json: ...


def timestamp() -> str:
    """Now, as the API writes times."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def warn(api: Sends, kind: str, obj: Json, reason: str, message: str, component: str) -> None:
    """Add a warning to a core/v1 object.

    Raises:
        ApiError: it was refused.
        OSError, http.client.HTTPException: there was no answer.
    """
    metadata, now = obj["metadata"], timestamp()
    namespace = metadata.get("namespace", "default")
    named = {key: metadata[key] for key in ("namespace", "name", "uid") if key in metadata}
    event: Json = {
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": kind, **named},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    api.send("POST", f"/api/v1/namespaces/{namespace}/events", event)
