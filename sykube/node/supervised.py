"""supervisord of a node, asked from the host: its programs' states, and to end or start one."""

from __future__ import annotations

import contextlib
import xmlrpc.client
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException  # noqa: TID251 - over a socket of a node

from sykube.errors import SykubeError
from sykube.host.host import Host

RUNNING = "RUNNING"
_SOCKET = "root/run/supervisor.sock"
_TIMEOUT_S = 10.0
# Faults of supervisor's xmlrpc.py.
_ALREADY_STARTED, _NOT_RUNNING = 60, 70


def is_up(host: Host, pid: int) -> bool:
    """Whether supervisord of a node answers.

    It starts its programs once it has answered somebody, or after a second.
    """
    try:
        states(host, pid)
    except SykubeError:
        return False
    return True


def states(host: Host, pid: int) -> dict[str, str]:
    """The state of each program: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL …

    Its socket is seen through /proc, so that nothing has to be started in the node.

    Args:
        pid: the first process of the node's instance, seen from the host.

    Raises:
        SykubeError: supervisord does not answer within 10 s.
    """
    with _server(host, pid) as server:
        programs = server.supervisor.getAllProcessInfo()
    return {program["name"]: program["statename"] for program in programs}  # type: ignore


def stop(host: Host, pid: int, program: str) -> None:
    """End a program; one that does not run is no error.

    Args:
        pid: the first process of the node's instance, seen from the host.

    Raises:
        SykubeError: supervisord refuses, or does not answer within 10 s.
    """
    with _server(host, pid) as server, _no_error(_NOT_RUNNING):
        server.supervisor.stopProcess(program)


def start(host: Host, pid: int, program: str) -> None:
    """Start a program, not waiting until it has stayed up; one that runs is no error.

    Args and errors as for `stop`.
    """
    with _server(host, pid) as server, _no_error(_ALREADY_STARTED):
        server.supervisor.startProcess(program, False)


@contextlib.contextmanager
def _no_error(code: int) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != code:
            raise


@contextlib.contextmanager
def _server(host: Host, pid: int) -> Iterator[xmlrpc.client.ServerProxy]:
    # The address is not used: the transport knows its socket.
    socket = host.proc / str(pid) / _SOCKET
    transport = _Transport(lambda: host.network.http(f"unix:{socket}", _TIMEOUT_S))
    try:
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            yield server
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
