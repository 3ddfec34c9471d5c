"""A small client of the API server, for what sykube itself asks of it."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from sykube.errors import SykubeError

log = logging.getLogger("sykube.api")

# The one in C, where PyYAML has it, is ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TIMEOUT_S = 10.0


class ApiError(SykubeError):
    """The API server refused a request, or does not answer (status 0)."""

    def __init__(self, brief: str, status: int) -> None:
        super().__init__(brief)
        self.status = status


@dataclass(frozen=True)
class Credentials:
    """The parts of an admin kubeconfig."""

    server: str
    ca: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, kubeconfig: Path) -> Credentials:
        """Read the first cluster and user of a kubeconfig with embedded certificates.

        Raises:
            SykubeError: the file is missing or holds no such thing.
        """
        try:
            config = yaml.load(kubeconfig.read_text(), _Loader)
            cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
            return cls(
                cluster["server"],
                base64.b64decode(cluster["certificate-authority-data"]),
                base64.b64decode(user["client-certificate-data"]),
                base64.b64decode(user["client-key-data"]),
            )
        except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError, ValueError) as error:
            raise SykubeError(
                f"{kubeconfig} is no kubeconfig with the cluster's credentials",
                details=str(error),
            ) from error


class Api:
    """Requests with the cluster's admin credentials.

    Use it as a context manager: the key lies in a private folder while it is open, since
    requests takes certificates from files alone.
    """

    def __init__(self, credentials: Credentials) -> None:
        import requests  # Not above: it takes longer than many a command that asks no API.

        self._folder = tempfile.TemporaryDirectory(prefix="sykube-api-")
        folder = Path(self._folder.name)
        for name, data in (
            ("ca.crt", credentials.ca),
            ("client.crt", credentials.certificate),
            ("client.key", credentials.key),
        ):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        self._server = credentials.server
        self._error = requests.RequestException
        self._session = requests.Session()
        # The host's proxy settings are not for addresses on a bridge of ours.
        self._session.trust_env = False
        self._session.verify = str(folder / "ca.crt")
        self._session.cert = (str(folder / "client.crt"), str(folder / "client.key"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._folder.cleanup()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Any:
        """Send one request; the parsed JSON of the answer, or its text.

        Raises:
            ApiError: any status of 400 and above, or no answer within 10 s.
        """
        try:
            answer = self._session.request(
                method,
                f"{self._server}{path}",
                json=body,
                headers={"Content-Type": content_type},
                params=params,
                timeout=_TIMEOUT_S,
            )
        except self._error as error:
            raise ApiError(
                f"the API server at {self._server} does not answer: {error}", 0
            ) from error
        if answer.status_code >= 400:
            reason = answer.text
            with contextlib.suppress(ValueError, KeyError, TypeError):
                reason = answer.json()["message"]
            raise ApiError(f"{method} {path}: {reason}", answer.status_code)
        if "json" in answer.headers.get("Content-Type", ""):
            return answer.json()
        return answer.text

    def get(self, path: str, **params: str) -> Any:
        return self.request("GET", path, params=params)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Create or update an object by server-side apply.

        Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        self.request(
            "PATCH",
            f"{collection_path(manifest)}/{manifest['metadata']['name']}",
            manifest,
            content_type="application/apply-patch+yaml",
            params={"fieldManager": "sykube", "force": "true"},
        )

    def delete(self, path: str) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise


_CLUSTER_SCOPED = frozenset(
    [
        "Namespace",
        "Node",
        "ClusterRole",
        "ClusterRoleBinding",
        "PersistentVolume",
        "StorageClass",
        "PriorityClass",
        "APIService",
        "IngressClass",
        "CustomResourceDefinition",
        "CSIDriver",
    ]
)


def _plural(kind: str) -> str:
    """The name of a kind's collection, as apimachinery's UnsafeGuessKindToResource forms it."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("s"):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def collection_path(manifest: dict[str, Any]) -> str:
    """The path of the collection that an object belongs to."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    plural = _plural(kind)
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if kind in _CLUSTER_SCOPED:
        return f"{prefix}/{plural}"
    return f"{prefix}/namespaces/{manifest['metadata'].get('namespace', 'default')}/{plural}"


def manifests(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a YAML stream."""
    return (document for document in yaml.safe_load_all(text) if document)


def wait_until(
    what: str, check: Callable[[], str], timeout: float, *, interval: float = 0.2
) -> None:
    """Call `check` until it returns an empty text, which means that all is well.

    Args:
        what: what is waited for, for the error.
        check: says what is still missing; an ApiError of it counts as missing.
        timeout: seconds.
        interval: least seconds between two calls; slow calls leave as much time as they take, so
            that looking is never most of what a slow machine does.

    Raises:
        SykubeError: the time is over; it holds the last thing missing.
    """
    deadline = time.monotonic() + timeout
    before = ""
    while True:
        started = time.monotonic()
        try:
            missing = check()
        except ApiError as error:
            missing = error.brief
        if not missing:
            return
        if missing != before:
            log.debug("waiting for %s: %s", what, missing)
            before = missing
        if time.monotonic() > deadline:
            raise SykubeError(
                f"{what}: not there after {timeout:.0f} s",
                details=missing,
                resolution="Look at `sykube doctor` and at the logs of the nodes.",
            )
        time.sleep(max(interval, time.monotonic() - started))
