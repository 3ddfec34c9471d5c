"""The network of a fake host: API servers and supervisords behind connections, and datagrams."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import xmlrpc.client
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from sykube.host.network import Network
from sykube.kubernetes.api import ApiError

if TYPE_CHECKING:
    from tests.fakes.world import World

# What a server does with a request: method, target, headers, body.
Serve = Callable[[str, str, dict[str, str], str], "Response"]


class Response(io.BytesIO):
    """What http.client has of an answer."""

    def __init__(self, status: int, content: bytes, media_type: str) -> None:
        super().__init__(content)
        self.status, self.reason = status, ""
        self._headers = {"content-type": media_type}

    def getheader(self, name: str, default: str = "") -> str:
        return self._headers.get(name.lower(), default)


class LogResponse(Response):
    """A log that comes in pieces, up to the last one."""

    def __init__(self, pieces: Sequence[str]) -> None:
        super().__init__(200, b"", "text/plain")
        self._pieces = iter(pieces)

    def read1(self, _size: int | None = -1, /) -> bytes:
        return next(self._pieces, "").encode()


class Connection(HTTPConnection):
    """A connection whose server is a function."""

    def __init__(self, serve: Serve) -> None:
        super().__init__("localhost")
        self._serve = serve
        self._asked = ("", "")
        self._headers: dict[str, str] = {}
        self._response: Response | None = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = (), **_: Any) -> None:
        self._response = self._serve(method, url, dict(headers), body or "")
        # What reads a log is handed the socket, to end it by.
        is_log = isinstance(self._response, LogResponse)
        self.sock = socket.socket(socket.AF_UNIX) if is_log else None

    def putrequest(self, method: str, url: str, *_: bool, **__: bool) -> None:
        self._asked, self._headers = (method, url), {}

    def putheader(self, header: str | bytes, *values: Any) -> None:
        self._headers[str(header)] = str(values[0])

    def endheaders(self, message_body: Any = None, **_: Any) -> None:
        self._response = self._serve(*self._asked, self._headers, message_body.decode())

    def getresponse(self) -> Any:
        assert self._response is not None, "nothing was asked"
        return self._response


class FakeNetwork(Network):
    """What the clusters of a world answer.

    Attributes:
        dns_fails, supervisor_fails: what is raised in the place of an answer.
        taken: ports of the host that other programs have.
        log: of every container, in pieces.
        logs_asked: targets of the requests for logs.
        refused: why nothing answers at an address, or nothing.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.dns_fails: OSError | None = None
        self.supervisor_fails: OSError | None = None
        self.taken: set[int] = set()
        self.log: list[str] = []
        self.logs_asked: list[str] = []
        self.refused: Callable[[tuple[str, int]], str] = lambda _: ""

    def http(self, url: str, timeout: float, tls: object = None) -> HTTPConnection:
        if url.startswith("unix:"):
            socket_file = Path(url.removeprefix("unix:"))
            return Connection(lambda *request: self._supervisor(socket_file, *request))
        address = urlsplit(url).hostname or ""
        return Connection(lambda *request: self._api(address, *request))

    def _api(
        self, address: str, method: str, target: str, headers: dict[str, str], body: str
    ) -> Response:
        """An API server, with what FakeApi says as JSON."""
        api = self.world.api(self._cluster_of(address))
        path, _, query = target.partition("?")
        if path.endswith("/log"):
            self.logs_asked.append(target)
            return LogResponse(self.log)
        try:
            answer = api.request(
                method,
                path,
                json.loads(body) if body else None,
                content_type=headers.get("Content-Type", ""),
                params=dict(parse_qsl(query)),
            )
        except ApiError as error:
            if not error.status:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused") from error
            text = {"message": error.brief.removeprefix(f"{method} {path}: ")}
            return Response(error.status, json.dumps(text).encode(), "application/json")
        if isinstance(answer, str):
            return Response(200, answer.encode(), "text/plain")
        return Response(200, json.dumps(answer).encode(), "application/json")

    def _cluster_of(self, address: str) -> str:
        """The cluster in whose network an address is; empty where no node of it runs."""
        for name, instance in self.world.instances.items():
            if IPv4Address(address) in IPv4Interface(instance.options.address).network:
                return name.rpartition("-")[0]
        return ""

    def _supervisor(
        self, file: Path, _method: str, _url: str, _headers: object, body: str
    ) -> Response:
        if self.supervisor_fails:
            raise self.supervisor_fails
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        arguments, method = xmlrpc.client.loads(body)
        found: Any = [{"name": k, "statename": v} for k, v in self.world.services.items()]
        if method in ("supervisor.stopProcess", "supervisor.startProcess"):
            assert arguments[0] in self.world.services
            pids = {each.pid: name for name, each in self.world.instances.items()}
            node = next(pids[int(part)] for part in file.parts if part.isdigit())
            self.world.calls.record("service", method.partition(".")[2], node, arguments[0])
            found = True
        else:
            assert method == "supervisor.getAllProcessInfo"
        answer = xmlrpc.client.dumps((found,), methodresponse=True)
        return Response(200, answer.encode(), "text/xml")

    def exchange(self, pid: int, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        """The cluster DNS: it has an address for every name that a node asks it for."""
        self.world.calls.record("dns", *address)
        if self.dns_fails:
            raise self.dns_fails
        names = [name for name, each in self.world.instances.items() if each.pid == pid]
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        etcd = self.world.kubernetes.get(names[0].rpartition("-")[0])
        if etcd and etcd.bare and not etcd.plugin:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return request[:2] + b"\x81\x80" + b"\0\1\0\1\0\0\0\0"

    def bind(self, kind: socket.SocketKind, address: tuple[str, int]) -> None:
        if address[1] in self.taken:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def connect(self, address: tuple[str, int], timeout: float) -> None:
        if why := self.refused(address):
            raise ConnectionRefusedError(errno.ECONNREFUSED, why)
