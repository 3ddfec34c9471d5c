"""Asking the kubelets, each known by the certificate that the host found in its node."""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..api import Api, error_of
from .objects import Node
from .samples import Meter, parse

log = logging.getLogger(__name__)

_TIMEOUT_S = 8.0
_PARALLEL = 8
_MAX_BYTES = 64 * 1024 * 1024


class _Connection(http.client.HTTPSConnection):
    """HTTPS to an address whose certificate carries a name."""

    def __init__(self, node: Node, context: ssl.SSLContext) -> None:
        super().__init__(node.address, node.port, timeout=_TIMEOUT_S)
        self._node, self._tls = node, context

    def connect(self) -> None:
        plain = socket.create_connection((self._node.address, self._node.port), _TIMEOUT_S)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._node.name)


def trusting(certificates: str) -> ssl.SSLContext:
    """TLS for a client that trusts only these.

    Raises:
        ssl.SSLError, ValueError: they are no certificates.
    """
    context = ssl.create_default_context(cadata=certificates)
    # Python 3.13 began to insist on key identifiers, which kubelets do not write.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def scrape(api: Api, node: Node, certificates: str) -> str:
    """A kubelet's resource metrics.

    Raises:
        ApiError: it refused.
        OSError, ValueError, http.client.HTTPException: it did not answer, or is another.
    """
    connection = _Connection(node, trusting(certificates))
    try:
        connection.request("GET", "/metrics/resource", headers=api.headers())
        answer = connection.getresponse()
        text = answer.read(_MAX_BYTES).decode(errors="replace")
        if answer.status != http.HTTPStatus.OK:
            raise error_of(answer.status, text[:500])
        return text
    finally:
        connection.close()


def scrape_all(
    api: Api, nodes: Sequence[Node], certificates: Mapping[str, str], meter: Meter
) -> list[str]:
    """Take in what all kubelets measure now; the nodes where that failed."""

    def ask(node: Node) -> str:
        if node.name not in certificates:
            # The token is only shown to kubelets that are known.
            log.warning("no certificate node=%s", node.name)
            return node.name
        try:
            meter.take(node.name, parse(scrape(api, node, certificates[node.name]), time.time()))
        except Exception as error:
            log.warning("no metrics node=%s error=%s: %s", node.name, type(error).__name__, error)
            return node.name
        return ""

    with ThreadPoolExecutor(_PARALLEL) as pool:
        return [name for name in pool.map(ask, nodes) if name]
