"""HTTPS for the API server, and the probes of the kubelet."""

from __future__ import annotations

import http.server
import json
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .answers import Answer, failure
from .certificate import Certificate
from .frontproxy import FrontProxy

log = logging.getLogger(__name__)

_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Identity:
    """What the server shows, and whom it lets in."""

    certificate: Certificate
    front_proxy: FrontProxy

    def context(self) -> ssl.SSLContext:
        """TLS that asks for the front proxy's certificate; probes have none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        # Python 3.13 began to insist on key identifiers, which kubeadm does not write.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self.front_proxy.ca)
        self.certificate.load(context)
        return context


class Server(http.server.ThreadingHTTPServer):
    """Serves with the identity of the moment; each connection has a thread.

    Args:
        answer: for the method, path and query of a request that the API server makes.
        ready: whether all is there to answer from.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        port: int,
        identity: Identity,
        answer: Callable[[str, str], Answer],
        ready: Callable[[], bool],
    ) -> None:
        super().__init__(("0.0.0.0", port), _Handler)
        self.answer, self.ready = answer, ready
        self.use(identity)

    def use(self, identity: Identity) -> None:
        """Serve new connections with another identity."""
        self._identity = identity, identity.context()

    @property
    def front_proxy(self) -> FrontProxy:
        """Whom the server lets in now."""
        return self._identity[0].front_proxy

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread: a slow client holds up nobody."""
        request.settimeout(_TIMEOUT_S)
        try:
            secured = self._identity[1].wrap_socket(request, server_side=True)
        except (OSError, ValueError) as error:
            log.debug("no handshake client=%s error=%s", client_address[0], error)
            return
        try:
            super().finish_request(secured, client_address)
        except OSError as error:
            log.debug("lost client=%s error=%s", client_address[0], error)
        finally:
            secured.close()

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="serve", daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    connection: ssl.SSLSocket

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its parent's
        """Requests are the API server's to log."""

    def handle_any(self) -> None:
        self._discard_body()
        if self.path in ("/livez", "/readyz"):
            ready = self.path == "/livez" or self.server.ready()
            self._send(Answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {}))
        elif self.server.front_proxy.user(self.connection.getpeercert(), self.headers.get):
            self._send(self.server.answer(self.command, self.path))
        else:
            message = "the API server alone may ask: kubectl get --raw /apis/metrics.k8s.io"
            self._send(failure(HTTPStatus.UNAUTHORIZED, "Unauthorized", message))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _discard_body(self) -> None:
        # Nothing that is answered has one.
        if self.headers.get("Transfer-Encoding") or self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
