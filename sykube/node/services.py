"""What supervisord of a node says of its programs, asked from the host."""

from __future__ import annotations

import xmlrpc.client
from http.client import HTTPException  # noqa: TID251 - what the transport raises

from supervisor.xmlrpc import SupervisorTransport

from sykube.errors import SykubeError

RUNNING = "RUNNING"
_SOCKET = "/proc/{pid}/root/run/supervisor.sock"


def states(pid: int) -> dict[str, str]:
    """The state of each program: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL …

    Its socket is seen through /proc, so that nothing has to be started in the node.

    Args:
        pid: the first process of the node's instance, seen from the host.

    Raises:
        SykubeError: supervisord does not answer.
    """
    transport = SupervisorTransport(None, None, f"unix://{_SOCKET.format(pid=pid)}")
    # The address is not used: the transport knows its socket.
    server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
    try:
        programs = server.supervisor.getAllProcessInfo()
        return {program["name"]: program["statename"] for program in programs}  # type: ignore
    except (OSError, HTTPException, xmlrpc.client.Error) as error:
        raise SykubeError(f"supervisord does not answer: {error}") from error
    finally:
        transport.close()
