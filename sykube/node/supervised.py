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
# supervisord kills what has not ended after its stopwaitsecs, and answers then.
STOP_TIMEOUT_S = 60.0
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
    """End a program and return when it has ended; one that does not run is no error.

    Args:
        pid: the first process of the node's instance, seen from the host.

    Raises:
        SykubeError: supervisord refuses, or does not answer within a minute.
    """
    with _server(host, pid, STOP_TIMEOUT_S) as server:
        try:
            server.supervisor.stopProcess(program)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise
            # It may be stopping for somebody who did not wait for it.
            while server.supervisor.getProcessInfo(program)["statename"] == "STOPPING":  # type: ignore
                host.sleep(0.05)


def start(host: Host, pid: int, program: str) -> None:
    """Start a program, not waiting until it has stayed up; one that runs is no error.

    Args:
        pid: the first process of the node's instance, seen from the host.

    Raises:
        SykubeError: supervisord refuses, or does not answer within 10 s.
    """
    with _server(host, pid) as server:
        try:
            server.supervisor.startProcess(program, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise


@contextlib.contextmanager
def _server(
    host: Host, pid: int, timeout: float = _TIMEOUT_S
) -> Iterator[xmlrpc.client.ServerProxy]:
    # The address is not used: the transport knows its socket.
    socket = host.proc / str(pid) / _SOCKET
    transport = _Transport(lambda: host.network.http(f"unix:{socket}", timeout))
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
