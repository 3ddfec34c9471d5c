"""The network of a node, used from the host without starting a process in the node."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

_CLONE_NEWNET = 0x40000000


def exchange(pid: int, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
    """Send one datagram from a node's network and return the answer to it.

    Args:
        pid: a process of the node, seen from the host.
        address: host and port.
        timeout: seconds to wait for the answer.

    Raises:
        OSError: the node is gone, or there is no answer in time.
    """
    # A network namespace is entered by a thread; this one ends with its pool.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_exchange, pid, address, request, timeout).result()


def _exchange(pid: int, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        # os.setns came with Python 3.12. Not imported above: it takes a while.
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
