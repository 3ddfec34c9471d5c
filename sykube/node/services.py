"""What supervisord of a node says of its programs, asked from the host."""

from __future__ import annotations

import socket
import xmlrpc.client
from http.client import HTTPConnection, HTTPException  # noqa: TID251 - over a socket of a node

from sykube.errors import SykubeError
from sykube.host.host import Host

RUNNING = "RUNNING"
_SOCKET = "root/run/supervisor.sock"
_TIMEOUT_S = 10.0


def is_up(host: Host, pid: int) -> bool:
    """Whether supervisord of a node has opened its socket."""
    return (host.proc / str(pid) / _SOCKET).exists()


def states(host: Host, pid: int) -> dict[str, str]:
    """The state of each program: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL …

    Its socket is seen through /proc, so that nothing has to be started in the node.

    Args:
        pid: the first process of the node's instance, seen from the host.

    Raises:
        SykubeError: supervisord does not answer within 10 s.
    """
    # The address is not used: the transport knows its socket.
    transport = _Transport(str(host.proc / str(pid) / _SOCKET))
    try:
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            programs = server.supervisor.getAllProcessInfo()
        return {program["name"]: program["statename"] for program in programs}  # type: ignore
    except (OSError, HTTPException, xmlrpc.client.Error) as error:
        raise SykubeError(
            f"supervisord does not answer: {error}",
            resolution="`sykube start` repairs nodes; `sykube logs` shows their logs.",
        ) from error


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("127.0.0.1")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    """Like supervisor's own, which takes twice as long to import as `status` asks all nodes."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, _host: object) -> HTTPConnection:
        return _Connection(self._path)
