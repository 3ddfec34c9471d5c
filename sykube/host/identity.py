"""What no one can fix: the processor, and who calls. Most commands ask for it first."""

from __future__ import annotations

import os

from sykube.errors import HostError, UsageError
from sykube.host.host import Host

# Processors, by the kernel's names, and what Debian calls their libraries' folders.
TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def check(host: Host) -> None:
    """Fail on an unsupported processor, or where this is not root.

    Raises:
        HostError: the processor is neither x86-64 nor arm64.
        UsageError: this process is not root's.
    """
    machine = os.environ.get("SYKUBE_TEST_MACHINE") or os.uname().machine
    if machine not in TRIPLETS:
        raise HostError(
            f"the processor of this machine ({machine}) is not supported",
            resolution="Use a machine with an x86-64 or arm64 processor.",
        )
    if host.user() != 0 and not host.grants.rootless:
        raise UsageError(
            "this needs root: nodes mount file systems and have networks of their own",
            resolution="Run the same command with sudo.",
        )
