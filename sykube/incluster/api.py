"""The Kubernetes API as a pod sees it."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

log = logging.getLogger(__name__)

Json = dict[str, Any]
_JSON = "application/json"
# A connection of which the other end is gone is found dead after 40 s, though nobody says anything.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 5}
# On a node that starts, packets are lost until kube-proxy and what enforces policies have rules.
# The kernel sends another one 1 s after the first, then after 2, 4 … (RFC 6298); the first one of a
# new connection is there sooner.
_FIRST_PACKET_S = 0.25


class ApiError(Exception):
    """The API answered with something other than what was asked for; 0 where with no status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class GoneError(ApiError):
    """The API no longer knows the resource version that a watch was to start from."""


@dataclass(frozen=True)
class Timing:
    """How long to wait for what, in seconds.

    Args:
        request: for a connection, and for each part of a list.
        watch: how long the API is asked to keep a watch open, as long as those of Kubernetes' own
            programs are: each takes a connection with its keys. It ends every watch by then, so
            `silence` finds an API that hangs.
        silence: how long a watch may say nothing.
        first_retry: before the first new attempt; twice as long before each further one.
        last_retry: at most this long between attempts.
    """

    request: float = 10.0
    watch: int = 300
    silence: float = 310.0
    first_retry: float = 0.2
    last_retry: float = 5.0


@dataclass(frozen=True)
class Api:
    """Where the API is and how to be let in.

    Args:
        server: its URL. Over plain http no token is sent.
        account: folder with the service account's `token` and the cluster's `ca.crt`. Both are read
            for every request, since the token is replaced while it is in use.
        page: how many objects to ask for at a time.
        timing: how long to wait.
    """

    server: str
    account: Path = SERVICE_ACCOUNT
    page: int = 500
    timing: Timing = Timing()

    @classmethod
    def in_cluster(cls, environ: Mapping[str, str]) -> Api:
        """The API that a pod's environment names; KeyError if it does not."""
        host = environ["KUBERNETES_SERVICE_HOST"]
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{environ['KUBERNETES_SERVICE_PORT']}")

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is there.

        Raises:
            ApiError: the server's URL names no host.
            OSError: it does not answer, or is not who it should be.
        """
        url = urllib.parse.urlsplit(self.server)
        if not url.hostname:
            raise ApiError(f"no host in {self.server!r}")
        context = self._context() if url.scheme == "https" else None
        port = url.port or (443 if context else 80)
        connection = http.client.HTTPConnection(url.hostname, port, timeout=self.timing.request)
        opened = _opened((url.hostname, port), self.timing.request)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            opened.setsockopt(socket.IPPROTO_TCP, option, value)
        if context:
            opened = context.wrap_socket(opened, server_hostname=url.hostname)
        connection.sock = opened
        return connection

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        # Python 3.13 began to insist on key identifiers, which not every cluster's CA gave.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "sykube-incluster"}
        if urllib.parse.urlsplit(self.server).scheme == "https":
            token = (self.account / "token").read_text(encoding="ascii").strip()
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def send(
        self, method: str, path: str, body: Json | None = None, content_type: str = _JSON
    ) -> Json:
        """Send one request; the answer.

        Raises:
            ApiError: it was refused; its status says how.
            OSError, http.client.HTTPException: there was no answer.
        """
        connection = self.connect()
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**self.headers(), "Content-Type": content_type})
            response = connection.getresponse()
            text = response.read()
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                raise error_of(response.status, text[:1000].decode(errors="replace"))
            answer: Json = json.loads(text)
            return answer
        finally:
            connection.close()


def _opened(where: tuple[str, int], timeout: float) -> socket.socket:
    """A connection to a host and port, tried again and again for so many seconds.

    Raises:
        OSError: it is refused, or there is no answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            opened = socket.create_connection(where, min(_FIRST_PACKET_S, timeout))
        except TimeoutError:
            if time.monotonic() < deadline:
                continue
            raise
        opened.settimeout(timeout)
        return opened


def error_of(status: int, message: str) -> ApiError:
    """The error that an answer of that status is."""
    kind = GoneError if status == http.HTTPStatus.GONE else ApiError
    return kind(f"{status} {' '.join(message.split())}", status)
