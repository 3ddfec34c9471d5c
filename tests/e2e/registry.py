"""A registry outside the cluster that serves one image, to those who know the password."""

from __future__ import annotations

import base64
import http.server
import threading
from types import TracebackType
from typing import Self

from sykube.image import container
from tests.containers import Image


class Registry:
    """Serves the image under any name and tag.

    Args:
        address: of this host, and a port.
        login: USER:PASSWORD.
    """

    def __init__(self, address: tuple[str, int], image: Image, login: str) -> None:
        wanted = f"Basic {base64.b64encode(login.encode()).decode()}"
        blobs = {name.rpartition("/")[2]: content for name, content in image.blobs.items()}
        self.refused = 0
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.headers.get("Authorization") != wanted:
                    registry.refused += 1
                    self._answer(401, b"", **{"WWW-Authenticate": 'Basic realm="test"'})
                    return
                *_, kind, what = self.path.partition("?")[0].split("/")
                if kind == "manifests":
                    digest = what.removeprefix("sha256:")
                    content = blobs.get(digest, image.manifest)
                    more = {"Docker-Content-Digest": image.digest}
                    self._answer(200, content, **{"Content-Type": container.MANIFEST}, **more)
                elif kind == "blobs" and what.removeprefix("sha256:") in blobs:
                    self._answer(200, blobs[what.removeprefix("sha256:")])
                else:
                    self._answer(404, b"")

            do_HEAD = do_GET  # noqa: N815 - the name is http.server's

            def _answer(self, status: int, content: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing is said."""

        self._server = http.server.ThreadingHTTPServer(address, Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
