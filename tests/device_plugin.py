"""A device plugin of the tests' own, which speaks with a node's kubelet from the host.

The few messages are written by hand: there are six, of texts in texts. Source: api.proto of
k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1; https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

_API = "v1beta1"


@dataclass(frozen=True)
class Plugin:
    """What a resource is, and what its containers get.

    Attributes:
        devices: their names.
        nodes: where a container has a device, and which of the node's it is.
        mounts: where it has a file of the node's, to be read.
        variable: of its environment, with the names of what it was given.
    """

    resource: str
    devices: Sequence[str]
    nodes: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    variable: str = "DEVICES"

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """While a kubelet knows of it.

        Args:
            folder: /var/lib/kubelet/device-plugins of its node.
        """
        ended = threading.Event()
        socket = folder / f"{self.resource.replace('/', '-')}.sock"
        socket.unlink(missing_ok=True)
        pool = futures.ThreadPoolExecutor(8)
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((self._handler(ended),))
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            with grpc.insecure_channel(f"unix:{folder}/kubelet.sock") as channel:
                register = channel.unary_unary(f"/{_API}.Registration/Register")
                texts = (_API, socket.name, self.resource)
                register(_message(enumerate(texts, start=1)), timeout=60)
            yield
        finally:
            ended.set()
            server.stop(0).wait()
            pool.shutdown()
            socket.unlink(missing_ok=True)

    def _handler(self, ended: threading.Event) -> Any:
        def watched(_request: bytes, _context: Any) -> Iterator[bytes]:
            each = [_message([(1, name), (2, "Healthy")]) for name in self.devices]
            yield _message((1, device) for device in each)
            ended.wait()

        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            f"{_API}.DevicePlugin",
            {
                "GetDevicePluginOptions": unary(lambda _request, _context: b""),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(watched),
                "Allocate": unary(lambda request, _context: self._allocated(request)),
                "PreStartContainer": unary(lambda _request, _context: b""),
            },
        )

    def _allocated(self, request: bytes) -> bytes:
        """AllocateResponse, for AllocateRequest."""
        containers = []
        for container in _parts(request):
            names = ",".join(name.decode() for name in _parts(container))
            parts: list[tuple[int, str | bytes]] = [
                (1, _message([(1, self.variable), (2, names)])),
                *(
                    (2, _message([(1, to), (2, of)]) + b"\x18\x01")
                    for to, of in self.mounts.items()
                ),
                *((3, _message([(1, to), (2, of), (3, "rw")])) for to, of in self.nodes.items()),
            ]
            containers.append(_message(parts))
        return _message((1, each) for each in containers)


def _message(fields: Iterable[tuple[int, str | bytes]]) -> bytes:
    """A message of texts and other messages, by their numbers."""
    made = b""
    for number, value in fields:
        text = value.encode() if isinstance(value, str) else value
        made += bytes([number << 3 | 2]) + _varint(len(text)) + text
    return made


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _parts(message: bytes) -> list[bytes]:
    """The values of a message that has only texts and other messages."""
    found, at = [], 0
    while at < len(message):
        at, size, shift = at + 1, 0, 0
        while True:
            byte = message[at]
            size |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        found.append(message[at : at + size])
        at += size
    return found
