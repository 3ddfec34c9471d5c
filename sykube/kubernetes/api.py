"""A small client of the API server, for what sykube itself asks of it.

What it is made of is imported with the first connection: `sykube kubectl` makes none.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import json
import logging
import os
import re
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from sykube.errors import SykubeError
from sykube.host.host import Host

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPResponse

log = logging.getLogger("sykube.api")

API_PORT = 6443
# The aggregator of 1.20 panics: "FieldManager must be installed to run apply".
_WITHOUT_APPLY = frozenset(["APIService"])
_TIMEOUT_S = 10.0
# Looking can be tried again; for a change, wait as long as the server itself may work on a request.
# Source: kube-apiserver's --request-timeout.
_CHANGE_TIMEOUT_S = 60.0
# How much longer than asked wait_until goes on at most: an emulated machine took 7 minutes, not 5,
# to have pods Ready.
_TIMES = 3
_PIECE = 65536
_RENEW = "`sykube certs renew` makes new ones."


class ApiError(SykubeError):
    """The API server refused a request, or does not answer (status 0)."""

    def __init__(self, brief: str, status: int) -> None:
        # Status 0 is mostly a cluster of which something does not run.
        start = "" if status else "`sykube start` brings back what does not run; "
        super().__init__(brief, resolution=f"{start}`sykube doctor` looks for the cause.")
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
            return cls.parse(kubeconfig.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SykubeError(
                f"{kubeconfig} is no kubeconfig with the cluster's credentials",
                details=str(error),
                resolution=_RENEW,
            ) from error

    @classmethod
    def parse(cls, kubeconfig: str) -> Credentials:
        """The same of a kubeconfig's text.

        Line by line, as kubeadm and kubectl write it: `sykube status` would spend a tenth of its
        time on importing all of YAML.

        Raises:
            ValueError: it holds no such thing.
        """
        return cls(
            _value(kubeconfig, "server"),
            base64.b64decode(_value(kubeconfig, "certificate-authority-data"), validate=True),
            base64.b64decode(_value(kubeconfig, "client-certificate-data"), validate=True),
            base64.b64decode(_value(kubeconfig, "client-key-data"), validate=True),
        )


def _value(kubeconfig: str, key: str) -> str:
    found = re.search(rf"^[ -]*{key}: *(\S+)$", kubeconfig, re.MULTILINE)
    if not found:
        raise ValueError(f"it has no {key}")
    return found[1]


class Api:
    """Requests with the cluster's admin credentials, over one connection; a context manager.

    On http.client: requests takes as long to import as a whole `kubectl get` takes to run.
    """

    def __init__(
        self, host: Host, credentials: Credentials, *, timeout: float = _TIMEOUT_S
    ) -> None:
        self._server = credentials.server
        self._waiting = host.waiting
        self._timeout = timeout
        self._kinds: dict[str, dict[str, Any]] = {}
        self._connection = host.network.http(credentials.server, timeout, lambda: _tls(credentials))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

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
            ApiError: any status of 400 and above, or no answer within 10 s, 60 s for a change.
        """
        target = f"{path}?{urlencode(params)}" if params else path
        text = None if body is None else json.dumps(body)
        with self._waiting("API requests"), self._answering():
            self._drop_if_closed()
            self._set_timeout(self._timeout if method == "GET" else _CHANGE_TIMEOUT_S)
            self._connection.request(method, target, text, {"Content-Type": content_type})
            answer = self._connection.getresponse()
            content = answer.read().decode(errors="replace")
        if answer.status >= 400:
            raise _refused(method, path, answer.status, content)
        return json.loads(content) if "json" in answer.getheader("Content-Type", "") else content

    def stream(self, path: str, **params: str) -> Stream:
        """An answer that goes on until either side ends it; the connection is its own from then on.

        Raises:
            ApiError: any status of 400 and above, or no answer within 10 s.
        """
        self._connection.close()
        with self._answering():
            self._connection.request("GET", f"{path}?{urlencode(params)}")
            open_socket = self._connection.sock
            answer = self._connection.getresponse()
            if answer.status >= 400:
                raise _refused("GET", path, answer.status, answer.read().decode(errors="replace"))
        # It may have nothing to say for hours.
        open_socket.settimeout(None)
        return Stream(open_socket, answer)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what goes wrong with the connection into an ApiError."""
        from http.client import HTTPException

        try:
            yield
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise ApiError(
                f"the API server at {self._server} does not answer: {error}", 0
            ) from error

    def _drop_if_closed(self) -> None:
        """Forget a connection that the server has ended since; the next request makes another."""
        open_socket = self._connection.sock
        if open_socket and select.select([open_socket], [], [], 0)[0]:
            self._connection.close()

    def _set_timeout(self, seconds: float) -> None:
        self._connection.timeout = seconds
        if self._connection.sock:
            self._connection.sock.settimeout(seconds)

    def get(self, path: str, **params: str) -> Any:
        return self.request("GET", path, params=params)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Create or update an object by server-side apply, where its kind knows that.

        Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        if manifest["kind"] in _WITHOUT_APPLY:
            self._create_or_merge(manifest)
            return
        try:
            self._apply(manifest)
        except ApiError as error:
            strategy = manifest.get("spec", {}).get("strategy", {})
            if error.status != 422 or strategy.get("type") != "Recreate":
                raise
            # A Deployment that was rolled keeps the defaults of that, which nobody has applied and
            # nobody can so take away; with them it is refused: kubernetes/kubernetes issue 24198.
            strategy = {"type": "Recreate", "rollingUpdate": None}
            self._merge(manifest, {"spec": {"strategy": strategy}})
            self._apply(manifest)

    def _apply(self, manifest: dict[str, Any]) -> None:
        self.request(
            "PATCH",
            self.path_of(manifest),
            manifest,
            content_type="application/apply-patch+yaml",
            params={"fieldManager": "sykube", "force": "true"},
        )

    def _create_or_merge(self, manifest: dict[str, Any]) -> None:
        try:
            self.request("POST", self._collection(manifest), manifest)
        except ApiError as error:
            if error.status != 409:
                raise
            self._merge(manifest, manifest)

    def _merge(self, manifest: dict[str, Any], patch: dict[str, Any]) -> None:
        merge = "application/merge-patch+json"
        self.request("PATCH", self.path_of(manifest), patch, content_type=merge)

    def path_of(self, manifest: dict[str, Any]) -> str:
        """The path of an object, by what the API server says of its kind.

        Raises:
            ApiError: it knows no such kind (404), or does not answer.
        """
        return f"{self._collection(manifest)}/{manifest['metadata']['name']}"

    def _collection(self, manifest: dict[str, Any]) -> str:
        version, kind = manifest["apiVersion"], manifest["kind"]
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        # A kind that it did not know may have come since, by a CustomResourceDefinition.
        if kind not in self._kinds.get(version, {}):
            found = self.get(prefix)["resources"]
            # The others are parts of objects, such as pods/log.
            self._kinds[version] = {each["kind"]: each for each in found if "/" not in each["name"]}
        try:
            resource = self._kinds[version][kind]
        except KeyError:
            raise ApiError(f'no matches for kind "{kind}" in version "{version}"', 404) from None
        if resource["namespaced"]:
            prefix += f"/namespaces/{manifest['metadata'].get('namespace', 'default')}"
        return f"{prefix}/{resource['name']}"

    def delete(self, found: str | dict[str, Any]) -> None:
        """Delete an object, given by its path or a manifest; one that is gone is no error."""
        try:
            self.request("DELETE", found if isinstance(found, str) else self.path_of(found))
        except ApiError as error:
            if error.status != 404:
                raise


class Stream:
    """The text of an answer as it comes, in pieces of any length."""

    def __init__(self, open_socket: socket.socket, answer: HTTPResponse) -> None:
        self._socket, self._answer = open_socket, answer

    def __iter__(self) -> Iterator[str]:
        """Its pieces, up to its end; a connection that is lost is an end, too."""
        from http.client import HTTPException

        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with contextlib.suppress(OSError, HTTPException, ValueError):
            while piece := self._answer.read1(_PIECE):
                yield decoder.decode(piece)

    def close(self) -> None:
        """End it, also while another thread waits for its next piece."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _refused(method: str, path: str, status: int, content: str) -> ApiError:
    reason = content
    with contextlib.suppress(ValueError, KeyError, TypeError):
        reason = json.loads(content)["message"]
    return ApiError(f"{method} {path}: {reason}", status)


def _tls(credentials: Credentials) -> ssl.SSLContext:
    """TLS that trusts only the cluster's CA and shows the client's certificate.

    Raises:
        SykubeError: OpenSSL refuses them.
    """
    import ssl

    # OpenSSL only reads a key from a file; this one is in memory, and no other process's.
    descriptor = os.memfd_create("sykube-client", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(credentials.certificate + b"\n" + credentials.key)
        file.flush()
        try:
            context = ssl.create_default_context(cadata=credentials.ca.decode())
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        except (ssl.SSLError, ValueError) as error:
            raise SykubeError(
                "the cluster's credentials are damaged", details=str(error), resolution=_RENEW
            ) from error
    return context


def wait_until(
    host: Host, what: str, check: Callable[[], str], timeout: float, *, interval: float = 0.1
) -> None:
    """Call `check` until it returns an empty text: nothing is missing.

    Args:
        what: what is waited for, for the error.
        check: says what is still missing; an ApiError of it counts as missing.
        timeout: seconds. They begin anew whenever `check` says what it never said, as something
            happens then, if slowly; in all they are three times as many at most.
        interval: least seconds between two calls; slow calls leave as much time as they take, so
            that looking is never most of what a slow machine does.

    Raises:
        SykubeError: the time is over; it holds the last thing missing.
    """
    with host.waiting(what):
        _poll(host, what, check, timeout, interval)


def _poll(host: Host, what: str, check: Callable[[], str], timeout: float, interval: float) -> None:
    begun = host.monotonic()
    last = deadline = begun + _TIMES * timeout
    before = ""
    known: set[str] = set()
    while True:
        started = host.monotonic()
        try:
            missing = check()
        except ApiError as error:
            missing = error.brief
        if not missing:
            return
        if missing != before:
            log.debug("waiting for %s: %s", what, missing)
            before = missing
        now = host.monotonic()
        if missing not in known:
            known.add(missing)
            deadline = min(now + timeout, last)
        if now > deadline:
            raise SykubeError(
                f"{what}: not there after {now - begun:.0f} s",
                details=missing,
                resolution="Look at `sykube doctor` and at the logs of the nodes.",
            )
        host.sleep(max(interval, host.monotonic() - started))
