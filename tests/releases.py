"""A server of files on loopback, laid out like upstream's release sites, that fails as asked.

The layouts are those of their own documentation, not what sykube asks for:
- Kubernetes: https://kubernetes.io/docs/tasks/tools/install-kubectl-linux/ (release/stable.txt;
  release/vVERSION/bin/linux/ARCH/kubectl and .sha256 beside it, a bare checksum, as the page adds
  the name itself; `curl -L`, as answers lead elsewhere). stable-1.N.txt and a 404 where there is
  none: kubernetes/kubernetes, cmd/kubeadm/app/util/version.go. .sha512: CHANGELOG of any release.
- containerd: docs/getting-started.md ("Option 1: From the official binaries") and the Makefile,
  whose target releases/%.tar.gz.sha256sum has `sha256sum FILE`.
- runc: script/release_build.sh (`sha256sum runc.ARCH… > runc.sha256sum`) and
  script/release_sign.sh (gpg --clear-sign of it).
Ranges, and what is answered when they do not fit: RFC 9110, section 14.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KUBERNETES, CONTAINERD, RUNC = (
    "",
    "/containerd/containerd/releases/download",
    "/opencontainers/runc/releases/download",
)
# Where files are that the release site leads to.
STORE = "/store"
# How long a server says nothing that stalls.
STALL_S = 60.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        status: answered instead of the file.
        headers: further ones.
        cut: bytes after which the connection ends.
        stall: bytes after which nothing more comes.
        damaged: the last byte is another one.
        ranges: whether it knows ranges at all.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1
    stall: int = -1
    damaged: bool = False
    ranges: bool = True


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that end a connection are none."""


class Server:
    """Serves `files` by their path.

    Args:
        certificate: a folder with crt and key; https with it.
        login: USER:PASSWORD that is wanted.
        port: 0 is any.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        certificate: Path | None = None,
        login: str = "",
        port: int = 0,
    ) -> None:
        self.files = files
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[Request] = []
        self._login = login
        self._ended = threading.Event()
        self._server = _Quiet(("127.0.0.1", port), self._handler())
        self._scheme = "http"
        if certificate:
            self._scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate / "crt", certificate / "key")
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}"

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for, in their order."""
        return [request.path for request in self.requests]

    def fail(self, path: str, *faults: Fault) -> None:
        """The next answers for a path; those after them are well."""
        assert path in self.files or any(fault.status for fault in faults)
        self.faults[path] += faults

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append(Request(self.path, dict(self.headers)))
                faults = server.faults[self.path]
                fault = faults.pop(0) if faults else Fault()
                if fault.status:
                    self._answer(fault.status, fault.headers, b"what a server says")
                    return
                if server._login:
                    expected = base64.b64encode(server._login.encode()).decode()
                    if self.headers.get("Authorization") != f"Basic {expected}":
                        self._answer(401, {"WWW-Authenticate": 'Basic realm="site"'}, b"")
                        return
                if f"{STORE}{self.path}" in server.files:
                    # Such a place has a signature that gives access to it.
                    self._answer(302, {"Location": f"{STORE}{self.path}?signed=Planted"}, b"")
                    return
                body = server.files.get(self.path.partition("?")[0])
                if body is None:
                    self._answer(404, {"Content-Type": "application/xml"}, b"<Error/>")
                    return
                self._file(body, fault)

            def _file(self, body: bytes, fault: Fault) -> None:
                status, headers, start = 200, {}, 0
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if fault.ranges and wanted:
                    start = int(wanted[1])
                    if start >= len(body):
                        self._answer(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
                        return
                    status = 206
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                if fault.damaged:
                    body = body[:-1] + bytes([body[-1] ^ 1])
                self._answer(status, headers | fault.headers, body[start:], fault)

            def _answer(
                self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if fault and fault.cut >= 0:
                    self.wfile.write(body[: fault.cut])
                    self.close_connection = True
                elif fault and fault.stall >= 0:
                    self.wfile.write(body[: fault.stall])
                    server._ended.wait(STALL_S)
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not on the tests' terminal."""

        return Handler


def kubernetes(
    version: str, programs: dict[str, bytes], architecture: str = "amd64"
) -> dict[str, bytes]:
    """The files of a release of Kubernetes, which lead to where they are stored."""
    files = {}
    for name, content in programs.items():
        path = f"{STORE}/release/v{version}/bin/linux/{architecture}/{name}"
        files[path] = content
        files[f"{path}.sha256"] = hashlib.sha256(content).hexdigest().encode()
        files[f"{path}.sha512"] = hashlib.sha512(content).hexdigest().encode()
    return files


def stable(versions: Iterable[str]) -> dict[str, bytes]:
    """The texts that name the newest releases; the first version is the newest of all."""
    listed = list(versions)
    files = {"/release/stable.txt": f"v{listed[0]}".encode()}
    for version in reversed(listed):
        minor = version.rpartition(".")[0]
        files[f"/release/stable-{minor}.txt"] = f"v{version}".encode()
    return files


def containerd(version: str, archive: bytes, architecture: str = "amd64") -> dict[str, bytes]:
    """The files of a release of containerd."""
    name = f"containerd-{version}-linux-{architecture}.tar.gz"
    folder = f"{CONTAINERD}/v{version}"
    line = f"{hashlib.sha256(archive).hexdigest()}  {name}\n"
    return {f"{folder}/{name}": archive, f"{folder}/{name}.sha256sum": line.encode()}


def runc(version: str, programs: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a release of runc.

    Args:
        programs: by architecture.
    """
    folder = f"{RUNC}/v{version}"
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  runc.{architecture}"
        for architecture, content in programs.items()
    ]
    lines.append(f"{hashlib.sha256(b'source').hexdigest()}  runc.tar.xz")
    # https://www.rfc-editor.org/rfc/rfc9580#name-cleartext-signature-framewo
    signed = "\n".join(
        [
            "-----BEGIN PGP SIGNED MESSAGE-----",
            "Hash: SHA512",
            "",
            *lines,
            "-----BEGIN PGP SIGNATURE-----",
            "",
            "iQIzBAEBCgAdFiEEXzbGxhtUYBJKdfWmnhiqJn3bjbQFAmTest",
            "=AbCd",
            "-----END PGP SIGNATURE-----",
            "",
        ]
    )
    files = {f"{folder}/runc.{name}": content for name, content in programs.items()}
    return files | {f"{folder}/runc.sha256sum": signed.encode()}
