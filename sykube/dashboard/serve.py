"""The page's server, on this host's loopback only."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from sykube.dashboard.access import Access
from sykube.dashboard.app import application
from sykube.dashboard.cluster_data import ClusterData
from sykube.dashboard.collector import Collector
from sykube.errors import SykubeError, UsageError

_ADDRESS = "127.0.0.1"


def listen(port: int, address: str = "") -> socket.socket:
    """A socket; 0 takes any free port.

    Args:
        address: where the host's own loopback is elsewhere, what arrives at it from there.

    Raises:
        UsageError: the port is another program's.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address or _ADDRESS, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"the port {port} is taken",
                resolution="Give another --port, or none for any that is free.",
            ) from error
        raise SykubeError(
            f"cannot listen on {_ADDRESS}:{port}: {error.strerror}",
            resolution="Give another --port, or none for any that is free.",
        ) from error
    # A browser that is quicker than the server waits for it.
    listening.listen()
    return listening


class Server(uvicorn.Server):
    """Ends the pages that are open before it waits for them."""

    def __init__(self, config: uvicorn.Config, close_pages: Callable[[], None]) -> None:
        super().__init__(config)
        self._close_pages = close_pages

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close_pages()
        await super().shutdown(sockets)


def configuration(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        # Logs that are followed have no end of their own.
        timeout_graceful_shutdown=1,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http="h11",
        ws="none",
        loop="asyncio",
    )


def server(source: ClusterData, access: Access) -> Server:
    collector = Collector(source)
    return Server(configuration(application(source, access, collector)), collector.close)
