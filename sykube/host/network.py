"""What is asked over a network: that of the host, or that of one of its processes.

What is imported below takes a while, and a shell that completes words asks no server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection

_CLONE_NEWNET = 0x40000000


class LedAwayError(OSError):
    """A port can be listened on, but what is sent to it does not arrive there."""


class Network:
    """The host's own; `Host.network`.

    Attributes:
        arrival: the address at which arrives here what comes to the host's ports; empty where the
            host's own addresses are here.
        beyond: what the host has routes to that are none here.
    """

    arrival: str = ""
    beyond: tuple[IPv4Network, ...] = ()

    def http(
        self, url: str, timeout: float, tls: Callable[[], ssl.SSLContext] | None = None
    ) -> HTTPConnection:
        """An HTTP connection, which is opened by its first request.

        Args:
            url: of the server, http://, https:// or unix:PATH.
            timeout: seconds for each step of a request.
            tls: makes what is trusted and shown, for https.
        """
        from http.client import HTTPConnection, HTTPSConnection

        scheme, _, place = url.partition(":")
        if scheme == "unix":
            return _over_unix(place, timeout)
        place = place.strip("/")
        if scheme == "https":
            return HTTPSConnection(place, timeout=timeout, context=tls() if tls else None)
        return HTTPConnection(place, timeout=timeout)

    def exchange(self, pid: int, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        """Send one datagram from the network of a process and return the answer to it.

        Args:
            pid: the process, seen from the host.
            address: host and port.
            timeout: seconds to wait for the answer.

        Raises:
            OSError: the process is gone, or there is no answer in time.
        """
        from concurrent.futures import ThreadPoolExecutor

        # A network namespace is entered by a thread; this one ends with its pool.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(_exchange, pid, address, request, timeout).result()

    def bind(self, kind: socket.SocketKind, address: tuple[str, int]) -> None:
        """Take a port and give it back.

        Raises:
            OSError: it is in use, or the host has no such address; LedAwayError.
        """
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(address)

    def publish(self, cluster: str, ports: Collection[tuple[str, str, int]]) -> None:
        """Let ports of the host, and no others of a cluster's before, lead here: they do.

        Args:
            ports: protocol, address of the host and number of each.

        Raises:
            SykubeError: one cannot be had.
        """

    def api_port(self, taken: Collection[int]) -> int:
        """A free port of the host's loopback for an API server; 0 where it is reached itself.

        Args:
            taken: those of other clusters, which may be stopped.
        """
        return 0

    def connect(self, address: tuple[str, int], timeout: float) -> None:
        """Open a TCP connection and close it.

        Raises:
            OSError: nothing answers in time.
        """
        socket.create_connection(address, timeout).close()


def _over_unix(path: str, timeout: float) -> HTTPConnection:
    from http.client import HTTPConnection

    class Connection(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(path)

    return Connection("127.0.0.1")


def _exchange(pid: int, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        # os.setns came with Python 3.12.
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        connection.send(request)
        return connection.recv(4096)
