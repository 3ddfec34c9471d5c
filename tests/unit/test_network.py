"""The network of a node used from the host: real namespaces, made by the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from sykube.host.network import Network

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare"
)


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Answers each datagram, in this test's own network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                request, client = listening.recvfrom(512)
                if request == b"end":
                    return
                if request != b"silence":
                    listening.sendto(b"answer to " + request, client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = listening.getsockname()
        yield address
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"end", address)
        thread.join()


@pytest.fixture
def node() -> Iterator[int]:
    """A process in a network of its own, in which not even loopback is up."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            pytest.skip("this machine does not let root make network namespaces")
        yield process.pid
        process.communicate(b"\n")


def own_network() -> str:
    return os.readlink("/proc/thread-self/ns/net")


@as_root
def test_an_answer_comes_back(server: tuple[str, int]) -> None:
    assert Network().exchange(os.getpid(), server, b"7", 5.0) == b"answer to 7"


@as_root
def test_a_node_that_is_silent_is_an_error_in_time(server: tuple[str, int]) -> None:
    with pytest.raises(TimeoutError):
        Network().exchange(os.getpid(), server, b"silence", 0.05)


@as_root
def test_the_request_is_sent_in_the_nodes_network_and_not_in_the_hosts(
    server: tuple[str, int], node: int
) -> None:
    before = own_network()
    with pytest.raises(OSError, match="unreachable"):
        Network().exchange(node, server, b"7", 5.0)
    # Whoever asked is where it was.
    assert own_network() == before
    assert Network().exchange(os.getpid(), server, b"8", 5.0) == b"answer to 8"


def test_a_node_that_is_gone_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        Network().exchange(2**22 + 1, ("127.0.0.1", 53), b"7", 5.0)
