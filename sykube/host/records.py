"""Host-wide settings: recorded before the first cluster changes them, restored after the last."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sykube.errors import SykubeError
from sykube.host.files import write_atomically
from sykube.host.host import Host

# What a node's kubelet sets for the whole host (kubelet --protect-kernel-defaults=false,
# pkg/kubelet/cm/container_manager_linux.go), whatever sykube does.
KUBELET_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Writing ip_forward also writes these (net/ipv4/devinet.c, inet_forward_change).
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv4/conf/all/accept_redirects")


_RECORDED = ("sysctls", "modules", "controllers", "folders")


def read_sysctl(host: Host, key: str) -> str | None:
    """A sysctl's value by its path below /proc/sys; None where this kernel has none."""
    try:
        return (host.proc_sys / key).read_text(encoding="utf-8").strip()
    except OSError:
        return None


@dataclass
class HostRecords:
    """The record on disk; each method leaves it written."""

    host: Host
    sysctls: dict[str, str] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    controllers: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, host: Host) -> HostRecords | None:
        """The record, or None where there is none or it cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored: dict[str, Any] = json.loads(
                (host.records / "record.json").read_text(encoding="utf-8")
            )
            lists = (stored["modules"], stored["controllers"], stored.get("folders", []))
            return cls(host, dict(stored["sysctls"]), *map(list, lists))
        return None

    def save(self) -> None:
        """Write the record before anything is changed."""
        self.host.records.mkdir(parents=True, exist_ok=True)
        stored = {name: getattr(self, name) for name in _RECORDED}
        write_atomically(self.host.records / "record.json", json.dumps(stored, indent=2))

    def remember(self, keys: tuple[str, ...]) -> None:
        """Record the present values of sysctls that are not recorded yet.

        Of a user's, those of the user's own network: the others are not the user's to restore.
        """
        for key in keys:
            if self.host.grants.rootless and not key.startswith("net/"):
                continue
            value = read_sysctl(self.host, key)
            if value is not None:
                self.sysctls.setdefault(key, value)
        self.save()

    def set_sysctl(self, key: str, value: str) -> None:
        """Record a sysctl of the host and set it; nothing happens where it has that value already.

        Nor to a user, whose preflight says what is low.
        """
        if read_sysctl(self.host, key) in (value, None) or self.host.grants.rootless:
            return
        self.remember((key,))
        (self.host.proc_sys / key).write_text(value, encoding="utf-8")

    def enable_forwarding(self) -> None:
        """net.ipv4.ip_forward=1, with what the kernel changes along with it recorded."""
        if read_sysctl(self.host, "net/ipv4/ip_forward") == "1":
            return
        conf = self.host.proc_sys / "net/ipv4/conf"
        each = tuple(f"net/ipv4/conf/{folder.name}/forwarding" for folder in sorted(conf.iterdir()))
        self.remember((*_FORWARDING, *each))
        (self.host.proc_sys / "net/ipv4/ip_forward").write_text("1", encoding="utf-8")

    def load_module(self, name: str) -> None:
        """Load a kernel module that is neither loaded nor built in, and record it.

        Raises:
            HostError: only the host's root can.
        """
        self.host.grants.require_host_root(
            f"loading the kernel module {name}", f"Ask the administrator for: modprobe {name}"
        )
        if name not in self.modules:
            self.modules.append(name)
            self.save()
        self.host.run(["modprobe", name])

    def enable_controllers(self, root: Path) -> None:
        """Hand every controller on to the cgroups below the root of a v2 hierarchy."""
        control = root / "cgroup.subtree_control"
        enabled = control.read_text(encoding="utf-8").split()
        for controller in (root / "cgroup.controllers").read_text(encoding="utf-8").split():
            if controller in enabled:
                continue
            self.controllers.append(controller)
            self.save()
            # One that cannot be handed on (cpu with realtime processes) is one the nodes do
            # without; their checks name it if they cannot.
            with contextlib.suppress(OSError):
                control.write_text(f"+{controller}", encoding="utf-8")

    def expect_folders(self, folders: Iterable[Path]) -> None:
        """Record those that are not there yet: others make them, and leave them behind."""
        missing = {str(folder) for folder in folders if not folder.exists()}
        self.folders = sorted({*self.folders, *missing})
        self.save()

    def restore(self) -> list[str]:
        """Put everything back and forget the record.

        Returns:
            What could not be restored, a line each.
        """
        failed = []
        # ip_forward first: the kernel overwrites the others with it.
        for key in sorted(self.sysctls, key=lambda name: (name != _FORWARDING[0], name)):
            value = self.sysctls[key]
            if read_sysctl(self.host, key) in (value, None):
                continue
            try:
                (self.host.proc_sys / key).write_text(value, encoding="utf-8")
            except OSError as error:
                failed.append(f"sysctl {key.replace('/', '.')} = {value} ({error.strerror})")
        for controller in self.controllers:
            # Where somebody else uses it by now, the kernel refuses, and rightly.
            with contextlib.suppress(OSError):
                (self.host.cgroups / "cgroup.subtree_control").write_text(
                    f"-{controller}", encoding="utf-8"
                )
        for folder in reversed(self.folders):
            # Where it is not empty, somebody else uses it by now.
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        for module in self.modules:
            try:
                self.host.run(["modprobe", "-r", module])
            except SykubeError:
                failed.append(f"kernel module {module} is in use and stays loaded")
        (self.host.records / "record.json").unlink(missing_ok=True)
        return failed
