"""A fake host: its kernel, programs, engine and API servers, in memory and below one folder.

`World` is for failing at every step in milliseconds. It is as strict as the real thing where that
has bitten before: iptables refuses a chain that is in use, an engine refuses a missing
configuration file, writing ip_forward changes other sysctls.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import platform
import shlex
import shutil
import tarfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

from sykube import documents
from sykube.cluster.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host.apt import Mirror
from sykube.host.checksum import Checksum
from sykube.host.host import Host, Runner
from sykube.host.run import CommandError, Completed
from sykube.image import build, container, downloads, upstream, versions
from sykube.image.node_image import NodeImage
from sykube.kubernetes.api import Api, ApiError
from sykube.network.subnets import Subnets
from sykube.node.engine import Engine, Instance, InstanceOptions
from sykube.node.node import Node
from sykube.ui import Ui
from tests import containers

_REAL_PATH = type(Path())
CONTAINER_IMAGES = {
    "k8s.gcr.io/kube-apiserver": "v1.20.2",
    "k8s.gcr.io/etcd": "3.4.23-4",
    "sykube.local/system": "1",
}
CA_HASH = "c0ffee" * 8
IMAGE_FILES = {
    "/usr/bin/kubectl": "#!/bin/sh\n",
    "/usr/share/sykube/versions": "kubernetes=v1.20.2\ncontainerd=1.7.24\n",
    "/usr/share/sykube/container-images": "".join(
        f"{k}:{v}\n" for k, v in CONTAINER_IMAGES.items()
    ),
}


CONTAINERD_CONFIG = (Path(__file__).parents[2] / "definitions/node/containerd.toml").read_text()


class Injected(SykubeError):
    """A failure that a test asked for."""


@dataclass(frozen=True)
class Call:
    """Something that was asked of the outside.

    Attributes:
        step: title of the step that was under way, or empty.
        kind: run, engine or api.
    """

    step: str
    kind: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}: {' '.join(self.words)}"[:160]


@dataclass
class Fault:
    """An error for the calls that match; `times` is how often, None for always."""

    matches: Callable[[Call], bool]
    error: Callable[[Call], BaseException]
    times: int | None = 1


class Calls:
    """Every call to the outside, in order, and the faults among them."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self.faults: list[Fault] = []
        self.step = ""
        self._lock = threading.Lock()

    def record(self, kind: str, *words: object) -> None:
        """Record a call; raise the error of the first fault that it meets."""
        with self._lock:
            call = Call(self.step, kind, tuple(map(str, words)))
            self.all.append(call)
            for fault in self.faults:
                if fault.times != 0 and fault.matches(call):
                    fault.times = None if fault.times is None else fault.times - 1
                    raise fault.error(call)

    def fail(
        self,
        matches: Callable[[Call], bool],
        error: Callable[[Call], BaseException] | None = None,
        times: int | None = 1,
    ) -> None:
        """Make calls fail, with `Injected` unless told otherwise."""
        self.faults.append(Fault(matches, error or (lambda call: Injected(str(call))), times))

    def fail_number(
        self, number: int, error: Callable[[Call], BaseException] | None = None
    ) -> None:
        """Make one call fail by its place in the order, from 0."""
        self.fail(lambda _: len(self.all) - 1 == number, error)


# Files of a new cgroup and what they hold, by v2 controller and by v1 hierarchy.
_V2_FILES = {
    "cpu": {"cpu.max": "max 100000\n", "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\n"},
    "memory": {
        "memory.max": "max\n",
        "memory.current": "3000000\n",
        "memory.stat": "anon 1000\ninactive_file 1000000\n",
    },
    "pids": {"pids.max": "max\n"},
}
_V1_FILES = {
    "cpu,cpuacct": {"cpu.cfs_quota_us": "-1\n", "cpuacct.usage": "2500000000\n"},
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": ""},
    "freezer": {"freezer.state": "THAWED\n"},
    "memory": {
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.usage_in_bytes": "3000000\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 1000000\n",
    },
    "pids": {"pids.max": "max\n"},
}
_ONE_VALUE = {
    "cgroup.freeze",
    *(name for files in (*_V1_FILES.values(), *_V2_FILES.values()) for name in files),
}


def _write(path: str | Path, text: str, flags: int = os.O_CREAT) -> int:
    """Path.write_text in a third of its time: a fake host writes thousands of small files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | flags, 0o666)
    try:
        return os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _tree(folder: str) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(entry.path)


class CgroupPath(_REAL_PATH):  # type: ignore[misc, valid-type]
    """A path in a fake cgroup file system: folders come with their files and go with them."""

    def mkdir(self, *args: Any, **kwargs: Any) -> None:
        if self.is_dir():
            super().mkdir(*args, **kwargs)
            return
        super().mkdir(*args, **kwargs)
        files = {"cgroup.procs": ""}
        if os.path.exists(f"{self.parent}/cgroup.controllers"):
            handed_on = (self.parent / "cgroup.subtree_control").read_text()
            files |= {"cgroup.controllers": handed_on, "cgroup.subtree_control": ""}
            files["cgroup.freeze"] = "0\n"
            for controller in handed_on.split():
                files |= _V2_FILES.get(controller, {})
        else:
            files["tasks"] = ""
            # The hierarchy is known by its name; its own root has none of these files.
            for hierarchy in self.parts:
                files |= _V1_FILES.get(hierarchy, {})
        for name, text in files.items():
            _write(f"{self}/{name}", text)

    def write_text(self, data: str, *_: Any, **__: Any) -> int:
        if self.name == "cgroup.subtree_control":
            offered = (self.parent / "cgroup.controllers").read_text().split()
            if any(word[1:] not in offered for word in data.split()):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))
            on = set(self.read_text().split())
            for word in data.split():
                (on.add if word[0] == "+" else on.discard)(word[1:])
            data = " ".join(sorted(on)) + "\n"
        elif self.name == "memory.limit_in_bytes" and data == "-1":
            data = _V1_FILES["memory"][self.name]
        elif self.name in _ONE_VALUE:
            data = data.strip() + "\n"
        return _write(self, data, flags=0)

    def rmdir(self) -> None:
        with os.scandir(self) as found:
            entries = list(found)
        procs = _REAL_PATH(self, "cgroup.procs")
        if any(entry.is_dir() for entry in entries) or (
            procs.exists() and procs.read_text().strip()
        ):
            raise OSError(errno.EBUSY, "Device or resource busy", str(self))
        for entry in entries:
            os.unlink(entry)
        super().rmdir()


class SysctlPath(_REAL_PATH):  # type: ignore[misc, valid-type]
    """A path below a fake /proc/sys: writing some keys changes others, as in the kernel."""

    def write_text(self, data: str, *_: Any, **__: Any) -> int:
        before = self.read_text().strip()
        written = _write(self, data.strip() + "\n", flags=0)
        if self.name == "ip_forward" and data.strip() != before:
            self._forward(data.strip())
        return written

    def _forward(self, value: str) -> None:
        # net/ipv4/devinet.c, inet_forward_change
        conf = self.parent / "conf"
        redirects = "0" if value == "1" else "1"
        _REAL_PATH(conf / "all/accept_redirects").write_text(redirects + "\n")
        for interface in conf.iterdir():
            _REAL_PATH(interface / "forwarding").write_text(value + "\n")


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

    _BUILT_IN = {
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
            table: {chain: [] for chain in chains} for table, chains in self._BUILT_IN.items()
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
        _write(file, value + "\n")

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
                for file in _tree(str(self.proc_sys))
                if file.is_file()
            },
        }


Answer = tuple[int, str, str]
_HAIRPIN = ["type", "bridge_slave", "hairpin", "on"]


def _no_process(*args: object, **_: object) -> Any:
    raise AssertionError(f"a unit test tried to start a process: {args}")


@dataclass(frozen=True)
class FakeHost(Host):
    """A machine below a folder, whose /proc/sys and cgroups behave like the kernel's.

    It has no programs but those that it is given.
    """

    run: Runner = _no_process
    replace_process: Callable[[Sequence[str | Path], Mapping[str, str]], None] = _no_process
    kill: Callable[[int, int], None] = _no_process
    user: Callable[[], int] = lambda: 0

    @property
    def proc_sys(self) -> SysctlPath:
        return SysctlPath(super().proc_sys)

    @property
    def cgroups(self) -> CgroupPath:
        return CgroupPath(super().cgroups)


def give_capabilities(host: Host, mask: int, last: int = 40) -> None:
    """Let a process of the host have these capabilities, of those up to the last one's number."""
    fill(host.proc / "self", {"status": f"CapEff:\t{mask:016x}\n"})
    fill(host.proc_sys / "kernel", {"cap_last_cap": f"{last}\n"})


class FakePrograms:
    """Stands in for sykube.host.run.run: records each argv and answers as the program would.

    A test adds programs of its own to `answers`.
    """

    def __init__(self, kernel: Kernel, calls: Calls, etc: Path) -> None:
        self.kernel = kernel
        self.calls = calls
        self.etc = etc
        # Told of a control plane whose etcd a snapshot was put back into.
        self.restored: Callable[[str, dict[str, Any]], None] = lambda _name, _objects: None
        self.stdin = ""
        # Told of the program that sykube becomes.
        self.become: Callable[..., None] = _no_process
        self.answers: dict[str, Callable[[list[str]], Answer]] = {
            "ip": self._ip,
            "iptables": self._iptables,
            "iptables-restore": self._iptables_restore,
            "sysctl": self._sysctl,
            "modprobe": self._modprobe,
            "mount": self._mount,
            "umount": self._umount,
            "cp": self._cp,
            "du": self._du,
            "apptainer": self._apptainer,
            "nft": lambda _: (0, '{"nftables": []}', ""),
            "firewall-cmd": lambda _: (252, "", "FirewallD is not running"),
        }

    @property
    def argvs(self) -> list[list[str]]:
        """Every command so far."""
        return [list(call.words) for call in self.calls.all if call.kind == "run"]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | Path = "/",
        timeout: float = 60.0,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
        secret: bool = False,
        terminal: bool = False,
        wrapper: Sequence[str] = (),
    ) -> Completed:
        """See sykube.host.run.run."""
        words = tuple(str(word) for word in argv)
        self.calls.record("run", *words)
        program = Path(words[0]).name
        assert program in self.answers, f"the fake host has no program {program!r}: {words}"
        self.stdin = stdin or ""
        code, stdout, stderr = self.answers[program](list(words[1:]))
        for line in (stdout + stderr).splitlines() if on_line else []:
            assert on_line is not None
            on_line(line)
        if check and code != 0:
            raise CommandError(f"{program} failed with exit code {code}", words, stdout + stderr)
        return Completed(words, code, stdout, stderr)

    def _ip(self, words: list[str]) -> Answer:
        links = self.kernel.links
        match words:
            case ["link", "show", "dev", name]:
                if name not in links:
                    return 1, "", f'Device "{name}" does not exist.'
                return 0, f"2: {name}: <BROADCAST>", ""
            case ["link", "add", "name", name, "type", "bridge"]:
                assert len(name) <= 15, f"the kernel takes no interface name {name!r}"
                if name in links:
                    return 2, "", "RTNETLINK answers: File exists"
                self.kernel.add_link(name)
                for key in ("forwarding", "route_localnet"):
                    self.kernel.define(f"net/ipv4/conf/{name}/{key}", "0")
                return 0, "", ""
            case ["address", "replace", address, "dev", name]:
                if name not in links:
                    return 1, "", f'Cannot find device "{name}"'
                if address not in links[name]:
                    links[name].append(address)
                    network = str(IPv4Interface(address).network)
                    self.kernel.routes.append({"dst": network, "dev": name})
                return 0, "", ""
            case ["link", "set", "dev", name, *what] if what in (["up"], _HAIRPIN):
                return (0, "", "") if name in links else (1, "", f'Cannot find device "{name}"')
            case ["link", "set", "dev", name, "master", master, "up"]:
                if not {name, master} <= set(links):
                    return 1, "", f'Cannot find device "{name}"'
                self.kernel.attach(name, master)
                return 0, "", ""
            case ["link", "delete", "dev", name]:
                if name not in links:
                    return 1, "", f'Cannot find device "{name}"'
                self.kernel.remove_link(name)
                return 0, "", ""
            case ["route", "show", network]:
                found = [route for route in self.kernel.routes if route["dst"] == network]
                return 0, "".join(f"{network} dev {route['dev']}\n" for route in found), ""
            case ["route", "add", network, "via", gateway, "dev", name]:
                route = {"dst": network, "gateway": gateway, "dev": name}
                if name not in links:
                    return 1, "", f'Cannot find device "{name}"'
                if any(each["dst"] == network for each in self.kernel.routes):
                    return 2, "", "RTNETLINK answers: File exists"
                self.kernel.routes.append(route)
                return 0, "", ""
            case ["-j", "-4", "route", "show", "table", "all"]:
                return 0, json.dumps(self.kernel.routes), ""
            case ["-j", "-4", "address", "show", "dev", name]:
                if name not in links:
                    return 1, "", f'Device "{name}" does not exist.'
                pairs = [address.split("/") for address in links[name]]
                shown = [{"local": local, "prefixlen": int(prefix)} for local, prefix in pairs]
                return 0, json.dumps([{"ifname": name, "addr_info": shown}]), ""
        raise AssertionError(f"the fake ip does not know: {words}")

    def _iptables(self, words: list[str]) -> Answer:
        assert words[:2] == ["-w", "-t"], words
        chains = self.kernel.tables[words[2]]
        built_in = Kernel._BUILT_IN[words[2]]
        jumped_to = {rule[-1] for rules in chains.values() for rule in rules}
        missing = (1, "", "iptables: No chain/target/match by that name.")
        match words[3:]:
            case ["-S"]:
                lines = [f"-P {name} ACCEPT" for name in built_in]
                lines += [f"-N {name}" for name in chains if name not in built_in]
                lines += [
                    " ".join(("-A", name, *(f'"{word}"' if ":" in word else word for word in rule)))
                    for name, rules in chains.items()
                    for rule in rules
                ]
                return 0, "\n".join(lines) + "\n", ""
            case ["-C", name, *rule]:
                return (0, "", "") if tuple(rule) in chains.get(name, []) else missing
            case ["-N", name]:
                assert len(name) <= 28, f"iptables takes no chain name {name!r}"
                if name in chains:
                    return 1, "", "iptables: Chain already exists."
                chains[name] = []
            case ["-A", name, *rule]:
                if name not in chains:
                    return missing
                chains[name].append(tuple(rule))
            case ["-I", name, "1", *rule]:
                if name not in chains or rule[-1] not in {*chains, "ACCEPT", "DROP"}:
                    return missing
                chains[name].insert(0, tuple(rule))
            case ["-D", name, *rule]:
                if name not in chains or tuple(rule) not in chains[name]:
                    return 1, "", "iptables: Bad rule (does a matching rule exist in that chain?)."
                chains[name].remove(tuple(rule))
            case ["-F", name]:
                if name not in chains:
                    return missing
                chains[name].clear()
            case ["-X", name]:
                if name not in chains:
                    return missing
                if chains[name] or name in jumped_to:
                    return 1, "", "iptables: Too many links."
                del chains[name]
            case unknown:
                raise AssertionError(f"the fake iptables does not know: {unknown}")
        return 0, "", ""

    def _iptables_restore(self, words: list[str]) -> Answer:
        """What is said of a table is done at its COMMIT, or not at all."""
        assert words == ["-w", "--noflush"], words
        table, before = "", {}
        for number, line in enumerate(self.stdin.splitlines(), 1):
            match shlex.split(line):
                case ["COMMIT"]:
                    table = ""
                    continue
                case [name] if name.startswith("*"):
                    table = name.removeprefix("*")
                    chains = self.kernel.tables[table]
                    before = {name: list(rules) for name, rules in chains.items()}
                    continue
                case [name, "-", "[0:0]"] if name.startswith(":"):
                    chain = name.removeprefix(":")
                    change = ["-F" if chain in self.kernel.tables[table] else "-N", chain]
                case change:
                    pass
            code, _, stderr = self._iptables(["-w", "-t", table, *change])
            if code:
                self.kernel.tables[table] = before
                return code, "", f"{stderr}\nError occurred at line: {number}"
        assert table == "", "nothing is done without COMMIT"
        return 0, "", ""

    def _sysctl(self, words: list[str]) -> Answer:
        assert words[:2] == ["-q", "-w"], words
        key, value = words[2].split("=")
        try:
            (self.kernel.proc_sys / key.replace(".", "/")).write_text(value)
        except FileNotFoundError:
            return 255, "", f"sysctl: cannot stat /proc/sys/{key.replace('.', '/')}"
        return 0, "", ""

    def _modprobe(self, words: list[str]) -> Answer:
        name = words[-1]
        key = "net/bridge/bridge-nf-call-iptables"
        if words[0] == "-r":
            self.kernel.modules.discard(name)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree((self.kernel.proc_sys / key).parent)
        else:
            self.kernel.modules.add(name)
            self.kernel.define(key, "1")
        return 0, "", ""

    def _mount(self, words: list[str]) -> Answer:
        assert Path(words[-1]).is_dir()
        self.kernel.mounts.add(words[-1])
        return 0, "", ""

    def _umount(self, words: list[str]) -> Answer:
        if words[-1] not in self.kernel.mounts:
            return 32, "", f"umount: {words[-1]}: not mounted."
        self.kernel.mounts.remove(words[-1])
        for entry in Path(words[-1]).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return 0, "", ""

    def _du(self, words: list[str]) -> Answer:
        return 0, "".join(f"7\t{word}\n" for word in words if not word.startswith("-")), ""

    def _cp(self, words: list[str]) -> Answer:
        source, target = Path(words[-2]), Path(words[-1])
        assert source.exists(), f"cp: cannot stat {source}"
        if source.is_dir():
            assert words[0] == "-a" and not target.exists()
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return 0, "", ""

    def _apptainer(self, words: list[str]) -> Answer:
        """What is not asked of a node: its version, its settings, building and copying out."""
        match words:
            case ["--version"]:
                return 0, "apptainer version 1.4.5\n", ""
            case ["buildcfg"]:
                return 0, f"PREFIX=/usr\nAPPTAINER_CONF_FILE={self.etc}/apptainer.conf\n", ""
            case ["build", *_, sif, definition]:
                assert Path(definition).is_file()
                write_sif(Path(sif), Path(definition).read_text(encoding="utf-8"))
                return 0, "INFO:    Build complete\n", ""
            case ["--silent", "exec", *options, "cp", path, target]:
                bind = options[options.index("--bind") + 1]
                folder, inside = bind.split(":")
                text = IMAGE_FILES.get(path) or CONTAINERD_CONFIG.replace(
                    "@PAUSE@", f"pause:{_kubernetes_of(Path(options[-1]).parent)}"
                )
                (Path(folder) / Path(target).relative_to(inside)).write_text(text)
                return 0, "", ""
            case ["--silent", "exec", "--cleanenv", *options]:
                bound = Path(options[options.index("--bind") + 1].partition(":")[0])
                sif, program, *arguments = options[options.index("--pwd") + 2 :]
                if program == "sh":
                    program, *arguments = arguments[2:]
                self.in_image(program, arguments, Path(sif).parent, bound)
                return 0, "", ""
            case ["verify", "--local", "--json", sif]:
                return self._verify(Path(sif))
            case ["key", "list", *_]:
                return 0, KEY_LIST, ""
            case ["key", "import", file]:
                assert Path(file).read_text(encoding="utf-8") == PUBLIC_KEY
                return 0, "", ""
            case ["key", "export", "--armor", file]:
                Path(file).write_text(PUBLIC_KEY, encoding="utf-8")
                return 0, "", ""
            case ["sign", "--keyidx", "1", sif]:
                with Path(sif).open("ab") as stream:
                    stream.write(b"signed")
                return 0, "", ""
            case ["sif", "add", *_, sif, file]:
                with Path(sif).open("ab") as stream:
                    stream.write(Path(file).read_bytes())
                return 0, "", ""
            case ["sif", "list", _]:
                return 0, "3    |1       |NONE    |36864-356352  |FS (Squashfs/*System/amd64)\n", ""
        raise AssertionError(f"the fake apptainer does not know: {words}")

    def in_image(self, program: str, arguments: list[str], image: Path, folder: Path) -> None:
        """A program of a node image, which sees a folder of the host as /mnt."""
        match program, arguments:
            case "export-images", names:
                assert {*names} <= {*(image / "container-images").read_text().split()}
                made = {name: containers.Image([containers.tar({name: b""})], {}) for name in names}
                containers.oci_archive_of(folder / "images.tar", made)
            case "cp", ["-r", "/usr/bin/kubeadm", "/usr/share/sykube/kubeadm-patches", "/mnt/"]:
                fill(folder, {"kubeadm": _kubernetes_of(image)})
                fill(folder / "kubeadm-patches", {"etcd+strategic.yaml": "spec: {}"})
            case "restore-etcd", [inside, "/mnt/etcd.db", name, members, peer]:
                assert peer in members
                assert inside == f"/mnt/{name}/etcd"
                assert not (folder / name / "etcd").exists()
                fill(folder / name / "etcd/member", {"data": "restored"})
                self.restored(name, json.loads((folder / "etcd.db").read_text()))
            case unknown:
                raise AssertionError(f"the fake image does not know: {unknown}")

    def _verify(self, sif: Path) -> Answer:
        """As Apptainer 1.4.5 answered for an image that is signed by TRUSTED, and for others."""
        if b"signed" in sif.read_bytes():
            return (
                0,
                json.dumps(signed_by(TRUSTED)),
                "INFO:    Verifying image with PGP key material\n",
            )
        words = "integrity: signature not found for object group 1"
        nothing = json.dumps({"Signatures": 0, "SignerKeys": None})
        return 255, nothing, f"FATAL:   Failed to verify container: {words}\n"


_fingerprints: dict[str, str] = {}


TRUSTED = "11811599135F074136577927587C460A0C2C1FCC"
PUBLIC_KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
KEY_LIST = f"""Public key listing (/root/.apptainer/keys/pgp-public):

0)  User:              Stranger () <s@example.org>
    Creation time:     2026-11-22 21:39:22 +0000 UTC
    Fingerprint:       DDA3F9244C7D1CA13BF07E0C6B1FE319D3A2F017
    Length (in bits):  2048

1)  User:              Own (c) <own@example.org>
    Creation time:     2026-11-22 21:38:58 +0000 UTC
    Fingerprint:       {TRUSTED}
    Length (in bits):  2048

"""


def signed_by(*fingerprints: str) -> dict[str, Any]:
    """What `apptainer verify --json` reports on an image with a signature of each of these keys."""
    entries = [
        {
            "Signer": {
                "Partition": partition,
                "Name": "Own (c) <own@example.org>",
                "Fingerprint": fingerprint.lower(),
                "KeyLocal": True,
                "KeyCheck": bool(fingerprint),
                "DataCheck": True,
            }
        }
        for fingerprint in fingerprints
        for partition in ("Def.FILE", "JSON.Generic", "FS")
    ]
    return {"Signatures": len(fingerprints), "SignerKeys": entries}


def _kubernetes_of(image: Path) -> str:
    """The version of Kubernetes, with its v, of a node image."""
    facts = dict(line.split("=") for line in (image / "versions").read_text().splitlines())
    return facts["kubernetes"]


def write_sif(path: Path, text: str = "") -> None:
    """Write what looks like a SIF image."""
    path.write_bytes(b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + text.encode())


@dataclass
class FakeInstance:
    """A running instance: what it was started with and the files made in it."""

    pid: int
    options: InstanceOptions
    files: dict[str, str] = field(default_factory=dict)
    # Its link on the host, and the routes and names that it knows.
    link: str = ""
    index: int = 0
    routes: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    def on_host(self, path: str) -> Path | None:
        """Where a path of the instance lies on the host, if it is bound."""
        for host, inside in self.options.binds:
            if path.startswith(inside + "/"):
                return host / path.removeprefix(inside + "/")
        return None

    def config(self, name: str) -> list[str]:
        """Lines of a file of /etc/sykube."""
        file = self.on_host(f"/etc/sykube/{name}")
        assert file is not None
        return file.read_text().splitlines()

    def lay_network(self) -> None:
        """What node-network does."""
        self.routes, self.hosts = self.config("routes"), self.config("hosts")

    @property
    def version(self) -> str:
        """Of Kubernetes, with its v, that its image is of."""
        return _kubernetes_of(self.options.image.parent)

    def seed(self) -> None:
        """Let containerd have the images of the node image, as node-init does where it has none.

        What it has of another node image leads nowhere.
        """
        file = self._store / "images.json"
        if not file.exists():
            names = (self.options.image.parent / "container-images").read_text().split()
            seeded = dict.fromkeys(names, "sha256:" + "0" * 64)
            fill(self._store, {file.name: json.dumps(seeded), "seeded-from": self.version})
        assert (self._store / "seeded-from").read_text() == self.version, "links lead nowhere"

    @property
    def _store(self) -> Path:
        return next(host for host, inside in self.options.binds if inside.endswith("/containerd"))

    @property
    def images(self) -> dict[str, str]:
        """What containerd calls its images, and the digest of each."""
        return json.loads((self._store / "images.json").read_text())  # type: ignore[no-any-return]

    @images.setter
    def images(self, value: dict[str, str]) -> None:
        (self._store / "images.json").write_text(json.dumps(value))

    @property
    def content(self) -> Path:
        """The folder with parts of images, each under its digest."""
        return self._store / "io.containerd.content.v1.content/blobs/sha256"

    def part(self, name: str) -> Path:
        """A part of an image, as the node sees it: what its node image brought is a link."""
        file = self.content / name
        return self.options.image.parent / "seed" / name if file.is_symlink() else file

    @property
    def manifests(self) -> Path:
        """Its static pods, as they lie on the host."""
        return self.options.overlay / "upper/etc/kubernetes/manifests"

    @property
    def works(self) -> bool:
        """Whether it has the images that its static pods name."""
        wanted = [file.read_text() for file in self.manifests.glob("*.yaml")]
        return bool(wanted) and {*wanted} <= {*self.images}

    def import_image(self, folder: str, id_: str, image: str) -> None:
        """What containerd does with the folder of a load: every part must be there."""
        place = self.on_host(folder)
        assert place is not None
        parts = {file.name: file.read_bytes() for file in place.iterdir()}
        with tarfile.open(fileobj=io.BytesIO(parts.pop("index.tar"))) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                parts[member.name.rpartition("/")[2]] = file.read()
        (entry,) = json.loads(parts["index.json"])["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == image
        manifest = json.loads(parts[entry["digest"].removeprefix("sha256:")])
        wanted = [entry, manifest["config"], *manifest["layers"]]
        for each in wanted:
            content = parts[each["digest"].removeprefix("sha256:")]
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == each["digest"]
        assert manifest["config"]["digest"] == id_
        self.images = self.images | {image: entry["digest"], id_: entry["digest"]}
        self.content.mkdir(parents=True, exist_ok=True)
        for name, content in parts.items():
            (self.content / name).write_bytes(content)

    @property
    def joined(self) -> bool:
        """Whether its kubelet is a member of a cluster."""
        return KUBELET_CONF in self.files

    @property
    def has_control_plane(self) -> bool:
        return "/etc/kubernetes/admin.conf" in self.files


_STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_COLLECTIONS = frozenset(
    ["nodes", "pods", "secrets", "services", "configmaps", "deployments", "networkpolicies"]
    + ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]
)
# Of each group and version: its kinds, their resources, and whether these are in namespaces.
RESOURCES: dict[str, dict[str, tuple[str, bool]]] = {
    "/api/v1": {
        "ConfigMap": ("configmaps", True),
        "Endpoints": ("endpoints", True),
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
        "Pod": ("pods", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "/apis/apps/v1": {
        "DaemonSet": ("daemonsets", True),
        "Deployment": ("deployments", True),
    },
    "/apis/admissionregistration.k8s.io/v1": {
        "ValidatingWebhookConfiguration": ("validatingwebhookconfigurations", False),
    },
    "/apis/apiregistration.k8s.io/v1": {"APIService": ("apiservices", False)},
    "/apis/networking.k8s.io/v1": {
        "IngressClass": ("ingressclasses", False),
        "NetworkPolicy": ("networkpolicies", True),
    },
    "/apis/node.k8s.io/v1": {"RuntimeClass": ("runtimeclasses", False)},
    "/apis/rbac.authorization.k8s.io/v1": {
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
    },
    "/apis/storage.k8s.io/v1": {"StorageClass": ("storageclasses", False)},
}
NODES = "/api/v1/nodes"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
KUBEADM_CONFIG = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
_PKI = "/etc/kubernetes/pki"
# What kubeadm init makes and further control planes need.
SHARED_KEYS = tuple(
    f"{_PKI}/{name}"
    for name in (
        *("ca.crt", "ca.key", "sa.pub", "sa.key", "front-proxy-ca.crt", "front-proxy-ca.key"),
        *("etcd/ca.crt", "etcd/ca.key"),
    )
)
_LONG_AGO = "2021-01-01T00:00:00.000000Z"


# What the kubelet says of a node whose containerd has no CNI configuration.
LACKS_NETWORK = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)


def member_id(name: str) -> str:
    """What etcd calls a member."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _time(seconds: float) -> str:
    """RFC 3339, as the API server writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Kubernetes:
    """What the API server of one cluster knows: its objects by their paths."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Pods that never become Ready, by their names without the node's.
    broken: set[str] = field(default_factory=set)
    # Pods of the user.
    pods_of_user: list[dict[str, Any]] = field(default_factory=list)
    # The webhook that is asked about every change, and does not answer.
    webhook: str = ""
    # Members of etcd: node → address.
    members: dict[str, str] = field(default_factory=dict)
    # Nodes without CNI configuration, and whether a CNI plugin was installed that gives them some.
    bare: set[str] = field(default_factory=set)
    plugin: bool = False
    # Whether the kubelet of a node works now.
    lives: Callable[[str], bool] = lambda _: True
    # When the containers of a node were started, in seconds since the epoch.
    started: dict[str, float] = field(default_factory=dict)

    def version(self) -> str:
        """What kubeadm has recorded."""
        data = self.objects[KUBEADM_CONFIG]["data"]
        config = documents.load(data["ClusterConfiguration"])
        return str(config["kubernetesVersion"])

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """Registered nodes by name."""
        return {each["metadata"]["name"]: each for each in self.collection(NODES)}

    def collection(self, path: str) -> list[dict[str, Any]]:
        """The objects of a collection."""
        return [each for where, each in self.objects.items() if where.rpartition("/")[0] == path]

    def tokens(self) -> dict[str, str]:
        """The bootstrap tokens that are there now: name → secret."""
        found = [each["stringData"] for each in self.collection(SECRETS) if "stringData" in each]
        return {each["token-id"]: each["token-secret"] for each in found}

    def kubelet_joined(self, name: str, version: str, *, control_plane: bool) -> None:
        """A node's kubelet reports for the first time."""
        node = self.objects.setdefault(f"{NODES}/{name}", {"metadata": {"name": name}, "spec": {}})
        bare = name in self.bare and not self.plugin
        node["status"] = {"conditions": [ready(not bare, LACKS_NETWORK if bare else "")]}
        if control_plane:
            node["metadata"]["labels"] = {CONTROL_PLANE_LABEL: ""}
        self.kubelet_started(name, version)

    def install_plugin(self) -> None:
        """A CNI plugin of the user's configures every node."""
        self.plugin = True
        for name in self.bare & {*self.nodes}:
            self.nodes[name]["status"]["conditions"] = [ready()]

    def kubelet_started(self, name: str, version: str) -> None:
        """A node's kubelet reports again, and its containers are new."""
        node = self.objects[f"{NODES}/{name}"]
        node["status"]["nodeInfo"] = {"kubeletVersion": version}
        self.started[name] = time.time()

    def listed(self) -> str:
        """What `etcdctl member list` prints."""
        return "".join(
            f"{member_id(name)}, started, {name}, https://{address}:2380, "
            f"https://{address}:2379, false\n"
            for name, address in self.members.items()
        )

    def leases(self) -> list[dict[str, Any]]:
        """A lease of each kubelet that has ever lived, renewed just now where it still does."""
        return [
            {
                "metadata": {"name": name},
                "spec": {"renewTime": _time(time.time()) if self.lives(name) else _LONG_AGO},
            }
            for name, node in self.nodes.items()
            if node["status"].get("conditions")
        ]

    def pods(self) -> list[dict[str, Any]]:
        """Those of kube-system, which are all there are."""
        found = []
        for name, node in self.nodes.items():
            if not node["status"].get("conditions"):
                continue
            if CONTROL_PLANE_LABEL in node["metadata"].get("labels", {}):
                found += [(each, name, {"component": each}) for each in _STATIC_PODS]
            found.append(("kube-proxy", name, {"k8s-app": "kube-proxy"}))
        if any("/deployments/" in path for path in self.objects) and found:
            found.append(("cluster-dns", found[0][1], {"k8s-app": "kube-dns"}))
        bare = bool(self.bare) and not self.plugin
        if any(path.endswith("/deployments/loadbalancer") for path in self.objects):
            # It does not tolerate that its node is NotReady.
            found.append(("loadbalancer", "" if bare else found[0][1], {}))
        return [
            {
                "metadata": {
                    "name": f"{name}-{node}", "namespace": "kube-system", "labels": labels,
                },
                "spec": {
                    "nodeName": node,
                    "containers": [{"name": name}],
                    "hostNetwork": name != "cluster-dns",
                },
                "status": {
                    "conditions": [
                        ready(
                            name not in self.broken
                            and not (bare and name in ("cluster-dns", "loadbalancer"))
                        )
                    ],
                    "containerStatuses": [
                        {"state": {"running": {"startedAt": _time(self.started.get(node, 0.0))}}}
                    ],
                },
            }
            for name, node, labels in found
        ]  # fmt: skip


class FakeApi(Api):
    """The API client, with a fake server in the place of its connection.

    Args:
        kubernetes: None where nothing answers.
    """

    def __init__(self, kubernetes: Kubernetes | None, calls: Calls) -> None:
        self._kubernetes = kubernetes
        self._calls = calls
        self._kinds = {}

    def __exit__(self, *_: object) -> None:
        """It holds nothing."""

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Any:
        self._calls.record("api", method, path)
        server = self._kubernetes
        if server is None:
            raise ApiError("the API server does not answer: connection refused", 0)
        match method, path:
            case "GET", "/version":
                return {"gitVersion": server.version()}
            case "GET", _ if path in RESOURCES:
                return {"resources": [*_discovered(path)]}
            case "GET", "/readyz":
                return "ok"
            case "GET", "/api/v1/namespaces/kube-system/pods":
                return {"items": server.pods()}
            case "GET", "/api/v1/pods":
                return {"items": server.pods() + server.pods_of_user}
            case "GET", _ if path == LEASES:
                return {"items": server.leases()}
            case "GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info":
                return {"data": {f"jws-kubeconfig-{name}": "signed" for name in server.tokens()}}
            case "GET", _ if path in server.objects:
                return server.objects[path]
            case "GET", _ if path.rpartition("/")[2] in _COLLECTIONS:
                return {"items": server.collection(path)}
            case "POST", _:
                name = f"{path}/{body['metadata']['name']}"
                if name in server.objects:
                    raise ApiError(f"POST {path}: {name} already exists", 409)
                server.objects[name] = body
                return body
            case "PATCH", _ if server.webhook:
                why = f'Internal error occurred: failed calling webhook "{server.webhook}": refused'
                raise ApiError(f"PATCH {path}: {why}", 500)
            case "PATCH", _ if params and params.get("dryRun") == "All":
                return {}
            case "PATCH", _ if content_type == "application/apply-patch+yaml":
                _check_ports(body)
                metadata = {"generation": 1} | body["metadata"]
                server.objects[path] = body | {"metadata": metadata}
                if body["kind"] == "Service" and body["spec"].get("type") == "NodePort":
                    for number, port in enumerate(body["spec"]["ports"]):
                        port.setdefault("nodePort", 31000 + number)
                return body
            case "PATCH", _ if path in server.objects and "merge-patch" in content_type:
                return _merge(server.objects[path], body)
            case "DELETE", _ if path in server.objects:
                return server.objects.pop(path)
        raise ApiError(f"{method} {path}: not found", 404)


def _discovered(path: str) -> Iterator[dict[str, Any]]:
    """What the API server says of a group and version; of its objects' parts, too."""
    for kind, (name, namespaced) in RESOURCES[path].items():
        yield {"name": name, "kind": kind, "namespaced": namespaced}
    if path == "/api/v1":
        yield {"name": "nodes/proxy", "kind": "NodeProxyOptions", "namespaced": False}
        yield {"name": "pods/eviction", "kind": "Eviction", "namespaced": True}


COREFILE = "/api/v1/namespaces/kube-system/configmaps/coredns"
_COREFILE = """.:53 {
    errors
    kubernetes cluster.local {
       ttl 30
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
}
"""


def _check_ports(body: dict[str, Any]) -> None:
    """Refuse what server-side apply refuses: ports are told apart by their protocol, too."""
    spec = body.get("spec", {})
    containers = spec.get("template", {}).get("spec", {}).get("containers", [])
    lists = [spec.get("ports", []), *(each.get("ports", []) for each in containers)]
    if not all("protocol" in port for ports in lists for port in ports):
        raise ApiError("failed to create typed patch object: a port omits key field protocol", 500)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        elif value is None:
            target.pop(key, None)
        elif key == "containers":
            # As a strategic patch does, by their names.
            there = {each["name"]: each for each in target.get(key, [])}
            target[key] = [_merge(there.get(each["name"], {}), each) for each in value]
        else:
            target[key] = value
    return target


def ready(value: bool = True, message: str = "") -> dict[str, str]:
    """The condition of a node or pod."""
    return {"type": "Ready", "status": str(value), "message": message, "reason": "Test"}


class FakeEngine:
    """Instances in memory that do what nodes do as far as sykube can see it.

    Like the real ones it refuses to work with a configuration file that is not there. Any of its
    calls can be made to fail through `World.calls`.
    """

    def __init__(self, world: World, config: Path | None = None) -> None:
        self.world = world
        self.config = config

    def start(self, name: str, options: InstanceOptions) -> None:
        self._call("start", name)
        world = self.world
        assert name not in world.instances, f"the instance {name} runs already"
        for host, _ in options.binds:
            assert host.exists(), f"{host} is bound but missing"
        assert options.overlay.is_dir()
        assert self.config is not None
        networks = world.engine_network_dir(self.config)
        assert (networks / f"50-{options.network}.conflist").is_file(), "no such network"
        pid = next(world.pids)
        link = f"veth{pid}"
        index = world.kernel.add_link(link, options.network)
        instance = FakeInstance(pid, options, world.disk(options.overlay), link, index)
        instance.lay_network()
        instance.seed()
        world.instances[name] = instance
        for kubernetes in world.kubernetes.values():
            if instance.joined and name in kubernetes.started:
                kubernetes.kubelet_started(name, instance.version)
        run_folder = world.path(f"/proc/{pid}/root/run")
        for socket in ("supervisor.sock", "containerd/containerd.sock"):
            (run_folder / socket).parent.mkdir(parents=True, exist_ok=True)
            (run_folder / socket).touch()
        results = world.path("/var/lib/cni/results")
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{options.network}-{pid}-eth0").write_text(options.address)
        for log in self._log_files(name):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"the first words of {name}\n")
        for hierarchy in world.cgroup_hierarchies():
            procs = hierarchy / "sykube" / name / "cgroup.procs"
            assert procs.exists(), "the node's cgroup is missing"
            procs.write_text(f"{pid}\n")
        first_log = instance.on_host("/var/log/sykube/supervisord.log")
        assert first_log is not None
        first_log.parent.mkdir(exist_ok=True)
        first_log.write_text(f"{name} has booted\n")

    def kill(self, name: str) -> None:
        self._call("kill", name)
        if self.world.cgroup_version == 1 and self.world.frozen(name):
            raise SykubeError(f"the instance {name} is there 30 s after it was killed")
        self.world.end(name)

    def instances(self) -> dict[str, Instance]:
        self._call("instances")
        return {
            name: Instance(name, instance.pid, str(instance.options.image))
            for name, instance in self.world.instances.items()
        }

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        try:
            self._call("exec", name, *argv)
        except BaseException:
            self.world.half(name, list(argv))
            raise
        if name not in self.world.instances:
            code, stdout, stderr = 255, "", f"no instance found with name {name}"
        else:
            instance = self.world.instances[name]
            code, stdout, stderr = self.world.in_node(name, instance, list(argv), stdin)
        if check and code:
            raise CommandError(f"{argv[0]} failed with exit code {code}", argv, stdout + stderr)
        return Completed(tuple(argv), code, stdout, stderr)

    def replace_with_exec(self, name: str, argv: Sequence[str]) -> None:
        self._call("replace_with_exec", name, *argv)

    def leftovers(self, name: str) -> list[Path]:
        return [log for log in self._log_files(name) if log.exists()]

    def output(self, name: str) -> str:
        return "\n".join(log.read_text() for log in self.leftovers(name))

    def _call(self, *words: str) -> None:
        self.world.calls.record("engine", *words)

    def _log_files(self, name: str) -> list[Path]:
        folder = self.world.root / "root/.apptainer/instances/logs/host/root"
        return [folder / f"{name}.out", folder / f"{name}.err"]


class RecordingUi(Ui):
    """A user interface that keeps what it said, and tells `Calls` which step is under way."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(quiet=True, stream=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        self.calls = calls
        self.said: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        outer = self.calls.step
        self.calls.step = title
        self.steps.append(title)
        try:
            with super().step(title):
                yield
        finally:
            self.calls.step = outer


class World:
    """A fake host, whole: everything of it lies below `root` or in this object."""

    def __init__(self, root: Path, *, cgroup_version: int = 1) -> None:
        self.root = root
        self.cgroup_version = cgroup_version
        self.calls = Calls()
        self.kernel = Kernel(root)
        self.proc_sys = self.kernel.proc_sys
        self.cgroup_root = CgroupPath(root / "sys/fs/cgroup")
        self.programs = FakePrograms(self.kernel, self.calls, root / "etc/apptainer")
        # Seconds that nobody waited for.
        self.slept = 0.0
        # Whose rights sykube has.
        self.user = 0
        self.machine = platform.machine()
        # By names that are looked up at each call: a test may replace them.
        self.host = FakeHost(
            root,
            self.programs.run,
            lambda *given: self.programs.become(*given),
            lambda pid, number: self.kill_process(pid, number),
            lambda program: self.which(program),
            lambda folder: self.disk_usage(folder),
            lambda folder: str(folder) in self.kernel.mounts,
            lambda: self.user,
            lambda: self.machine,
            lambda: time.monotonic() + self.slept,
            self._sleep,
        )
        self.instances: dict[str, FakeInstance] = {}
        self.kubernetes: dict[str, Kubernetes] = {}
        # What kubeadm was given: the node, its arguments, the documents of its configuration.
        self.configurations: list[tuple[str, list[str], list[dict[str, Any]]]] = []
        # Manifests that kubectl was given, and what it fails with, the next time first.
        self.applied: list[str] = []
        self.apply_problems: list[str] = []
        # Whether etcd of a snapshot holds a CNI plugin.
        self.plugin = False
        self.killed: list[int] = []
        self.disks: dict[str, dict[str, str]] = {}
        # Nodes whose kubelets do not come up; how much of the disk is free; systemd is there.
        self.silent: set[str] = set()
        # How often kubeadm's Job does not end in time.
        # What kubeadm upgrade fails with, the next time first.
        self.upgrade_problems: list[str] = []
        # Versions of Kubernetes whose control plane does not come up.
        self.unfit: set[str] = set()
        self.free, self.total = 0.5, 10_000_000_000
        # Programs that are there, and that are not, whatever this machine has.
        self.present: set[str] = set()
        self.absent: set[str] = set()
        self.systemd = False
        self.services = {"containerd": "RUNNING", "kubelet": "RUNNING"}
        # Beyond the largest that Linux has: no process of this machine is ever meant.
        self.pids = itertools.count(5_000_000)
        self._make_cgroups(cgroup_version)
        self._make_files()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of the real host."""
        from sykube.cluster import cluster as cluster_module
        from sykube.host import engines, preflight
        from sykube.node import netns, services

        self.programs.answers |= {"kubectl": self._kubectl, "systemctl": self._systemctl}
        self.programs.restored = self._restore_etcd
        monkeypatch.setattr(Cluster, "api_of", lambda cluster, _node: self.api(cluster.name))
        monkeypatch.setattr(netns, "exchange", self.exchange)
        monkeypatch.setattr(services, "states", lambda *_: dict(self.services))
        monkeypatch.setattr(cluster_module, "CommandLineEngine", self._engine)
        monkeypatch.setattr(Cluster, "api", lambda cluster: self.api(cluster.name))
        found = engines.FoundEngine(self.root / "usr/bin/apptainer", "apptainer 1.4.5", {})
        monkeypatch.setattr(engines, "find", lambda _: found)
        # What a host has and lacks is not what these tests are about.
        monkeypatch.setattr(preflight, "examine", lambda *_, **__: [])
        monkeypatch.setattr(preflight, "examine_for_workers", lambda *_: [])
        monkeypatch.setenv("SYKUBE_MIRROR", "file:/d")
        monkeypatch.setattr(HTTPAdapter, "send", _only_here(HTTPAdapter.send))
        monkeypatch.setattr(os, "fsync", lambda _: None)
        monkeypatch.setenv("SYKUBE_CACHE_DIR", str(self.root / "cache"))
        monkeypatch.setenv("HOME", str(self.root / "home"))
        for name in ("KUBECONFIG", "SUDO_UID", "SYKUBE_FAIL_AT"):
            monkeypatch.delenv(name, raising=False)
        self._make_image(monkeypatch)

    def _make_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put an up-to-date node image into the cache; fingerprints are looked up once."""
        if not _fingerprints:
            chain = build.layers(self.host, versions.DEBIAN, Mirror("file:/d"))
            _fingerprints.update({layer.name: layer.fingerprint for layer in chain})
        known = property(lambda layer: _fingerprints[layer.name])
        monkeypatch.setattr(build.Layer, "fingerprint", known)
        chain = build.layers(self.host, versions.DEBIAN, Mirror("file:/d"))
        monkeypatch.setattr(build, "layers", lambda *_: chain)
        add_image(self.root / "cache", chain[-1].fingerprint)

    def use_kubernetes(self, version: str, containerd: str, repository: str) -> None:
        """Let the cached node image be one of upstream's Kubernetes, and its downloads be cached.

        Whoever asks for this very version then asks no release site.
        """
        release = upstream.Release.of(version)
        for name in versions.PUBLISHED:
            project = name if name in ("containerd", "runc") else "kubernetes"
            of = getattr(release, project)
            file = {
                "containerd": f"containerd-{of}-linux-{container.machine(self.host)}.tar.gz",
                "runc": f"runc.{container.machine(self.host)}",
            }.get(name, name)
            cached = downloads.place(self.host, project, of, container.machine(self.host), file)
            fill(cached.parent, {cached.name: name})
            checksum = Checksum.parse(hashlib.sha256(name.encode()).hexdigest())
            downloads.mark(cached, checksum)
        names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        images = [f"{repository}/{name}:v{version}" for name in names]
        images += [f"{repository}/{name}" for name in ("etcd:3.6.5-0", "coredns:v1.12.1")]
        images += [f"{repository}/pause:3.10.1", versions.SYSTEM_IMAGE]
        (recorded,) = (self.root / "cache/node-images").glob("*/versions")
        recorded.write_text(f"source=upstream\nkubernetes=v{version}\ncontainerd={containerd}\n")
        recorded.with_name("container-images").write_text("\n".join(images))

    def path(self, *parts: str | Path) -> Path:
        """The fake place of a path of the real host."""
        return _REAL_PATH(f"{self.root}{os.path.join(*parts)}")

    def ui(self) -> RecordingUi:
        return RecordingUi(self.calls)

    def _engine(
        self, host: Host, binary: Path, config: Path, environment: Mapping[str, str]
    ) -> FakeEngine:
        """CommandLineEngine's own parameters."""
        return FakeEngine(self, config)

    def engine(self) -> FakeEngine:
        """The engine without a cluster's configuration."""
        return FakeEngine(self)

    def api(self, cluster: str) -> FakeApi:
        """It answers while a control plane of the cluster runs."""
        answers = any(
            instance.has_control_plane
            and self.lives(name)
            and instance.works
            and instance.version not in self.unfit
            for name, instance in self.instances.items()
            if name.startswith(f"{cluster}-master")
        )
        return FakeApi(self.kubernetes.get(cluster) if answers else None, self.calls)

    def lives(self, name: str) -> bool:
        """Whether a node's processes get to work."""
        return name in self.instances and name not in self.silent and not self.frozen(name)

    def frozen(self, name: str) -> bool:
        """Whether a node's processes are stopped, in either version of cgroups."""
        files = (f"freezer/sykube/{name}/freezer.state", f"sykube/{name}/cgroup.freeze")
        paths = [_REAL_PATH(self.cgroup_root, file) for file in files]
        return any(path.exists() and path.read_text().strip() in ("FROZEN", "1") for path in paths)

    def disk(self, overlay: Path) -> dict[str, str]:
        """What a node has written to its overlay, as long as that folder lives."""
        mark = overlay / ".disk"
        if not mark.exists():
            mark.write_text(f"disk {next(self.pids)}")
            self.disks[mark.read_text()] = {}
        return self.disks[mark.read_text()]

    def reboot(self) -> None:
        """Everything goes that does not lie on a disk."""
        for instance in self.instances.values():
            shutil.rmtree(self.path(f"/proc/{instance.pid}"))
        self.instances.clear()
        for name in set(self.kernel.links) - {"eth0"}:
            self.kernel.remove_link(name)
        for mount in self.kernel.mounts:
            shutil.rmtree(mount)
            Path(mount).mkdir()
        self.kernel.mounts.clear()
        self.kernel.modules.clear()
        shutil.rmtree(self.root / "proc/sys")
        self.kernel.boot()
        for folder in (self.cgroup_root, self.root / "run"):
            shutil.rmtree(folder)
        self._make_cgroups(self.cgroup_version)
        (self.root / "run").mkdir()
        if self.systemd:
            (self.root / "run/systemd/system").mkdir(parents=True)

    def disk_usage(self, folder: Path) -> Any:
        assert folder.exists()
        return types.SimpleNamespace(total=self.total, free=round(self.free * self.total))

    def _sleep(self, seconds: float) -> None:
        # A wait that fails looks some twenty times.
        self.slept += max(seconds, 10.0)

    def which(self, program: str) -> str | None:
        """Where a program is; those that no test speaks of are this machine's own."""
        there = program in self.present or (program == "systemctl" and self.systemd)
        if there or program in {"systemctl", *self.absent}:
            return f"/usr/bin/{program}" if there else None
        return Host.which(program)

    def _systemctl(self, words: list[str]) -> Answer:
        if not self.systemd:
            return 127, "", "systemctl: not found"
        units = self.path("/etc/systemd/system")
        wanted = units / "multi-user.target.wants"
        match [word for word in words if not word.startswith("--")]:
            case ["enable", unit]:
                if not (units / unit).exists():
                    return 1, "", f"Failed to enable unit: Unit file {unit} does not exist."
                wanted.mkdir(exist_ok=True)
                if not (wanted / unit).is_symlink():
                    (wanted / unit).symlink_to(units / unit)
            case ["disable", unit]:
                (wanted / unit).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    wanted.rmdir()
            case ["daemon-reload"]:
                pass
            case ["start" | "reset-failed", unit]:
                if not (units / unit).exists():
                    return 5, "", f"Unit {unit} not loaded."
            case ["stop", unit]:
                if "ExecStop=" in (units / unit).read_text():
                    for name in list(self.instances):
                        self.end(name)
            case unknown:
                raise AssertionError(f"the fake systemctl does not know: {unknown}")
        return 0, "", ""

    def _kubectl(self, words: list[str]) -> Answer:
        match words:
            case ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", _]:
                for name, kubernetes in self.kubernetes.items():
                    if node in kubernetes.nodes and self.api(name)._kubernetes:
                        kubernetes.nodes[node]["spec"]["unschedulable"] = True
                        return 0, f"node/{node} drained\n", ""
                return 1, "", "The connection to the server was refused"
            case ["apply", "--server-side", "-f", manifest]:
                self.applied.append(Path(manifest).read_text(encoding="utf-8"))
                if self.apply_problems:
                    return 1, "", self.apply_problems.pop(0)
                self.kubernetes[Path(manifest).parent.name].install_plugin()
                return 0, "daemonset.apps/cni serverside-applied\n", ""
        raise AssertionError(f"the fake kubectl does not know: {words}")

    def end(self, name: str) -> None:
        """An instance is gone, with its processes."""
        instance = self.instances.pop(name, None)
        if instance is None:
            return
        if instance.link in self.kernel.links:
            self.kernel.remove_link(instance.link)
        shutil.rmtree(self.path(f"/proc/{instance.pid}"))
        for hierarchy in self.cgroup_hierarchies():
            procs = hierarchy / "sykube" / name / "cgroup.procs"
            if procs.exists():
                procs.write_text("")

    def kill_process(self, pid: int, _signal: int) -> None:
        """What os.kill is to the cgroups."""
        self.killed.append(pid)
        for below, _, _ in os.walk(self.cgroup_root):
            procs = _REAL_PATH(below) / "cgroup.procs"
            if procs.exists() and str(pid) in procs.read_text().split():
                left = [word for word in procs.read_text().split() if word != str(pid)]
                procs.write_text("\n".join(left))

    def exchange(self, pid: int, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        """The cluster DNS: it has an address for every name that a node asks it for."""
        self.calls.record("dns", *address)
        names = [name for name, instance in self.instances.items() if instance.pid == pid]
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        etcd = self.kubernetes.get(names[0].rpartition("-")[0])
        if etcd and etcd.bare and not etcd.plugin:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return request[:2] + b"\x81\x80" + b"\0\1\0\1\0\0\0\0"

    def cgroup_hierarchies(self) -> list[Path]:
        """The folders that have a cgroup for each node."""
        if (self.cgroup_root / "cgroup.controllers").exists():
            return [self.cgroup_root]
        with os.scandir(self.cgroup_root) as entries:
            folders = [entry.path for entry in entries if not entry.is_symlink()]
        return [CgroupPath(path) for path in folders if os.path.exists(f"{path}/tasks")]

    def engine_network_dir(self, config: Path) -> Path:
        """Where a configuration file of the engine says that networks are."""
        lines = config.read_text(encoding="utf-8").splitlines()
        key = "cni configuration path ="
        return Path(next(line for line in lines if line.startswith(key)).split("= ")[1])

    def in_node(
        self, name: str, instance: FakeInstance, argv: list[str], stdin: str | None
    ) -> Answer:
        """Run a command in an instance."""
        match argv:
            case ["sh", "-c", script, *_] if " && cat > " in script:
                path = script.rsplit(" ", 1)[1]
                instance.files[path] = stdin or ""
            case ["sh", "-c", _, "check-node" | "check-network", _]:
                pass
            case ["pkill", "-KILL", "-x", "kube-apiserver"]:
                pass
            case ["sh", "-c", script] if "pki/ca.crt" in script and "sha256sum" in script:
                return 0, f"{CA_HASH}  -\n", ""
            case ["test", "-e", *paths]:
                there = any(
                    f"{file}/".startswith(f"{path}/") for file in instance.files for path in paths
                )
                return int(not there), "", ""
            case ["cat", "/sys/class/net/eth0/iflink"]:
                return 0, f"{instance.index}\n" if instance.link in self.kernel.links else "", ""
            case ["cat", path]:
                if path not in instance.files:
                    return 1, "", f"cat: {path}: No such file or directory"
                return 0, instance.files[path], ""
            case ["rm", "-f", *paths]:
                for path in paths:
                    instance.files.pop(path, None)
            case ["kubeadm", "init", "--config", path, *_]:
                self._keep_configuration(name, instance, argv, path)
                return self._kubeadm_init(name, instance, path)
            case ["kubeadm", "init", "phase", "addon", "coredns", "--config", path]:
                self._keep_configuration(name, instance, argv, path)
                deployments = "/apis/apps/v1/namespaces/kube-system/deployments"
                objects = self._etcd_of(name).objects
                containers = [{"name": "coredns", "image": "registry.example/coredns:v1"}]
                objects[f"{deployments}/coredns"] = {
                    "spec": {"template": {"spec": {"containers": containers}}}
                }
                objects[COREFILE] = {"data": {"Corefile": _COREFILE}}
            case ["kubeadm", "join", "--config", path, *_]:
                self._keep_configuration(name, instance, argv, path)
                return self._kubeadm_join(name, instance, path)
            case ["/usr/lib/sykube/node-network"]:
                instance.lay_network()
            case ["sh", "-c", _, "stop-containers", "node", _]:
                pass
            case ["mkdir", "-p", "-m", "0700", _]:
                pass
            case ["etcdctl", *options, "member", "list"] if "--endpoints" in options:
                return 0, self._etcd_of(name).listed(), ""
            case ["etcdctl", *options, "member", "remove", member] if "--endpoints" in options:
                members = self._etcd_of(name).members
                members.pop(next(each for each in members if member_id(each) == member))
            case ["python3", "-c", *_]:
                pass
            case ["ctr", "images", "list"]:
                rows = [f"{name} type {digest} 1 B -" for name, digest in instance.images.items()]
                return 0, "\n".join(["REF TYPE DIGEST SIZE", *rows]), ""
            case ["ctr", "images", "rm", "--sync", *names]:
                instance.images = {k: v for k, v in instance.images.items() if k not in names}
            case ["sh", "-c", _, "load-image", folder, id_, image]:
                instance.import_image(folder, id_, image)
            case ["sh", "-c", _, "detach-content", *parts]:
                for part in parts:
                    text = instance.part(part).read_bytes()
                    (instance.content / part).unlink()
                    (instance.content / part).write_bytes(text)
            case ["sh", "-c", _, "read-content", *parts]:
                found = [part for part in parts if instance.part(part).exists()]
                texts = {part: instance.part(part).read_text() for part in found}
                return 0, "".join(f"{part}\n{text}\n" for part, text in texts.items()), ""
            case ["sh", "-c", script, "kubeadm-upgrade", *arguments]:
                return self._kubeadm_upgrade(name, instance, script, arguments)
            case ["etcdctl", *options, "snapshot", "save", path] if "--endpoints" in options:
                file = instance.on_host(path)
                assert file is not None
                file.write_text(json.dumps(self._etcd_of(name).objects))
            case ["supervisorctl", "restart", "kubelet"]:
                pass
            case _:
                raise AssertionError(f"the fake node does not know: {argv}")
        return 0, "", ""

    def half(self, name: str, argv: list[str]) -> None:
        """What kubeadm leaves in a node when it fails in the middle."""
        instance = self.instances.get(name)
        if instance and "kubeadm-upgrade" in argv and instance.has_control_plane:
            fill(instance.manifests, {"kube-controller-manager.yaml": "an image that is nowhere"})
        if instance and argv[:2] == ["kubeadm", "init"]:
            instance.files[f"{_PKI}/ca.crt"] = "half"
        if instance and argv[:2] == ["kubeadm", "join"]:
            instance.files["/etc/kubernetes/bootstrap-kubelet.conf"] = "half"
            document = documents.load(instance.files[argv[3]])
            if "controlPlane" in document:
                etcd = self._etcd_of(name)
                etcd.members[name] = document["controlPlane"]["localAPIEndpoint"][
                    "advertiseAddress"
                ]

    def _keep_configuration(
        self, name: str, instance: FakeInstance, argv: list[str], path: str
    ) -> None:
        text = instance.files.get(path, "")
        self.configurations.append((name, argv, documents.load_all(text)))

    def _etcd_of(self, name: str) -> Kubernetes:
        """What the control planes of a node's cluster share."""
        return self.kubernetes[name.rpartition("-")[0]]

    def _restore_etcd(self, name: str, objects: dict[str, Any]) -> None:
        kubernetes = self._etcd_of(name)
        kubernetes.objects = objects

    def _kubeadm_init(self, name: str, instance: FakeInstance, path: str) -> Answer:
        if any("/pki/" in file or file.endswith(".conf") for file in instance.files):
            return 1, "", "there are remains of an earlier control plane"
        if path not in instance.files:
            return 1, "", f"unable to read config from {path!r}"
        given = {each["kind"]: each for each in documents.load_all(instance.files[path])}
        cluster = given["ClusterConfiguration"]
        server = f"https://{cluster['controlPlaneEndpoint']}"
        instance.files["/etc/kubernetes/admin.conf"] = admin_kubeconfig(server)
        instance.files[KUBELET_CONF] = "kubelet"
        instance.files |= {key: f"{key} of the cluster" for key in SHARED_KEYS}
        kubernetes = Kubernetes(lives=self.lives, plugin=self.plugin)
        kubernetes.bare |= {name} if not instance.config("pod-network.conflist") else set()
        kubernetes.kubelet_joined(name, instance.version, control_plane=True)
        address = given["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"]
        kubernetes.members[name] = address
        kubernetes.objects[KUBEADM_CONFIG] = {
            "metadata": {"name": "kubeadm-config"},
            "data": {"ClusterConfiguration": documents.dump(cluster)},
        }
        self.kubernetes[cluster["clusterName"]] = kubernetes
        self._write_control_plane(instance, instance.version)
        self._kubelet()
        return 0, "", ""

    def _kubeadm_join(self, name: str, instance: FakeInstance, path: str) -> Answer:
        if path not in instance.files:
            return 1, "", f"unable to read config from {path!r}: no such file or directory"
        if {"/etc/kubernetes/bootstrap-kubelet.conf", KUBELET_CONF} & set(instance.files):
            return 1, "", "there are remains of an earlier kubeadm join"
        document = documents.load(instance.files[path])
        discovery = document["discovery"]["bootstrapToken"]
        token, secret = discovery["token"].split(".")
        servers = [each for each in self.kubernetes.values() if each.tokens().get(token) == secret]
        if not servers or discovery["caCertHashes"] != [f"sha256:{CA_HASH}"]:
            return 1, "", "couldn't validate the identity of the API Server"
        (kubernetes,) = servers
        control_plane = document.get("controlPlane")
        if control_plane:
            if any(instance.files.get(key) != f"{key} of the cluster" for key in SHARED_KEYS):
                return 1, "", "a shared key or certificate is missing"
            address = control_plane["localAPIEndpoint"]["advertiseAddress"]
            if name in kubernetes.members or address in kubernetes.members.values():
                return 1, "", "etcdserver: Peer URLs already exists"
            kubernetes.members[name] = address
            endpoint = discovery["apiServerEndpoint"]
            instance.files["/etc/kubernetes/admin.conf"] = admin_kubeconfig(f"https://{endpoint}")
            self._write_control_plane(instance, instance.version)
        instance.files[f"{_PKI}/ca.crt"] = f"{_PKI}/ca.crt of the cluster"
        instance.files[KUBELET_CONF] = "kubelet"
        kubernetes.bare |= {name} if not instance.config("pod-network.conflist") else set()
        kubernetes.kubelet_joined(name, instance.version, control_plane=bool(control_plane))
        self._kubelet()
        return 0, "", ""

    def _write_control_plane(self, instance: FakeInstance, version: str) -> None:
        """What kubeadm writes: static pods, each just the image that it needs, and more."""
        names = [each for each in instance.images if "kube-apiserver:" in each]
        name = next((each for each in names if each.endswith(f":{version}")), names[0])
        fill(instance.manifests, {"kube-apiserver.yaml": name})
        for path in ("kubelet/config.yaml", "kubelet/kubeadm-flags.env", "etcd/member/data"):
            file = instance.on_host(f"/var/lib/{path}")
            assert file is not None
            fill(file.parent, {file.name: version})

    def _kubeadm_upgrade(
        self, name: str, instance: FakeInstance, script: str, arguments: list[str]
    ) -> Answer:
        tools = instance.on_host("/etc/sykube/update/kubeadm")
        assert tools is not None
        assert "/etc/sykube/update/kubeadm" in script
        if not tools.exists() or not tools.with_name("crictl").exists():
            return 127, "", "kubeadm: not found"
        version = tools.read_text()
        kubernetes = self._etcd_of(name)
        config = documents.load(kubernetes.objects[KUBEADM_CONFIG]["data"]["ClusterConfiguration"])
        if self.upgrade_problems:
            return 1, "", self.upgrade_problems.pop(0)
        match arguments:
            case ["apply", wanted, "--yes", *_]:
                assert wanted == version
                assert instance.has_control_plane
                config["kubernetesVersion"] = version
                data = {"ClusterConfiguration": documents.dump(config)}
                kubernetes.objects[KUBEADM_CONFIG]["data"] = data
            case ["node", *_]:
                assert config["kubernetesVersion"] == version, "apply comes first"
        if instance.has_control_plane:
            if f"{config['imageRepository']}/kube-apiserver:{version}" not in instance.images:
                return 1, "", "[ERROR ImagePull]: failed to pull image"
            self._write_control_plane(instance, version)
        return 0, "", ""

    def _kubelet(self) -> None:
        for key, value in (("vm/overcommit_memory", "1"), ("kernel/panic", "10")):
            (self.proc_sys / key).write_text(value)

    def snapshot(self) -> dict[str, Any]:
        """Everything that delete must leave as it was: all but caches and logs."""
        kept = ("cache", "var/log", "proc/sys")
        files: dict[str, str] = {}
        for entry in _tree(str(self.root)):
            name = entry.path.removeprefix(f"{self.root}/")
            if name.startswith(kept):
                continue
            if entry.is_symlink():
                files[name] = f"→ {os.readlink(entry)}"
            elif entry.is_file():
                files[name] = Path(entry).read_text(encoding="utf-8", errors="replace")
            elif name.startswith(("var", "run", "sys")) or not os.listdir(entry):
                files[name] = "a folder"
        for name in [name for name in files if name.endswith(".kube/config")]:
            files[name] = json.dumps(documents.load(files[name]), sort_keys=True)
        # An engine and CNI keep their own, empty folders.
        for name in ("root/.apptainer/instances/logs/host/root",):
            files.pop(name, None)
        for name in ("var/lib/cni", "var/lib/cni/results"):
            files.pop(name, None)
        return {"files": files, "instances": set(self.instances)} | self.kernel.snapshot()

    def _make_cgroups(self, version: int) -> None:
        _REAL_PATH(self.cgroup_root).mkdir(parents=True)
        if version == 2:
            fill(self.cgroup_root, {"cgroup.controllers": "cpu cpuset memory pids\n"})
            # As systemd leaves it.
            fill(self.cgroup_root, {"cgroup.subtree_control": "cpu cpuset memory pids\n"})
            fill(self.cgroup_root, {"cgroup.procs": "1\n"})
            return
        for name in (*_V1_FILES, "systemd"):
            fill(self.cgroup_root / name, {"tasks": "1\n", "cgroup.procs": "1\n"})
        fill(self.cgroup_root / "cpuset", {"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"})
        # cgroup2 beside v1: no controllers, no tasks
        fill(self.cgroup_root / "unified", {"cgroup.procs": "1\n"})
        for name in ("cpu", "cpuacct"):
            (self.cgroup_root / name).symlink_to("cpu,cpuacct")

    def _make_files(self) -> None:
        fill(self.root / "etc", {"resolv.conf": "nameserver 127.0.0.53\nnameserver 192.0.2.53\n"})
        fill(self.root / "etc", {"os-release": 'PRETTY_NAME="Debian, a fake one"\nID=debian\n'})
        give_capabilities(self.host, (1 << 41) - 1)
        fill(self.root / "proc", {"meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"})
        fill(self.root / "etc/apptainer", {"apptainer.conf": "# cni configuration path =\n"})
        fill(self.root / "home/.kube", {"config": _OTHER_KUBECONFIG})
        for name in ("var/lib", "run"):
            (self.root / name).mkdir(parents=True, exist_ok=True)


OTHER_KUBECONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {},
    "clusters": [{"name": "work", "cluster": {"server": "https://work.example:6443"}}],
    "users": [{"name": "me", "user": {"token": "secret"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


_OTHER_KUBECONFIG = documents.dump(OTHER_KUBECONFIG)


@functools.cache
def admin_kubeconfig(server: str) -> str:
    """The admin kubeconfig that kubeadm init writes."""
    return documents.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": server, "certificate-authority-data": "Q0E="}}
            ],
            "users": [
                {
                    "name": "admin",
                    "user": {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"},
                }
            ],
            "contexts": [{"name": "admin@c", "context": {"cluster": "c", "user": "admin"}}],
            "current-context": "admin@c",
        }
    )


def _only_here(send: Callable[..., Any]) -> Callable[..., Any]:
    """An HTTP client's way to servers of the test itself; there is no network beyond."""

    def only_here(adapter: HTTPAdapter, request: requests.PreparedRequest, **how: Any) -> Any:
        if urlsplit(request.url or "").hostname != "localhost":
            raise requests.ConnectionError(OSError(errno.ENETUNREACH, "Network is unreachable"))
        return send(adapter, request, **how)

    return only_here


def add_image(
    cache: Path, fingerprint: str, *, version: str = "v1.20.2", **parts: str
) -> NodeImage:
    """Put a complete node image into a cache."""
    folder = cache / "node-images" / fingerprint
    folder.mkdir(parents=True)
    write_sif(folder / "node.sif", "" if version == "v1.20.2" else version)
    for path, text in IMAGE_FILES.items():
        text = text.replace("v1.20.2", version)
        # As tests/update has it: it is none of Debian's own versions.
        more = "source=debian\n" if "kubernetes=" in text and version != "v1.20.2" else ""
        (folder / Path(path).name).write_text(text + more)
    (folder / "parts.json").write_text(json.dumps(parts))
    (folder / "complete").touch()
    return NodeImage(fingerprint, folder)


def fill(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, which is made."""
    os.makedirs(folder, exist_ok=True)
    for name, text in files.items():
        _write(f"{folder}/{name}", text)


def make_subnets(nodes: str = "10.11.11.0/24") -> Subnets:
    """The ranges of a cluster in tests."""
    from ipaddress import IPv4Network

    return Subnets(IPv4Network(nodes), IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))


class ScriptedEngine:
    """An engine whose `exec` answers one thing; for checks that run a single command in a node."""

    def __init__(self, code: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.answer = (code, stdout, stderr)
        self.argvs: list[list[str]] = []
        self.stdins: list[str | None] = []

    def exec(self, name: str, argv: Sequence[str], **options: Any) -> Completed:
        self.argvs.append([name, *argv])
        self.stdins.append(options.get("stdin"))
        done = Completed(tuple(argv), *self.answer)
        if options.get("check", True) and not done.ok:
            raise CommandError("failed", argv, done.stderr)
        return done


def make_node(engine: Any, folder: Path = Path("/nonexistent"), name: str = "master") -> Node:
    """A node with a given engine."""
    return Node(
        name, f"fake-{name}", "10.11.11.2", "10.244.0.0/24", folder, engine, name == "master"
    )


def _typed(world: World) -> Engine:
    """mypy holds FakeEngine to the protocol here."""
    return FakeEngine(world)
