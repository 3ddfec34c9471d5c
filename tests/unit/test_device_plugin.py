"""The device plugin of tests/e2e speaks as Kubernetes' own."""

from __future__ import annotations

import threading
from concurrent import futures
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from tests.device_plugin import Plugin

GPU = Plugin(
    "nvidia.com/gpu", ("gpu-0", "gpu-1"), {"/dev/nvidia0": "/dev/fuse"}, {"/x": "/" + "y" * 200}, "GPUS"
)  # fmt: skip


def test_a_kubelet_registers_it_and_allocates() -> None:
    registered: list[bytes] = []
    known = threading.Event()

    def register(request: bytes, _context: object) -> bytes:
        registered.append(request)
        known.set()
        return b""

    handlers = {"Register": grpc.unary_unary_rpc_method_handler(register)}
    # Of a short path: unix(7) has 108 bytes for it.
    with TemporaryDirectory(dir="/tmp") as folder:
        kubelet = grpc.server(futures.ThreadPoolExecutor(2))
        service = grpc.method_handlers_generic_handler("v1beta1.Registration", handlers)
        kubelet.add_generic_rpc_handlers((service,))
        kubelet.add_insecure_port(f"unix:{folder}/kubelet.sock")
        kubelet.start()
        with (
            GPU.running(Path(folder)),
            grpc.insecure_channel(f"unix:{folder}/nvidia.com-gpu.sock") as channel,
        ):
            assert known.wait(30)
            watched = channel.unary_stream("/v1beta1.DevicePlugin/ListAndWatch")(b"")
            first = next(watched)
            watched.cancel()
            allocate = channel.unary_unary("/v1beta1.DevicePlugin/Allocate")
            # One container, of two devices.
            answer = allocate(b"\n\x0e\n\x05gpu-0\n\x05gpu-1", timeout=30)
        kubelet.stop(0).wait()
    assert registered == [b"\n\x07v1beta1\x12\x13nvidia.com-gpu.sock\x1a\x0envidia.com/gpu"]
    assert first == b"\n\x10\n\x05gpu-0\x12\x07Healthy\n\x10\n\x05gpu-1\x12\x07Healthy"
    mount = b"\n\x02/x\x12\xc9\x01/" + b"y" * 200 + b"\x18\x01"
    device = b"\n\x0c/dev/nvidia0\x12\x09/dev/fuse\x1a\x02rw"
    environment = b"\n\x04GPUS\x12\x0bgpu-0,gpu-1"
    assert answer == (
        b"\n\x89\x02"
        + b"\n\x13" + environment
        + b"\x12\xd2\x01" + mount
        + b"\x1a\x1d" + device
    )  # fmt: skip
