"""cgroup v2: what systemd lets a user share out, which is the cgroup of the user's own systemd.

Source: https://systemd.io/CGROUP_DELEGATION/
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A host knows it; this asks the host.
    from sykube.host.host import Host

# A kubelet sets what these control for each pod, whatever that asks for, and ends where it cannot:
# pkg/kubelet/cm/qos_container_manager_linux.go.
NEEDED = ("cpu", "memory", "pids")
# Those that Kubernetes makes use of, with what lacks without.
USES = {
    "cpu": "no limits of CPUs",
    "cpuset": "no pods on CPUs of their own (static CPU manager)",
    "io": "no usage of disks",
    "memory": "no limits of memory",
    "pids": "no limits of processes",
}
# For the administrator; user@.service(5) is where systemd has what it hands on.
COMMAND = (
    "mkdir -p /etc/systemd/system/user@.service.d && "
    f"printf '[Service]\\nDelegate={' '.join(USES)}\\n' > "
    "/etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload"
)


@dataclass(frozen=True)
class Delegation:
    """What there is of it for a user.

    Attributes:
        manager: the user's systemd runs.
        bus: it can be asked.
        controllers: what it was handed on.
    """

    manager: bool
    bus: bool
    controllers: frozenset[str]

    @property
    def missing(self) -> list[str]:
        """Controllers that Kubernetes would make use of."""
        return [each for each in USES if each not in self.controllers]

    @property
    def is_enough(self) -> bool:
        """Whether nodes can have cgroups."""
        return self.bus and self.controllers.issuperset(NEEDED)


def of_user(host: Host) -> Delegation | None:
    """What the user of a host is given, asked outside of namespaces; None without cgroup v2."""
    if not (host.cgroups / "cgroup.controllers").exists():
        return None
    uid = host.grants.uid
    own = host.cgroups / f"user.slice/user-{uid}.slice/user@{uid}.service"
    return Delegation(
        manager=own.is_dir(),
        bus=own.is_dir() and bus_of(host).exists() and host.which("busctl") is not None,
        controllers=_controllers(own),
    )


def bus_of(host: Host) -> Path:
    """The socket by which the user's systemd is asked."""
    return runtime_of(host) / "bus"


def runtime_of(host: Host) -> Path:
    """The folder that logind makes at a user's first login, and removes at the last logout."""
    return host.root / "run/user" / str(host.grants.uid)


def has_own_root(host: Host) -> bool:
    """Whether the root of the hierarchy that this process sees is the user's to share out.

    A process that systemd did not move below it can move none there.
    """
    root = host.cgroups
    return (
        os.access(root / "cgroup.procs", os.W_OK)
        and _controllers(root).issuperset(NEEDED)
        and not path_of(host, "self").startswith("/..")
    )


def path_of(host: Host, process: int | str) -> str:
    """The cgroup of a process in systemd's hierarchy, as this one sees it; empty for none.

    That is cgroup v2's, or of v1 the one without controllers: cgroups(7).
    """
    try:
        text = (host.proc / str(process) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = dict(line.split(":", 2)[1:] for line in text.splitlines())
    own, legacy = found.get("", ""), found.get("name=systemd", "")
    return legacy if own in ("", "/") and legacy else own


def _controllers(folder: Path) -> frozenset[str]:
    try:
        return frozenset((folder / "cgroup.controllers").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()
