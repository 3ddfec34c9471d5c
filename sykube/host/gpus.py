"""The GPUs of NVIDIA that a host's driver knows."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import HostError
from sykube.host.host import Host

# What every program that uses one is linked with, or opens.
_LIBRARY = "libcuda.so.1"
# Of PCI: NVIDIA's number, and the class of what drives a display or computes like it (pci_ids.h).
_VENDOR, _CLASS = "0x10de", "0x03"
_LEAVE_OUT = ", or leave --gpus out"


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        bus: its place on the PCI bus, which stays over a reboot: 0000:01:00.0.
        device: its device, which may have another number after a reboot.
        name: what programs call it: its UUID, or that number while the driver does not tell.
        model: for people.
    """

    bus: str
    device: Path
    name: str
    model: str


def known(host: Host) -> list[Gpu]:
    """Those that the driver knows, in the order of the bus, whether they can be used or not.

    Source: https://download.nvidia.com/XFree86/Linux-x86_64/460.80/README/procinterface.html
    """
    found = []
    for file in sorted((host.proc / "driver/nvidia/gpus").glob("*/information")):
        text = file.read_text(encoding="utf-8", errors="replace")
        about = dict(re.findall(r"^([^:\n]+):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))
        if minor := about.get("Device Minor", ""):
            found.append(_gpu(host, file.parent.name, minor, about))
    return found


def _gpu(host: Host, bus: str, minor: str, about: Mapping[str, str]) -> Gpu:
    # The UUID is GPU-????????-… until somebody has used the GPU.
    uuid = about.get("GPU UUID", "?")
    name = minor if "?" in uuid else uuid
    return Gpu(bus, host.root / f"dev/nvidia{minor}", name, about.get("Model", "unknown"))


def usable(host: Host) -> list[Gpu]:
    """Those that this process can use, with the driver's libraries.

    Raises:
        HostError: there are none; says what is missing and what to do.
    """
    there = known(host)
    if not there:
        raise _without_driver(host)
    problems = {gpu.bus: _problem(gpu) for gpu in there}
    if all(problems.values()):
        raise HostError(
            "this host's GPUs cannot be used",
            details="\n".join(f"{bus}: {problem}" for bus, problem in problems.items()),
            resolution="Ask the administrator for: nvidia-modprobe --unified-memory "
            f"{' '.join(f'--create-nvidia-device-file={_minor(gpu)}' for gpu in there)}"
            f"\n  In a batch job, ask for them (sbatch --gpus){_LEAVE_OUT}.",
        )
    if _LIBRARY not in host.run(["ldconfig", "-p"], check=False).stdout:
        raise HostError(
            f"the libraries of NVIDIA's driver are not on this host: {_LIBRARY} is missing",
            details="`ldconfig -p`, by which Apptainer's option --nv finds them, does not list it.",
            resolution=f"Install them, in the version of /proc/driver/nvidia/version{_LEAVE_OUT}.",
        )
    return [gpu for gpu in there if not problems[gpu.bus]]


def _minor(gpu: Gpu) -> str:
    return gpu.device.name.removeprefix("nvidia")


def _problem(gpu: Gpu) -> str:
    """What keeps a GPU from being used: in a batch job, others' cannot be opened."""
    try:
        os.close(os.open(gpu.device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{gpu.device}: {error.strerror}"
    return ""


def _without_driver(host: Host) -> HostError:
    brief = "this host has no GPU of NVIDIA that can be used"
    without = [device.name for device in _on_bus(host)]
    if not without:
        return HostError(
            brief,
            details="There is none on its PCI bus, and /proc/driver/nvidia/gpus has none.",
            resolution=f"Run sykube on a host that has one{_LEAVE_OUT}.",
        )
    return HostError(
        brief,
        details=f"NVIDIA's driver is not loaded for what is there: {', '.join(without)}",
        resolution=f"Ask the administrator for: modprobe nvidia, or NVIDIA's driver{_LEAVE_OUT}.",
    )


def _on_bus(host: Host) -> list[Path]:
    """GPUs of NVIDIA, with a driver or without."""
    found = []
    for device in sorted((host.root / "sys/bus/pci/devices").glob("*")):
        with contextlib.suppress(OSError):
            vendor, kind = (
                (device / name).read_text(encoding="utf-8").strip() for name in ("vendor", "class")
            )
            if vendor == _VENDOR and kind.startswith(_CLASS):
                found.append(device)
    return found
