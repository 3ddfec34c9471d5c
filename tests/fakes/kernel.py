"""Links, packet filter, mounts, modules and sysctls of a fake host."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.files import REAL_PATH, fill, tree, write


class SysctlPath(REAL_PATH):  # type: ignore[misc, valid-type]
    """A path below a fake /proc/sys: writing some keys changes others, as in the kernel."""

    def write_text(self, data: str, *_: Any, **__: Any) -> int:
        before = self.read_text().strip()
        written = write(self, data.strip() + "\n", flags=0)
        if self.name == "ip_forward" and data.strip() != before:
            self._forward(data.strip())
        return written

    def _forward(self, value: str) -> None:
        # net/ipv4/devinet.c, inet_forward_change
        conf = self.parent / "conf"
        redirects = "0" if value == "1" else "1"
        REAL_PATH(conf / "all/accept_redirects").write_text(redirects + "\n")
        for interface in conf.iterdir():
            REAL_PATH(interface / "forwarding").write_text(value + "\n")


@dataclass
class Kernel:
    """Links, packet filter, mounts, modules and sysctls of the fake host."""

    root: Path
    links: dict[str, list[str]] = field(default_factory=lambda: {"eth0": ["192.0.2.10/24"]})
    mounts: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    tables: dict[str, dict[str, list[tuple[str, ...]]]] = field(default_factory=dict)
    routes: list[dict[str, str]] = field(default_factory=list)
    _indices: Iterator[int] = field(default_factory=lambda: itertools.count(2))
    _lock: Any = field(default_factory=threading.RLock)

    BUILT_IN = {
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    }

    @property
    def proc_sys(self) -> SysctlPath:
        return SysctlPath(self.root / "proc/sys")

    @property
    def class_net(self) -> Path:
        """/sys/class/net, which has a folder for each link."""
        return self.root / "sys/class/net"

    def __post_init__(self) -> None:
        for name in self.links:
            self._show_link(name)
        # A file among the folders, where the module bonding is loaded.
        fill(self.class_net, {"bonding_masters": "\n"})
        self.boot()

    def boot(self) -> None:
        """Rules, routes and sysctls as they are after each boot."""
        self.tables = {
            table: {chain: [] for chain in chains} for table, chains in self.BUILT_IN.items()
        }
        # Somebody else's rule, which must survive whatever sykube does.
        self.tables["filter"]["FORWARD"].append(("-i", "docker0", "-j", "ACCEPT"))
        self.routes = [
            {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
            {"dst": "192.0.2.0/24", "dev": "eth0"},
            {"type": "local", "dst": "192.0.2.10", "dev": "eth0"},
        ]
        values = {
            "vm/overcommit_memory": "0",
            "vm/panic_on_oom": "0",
            "kernel/cap_last_cap": "40",
            "kernel/panic": "0",
            "kernel/panic_on_oops": "0",
            "kernel/keys/root_maxkeys": "1000000",
            "kernel/keys/root_maxbytes": "25000000",
            "fs/inotify/max_user_instances": "128",
            "fs/inotify/max_user_watches": "8192",
            "net/ipv4/ip_forward": "0",
            "net/ipv4/conf/all/accept_redirects": "1",
        }
        for name in ("all", "default", "eth0"):
            values[f"net/ipv4/conf/{name}/forwarding"] = "0"
            values[f"net/ipv4/conf/{name}/route_localnet"] = "0"
        for key, value in values.items():
            self.define(key, value)

    def _show_link(self, name: str) -> int:
        """Let /sys/class/net have a link; its index."""
        index = next(self._indices)
        fill(self.class_net / name, {"ifindex": f"{index}\n"})
        return index

    def add_link(self, name: str, master: str = "") -> int:
        """Make a link, on a bridge where one is named; its index."""
        with self._lock:
            self.links[name] = []
            index = self._show_link(name)
            if master:
                self.attach(name, master)
        return index

    def attach(self, name: str, master: str) -> None:
        """Put a link on a bridge."""
        assert master in self.links, f"there is no bridge {master}"
        (self.class_net / name / "master").symlink_to(self.class_net / master)

    def remove_link(self, name: str) -> None:
        """Remove a link, with what the kernel removes along with it."""
        with self._lock:
            del self.links[name]
            for port in self.class_net.glob("*/master"):
                if port.readlink().name == name:
                    port.unlink()
            shutil.rmtree(self.class_net / name)
        self.routes[:] = [r for r in self.routes if r["dev"] != name]
        shutil.rmtree(self.proc_sys / "net/ipv4/conf" / name, ignore_errors=True)

    def define(self, key: str, value: str) -> None:
        """Make a sysctl."""
        file = f"{self.root}/proc/sys/{key}"
        os.makedirs(os.path.dirname(file), exist_ok=True)
        write(file, value + "\n")

    def sysctl(self, key: str) -> str:
        return str((self.proc_sys / key).read_text()).strip()

    def snapshot(self) -> dict[str, Any]:
        """Everything in it, for comparison."""
        return {
            "links": {name: list(addresses) for name, addresses in self.links.items()},
            "mounts": set(self.mounts),
            "modules": set(self.modules),
            "tables": {
                table: {chain: list(rules) for chain, rules in chains.items()}
                for table, chains in self.tables.items()
            },
            "routes": [dict(route) for route in self.routes],
            "sysctls": {
                file.path.removeprefix(f"{self.proc_sys}/"): Path(file)
                .read_text(encoding="utf-8")
                .strip()
                for file in tree(str(self.proc_sys))
                if file.is_file()
            },
        }
