"""A registry outside the cluster that serves one image."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

from sykube.image import oci
from tests.containers import digest


class Served:
    """A server of HTTP in threads of its own, from its making to `close`."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = ThreadingHTTPServer(address, handler)
        if context:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Registry(Served):
    """Serves the image under any name and tag, as the OCI distribution specification has it.

    Args:
        blobs: its parts by their digests.
        login: USER:PASSWORD that it asks for.
        context: for HTTPS.

    Attributes:
        asked: the paths of requests that were let in.
        refused: how many others there were.
    """

    def __init__(
        self,
        address: tuple[str, int],
        blobs: Mapping[str, bytes],
        manifest: bytes,
        *,
        login: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.refused = 0
        self._wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
        self._blobs, self._manifest = blobs, manifest
        super().__init__(address, self._handler(), context)

    def _found(self, path: str) -> tuple[bytes | None, str]:
        """What a path leads to, and its type."""
        what = path.partition("?")[0].rpartition("/")[2]
        if "/manifests/" in path:
            return self._manifest, oci.MANIFEST
        return b"{}" if path == "/v2/" else self._blobs.get(what), "application/octet-stream"

    def _handler(registry) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.headers.get("Authorization") != registry._wanted and registry._wanted:
                    registry.refused += 1
                    self._answer(401, b"", **{"WWW-Authenticate": 'Basic realm="test"'})
                    return
                registry.asked.append(self.path)
                body, kind = registry._found(self.path)
                about = {"Content-Type": kind, "Docker-Content-Digest": digest(body or b"")}
                self._answer(200 if body is not None else 404, body or b"", **about)

            do_HEAD = do_GET  # noqa: N815

            def _answer(self, status: int, content: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Not on the tests' terminal."""

        return Handler
