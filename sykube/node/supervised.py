"""What supervisord of a node says of its programs, asked from the host."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Callable
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
    socket = host.proc / str(pid) / _SOCKET
    transport = _Transport(lambda: host.network.http(f"unix:{socket}", _TIMEOUT_S))
    try:
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            programs = server.supervisor.getAllProcessInfo()
        return {program["name"]: program["statename"] for program in programs}  # type: ignore
    except (OSError, HTTPException, xmlrpc.client.Error) as error:
        raise SykubeError(
            f"supervisord does not answer: {error}",
            resolution="`sykube start` repairs nodes; `sykube logs` shows their logs.",
        ) from error


class _Transport(xmlrpc.client.Transport):
    """Like supervisor's own, which takes twice as long to import as `status` asks all nodes."""

    def __init__(self, connect: Callable[[], HTTPConnection]) -> None:
        super().__init__()
        self._connect = connect

    def make_connection(self, _host: object) -> HTTPConnection:
        return self._connect()
