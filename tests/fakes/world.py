"""A fake host, whole: its kernel, programs, engine and API servers, below one folder.

`World` is for failing at every step in milliseconds. It is as strict as the real thing where that
has bitten before: iptables refuses a chain that is in use, an engine refuses a missing
configuration file, writing ip_forward changes other sysctls.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import shutil
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

from sykube import documents
from sykube.host.apt import Mirror
from sykube.host.checksum import Checksum
from sykube.host.host import Host
from sykube.image import build, downloads, oci, upstream, versions
from tests.fakes.answers import Answer
from tests.fakes.apiserver import FakeApi, Kubernetes
from tests.fakes.calls import Calls
from tests.fakes.cgroups import CgroupPath, mount_cgroups
from tests.fakes.engine import FakeEngine
from tests.fakes.files import REAL_PATH, fill, tree
from tests.fakes.host import FakeHost, give_capabilities
from tests.fakes.image import add_image
from tests.fakes.instance import FakeInstance
from tests.fakes.kernel import Kernel
from tests.fakes.kubeconfig import OTHER_KUBECONFIG
from tests.fakes.network import FakeNetwork
from tests.fakes.node_programs import NodePrograms
from tests.fakes.programs import FakePrograms
from tests.fakes.ui import RecordingUi

# Of a host that has all that init asks for.
_PROGRAMS = (
    *("ip", "iptables", "sysctl", "mount", "modprobe"),
    *("debootstrap", "mksquashfs", "apptainer", "apt-get", "dpkg-deb"),
    *("gzip", "pigz", "xz", "zstd"),
)
_chain: list[build.Layer] = []


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
        self.node_programs = NodePrograms(self)
        self.network = FakeNetwork(self)
        # Seconds that nobody waited for.
        self.slept = 0.0
        # How far a pause moves the clock at least: a wait that fails looks some twenty times.
        self.stride = 10.0
        # URLs that were asked for, and sites that a server of the test has in their place.
        self.asked: list[str] = []
        self.web: dict[str, str] = {}
        # Files that were given to a user and a group.
        self.given: list[tuple[str, int, int]] = []
        # What goes on after commands have ended.
        self.background: list[Callable[[], None]] = []
        # Whose rights sykube has.
        self.user = 0
        self.machine = platform.machine()
        self.host = FakeHost(
            root,
            run=self.programs.run,
            replace_process=lambda *given: self.programs.become(*given),
            run_attached=lambda *given: self.programs.attached(*given),
            in_background=lambda action, _output: self.background.append(action),
            kill=self.kill_process,
            which=self.which,
            disk_usage=self.disk_usage,
            is_mount=lambda folder: str(folder) in self.kernel.mounts,
            user=lambda: self.user,
            machine=lambda: self.machine,
            monotonic=lambda: time.monotonic() + self.slept,
            sleep=self._sleep,
            network=self.network,
            chown=lambda path, uid, gid: self.given.append((str(path), uid, gid)),
        )
        self.instances: dict[str, FakeInstance] = {}
        self.kubernetes: dict[str, Kubernetes] = {}
        # What kubeadm was given: the node, its arguments, the documents of its configuration.
        self.configurations: list[tuple[str, list[str], list[dict[str, Any]]]] = []
        # What nodes tell of a SIF that they can mount; None where they cannot.
        self.sif_told: dict[str, str] | None = None
        # Manifests that kubectl was given, and what it fails with, the next time first.
        self.applied: list[str] = []
        self.apply_problems: list[str] = []
        # Whether etcd of a snapshot holds a CNI plugin.
        self.plugin = False
        self.killed: list[int] = []
        self.disks: dict[str, dict[str, str]] = {}
        # Nodes whose first process ends at once and leaves others behind.
        self.stillborn: set[str] = set()
        # Nodes whose kubelets do not come up; how much of the disk is free; systemd is there.
        self.silent: set[str] = set()
        # How often kubeadm's Job does not end in time.
        # What kubeadm upgrade fails with, the next time first.
        self.upgrade_problems: list[str] = []
        # Versions of Kubernetes whose control plane does not come up.
        self.unfit: set[str] = set()
        self.free, self.total = 0.5, 1_000_000_000_000
        # Programs that are there, whatever this machine has.
        self.present = {*_PROGRAMS}
        self.systemd = False
        self.services = {"containerd": "RUNNING", "kubelet": "RUNNING"}
        # Beyond the largest that Linux has: no process of this machine is ever meant.
        self.pids = itertools.count(5_000_000)
        mount_cgroups(self.cgroup_root, cgroup_version)
        self._make_files()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of the real host."""
        from sykube.cluster.model import cluster
        from sykube.rootless import engine

        self.programs.answers |= {"kubectl": self._kubectl, "systemctl": self._systemctl}
        self.programs.apptainer.restored = self._restore_etcd
        # Clusters name their engine by its program: the fake has none to be started.
        monkeypatch.setattr(cluster, "CommandLineEngine", self._engine)
        monkeypatch.setattr(engine, "RootlessEngine", self._engine)
        monkeypatch.setenv("SYKUBE_MIRROR", "file:/d")
        # The client of all downloads: there is no network beyond this test's own servers.
        monkeypatch.setattr(HTTPAdapter, "send", self._send(HTTPAdapter.send))
        # Nothing of a fake host is to outlive the machine's power.
        monkeypatch.setattr(os, "fsync", lambda _: None)
        monkeypatch.setenv("SYKUBE_CACHE_DIR", str(self.root / "cache"))
        monkeypatch.setenv("HOME", str(self.root / "home"))
        for name in ("KUBECONFIG", "SUDO_UID", "SYKUBE_FAIL_AT"):
            monkeypatch.delenv(name, raising=False)
        self._make_image(monkeypatch)

    def _send(self, send: Callable[..., Any]) -> Callable[..., Any]:
        """An HTTP client's way to servers of the test itself."""

        def only_here(adapter: HTTPAdapter, request: requests.PreparedRequest, **how: Any) -> Any:
            url = request.url or ""
            self.asked.append(url)
            for site, place in self.web.items():
                if url.startswith(site):
                    sent = request.copy()
                    sent.url = place + url.removeprefix(site)
                    answer = send(adapter, sent, **how)
                    answer.url, answer.request = url, request
                    if led := answer.headers.get("Location"):
                        answer.headers["Location"] = led.replace(place, site)
                    return answer
            if urlsplit(url).hostname != "localhost":
                raise requests.ConnectionError(OSError(errno.ENETUNREACH, "Network is unreachable"))
            return send(adapter, request, **how)

        return only_here

    def _make_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put an up-to-date node image into the cache; fingerprints are looked up once."""
        if not _chain:
            _chain.extend(build.layers(self.host, versions.DEBIAN, Mirror("file:/d")))
        # What images are made of is read and rendered once, not for each of a thousand tests.
        monkeypatch.setattr(build, "layers", lambda *_: tuple(_chain))
        add_image(self.root / "cache", _chain[-1].fingerprint)

    def use_kubernetes(self, version: str, containerd: str, repository: str) -> None:
        """Let the cached node image be one of upstream's Kubernetes, and its downloads be cached.

        Whoever asks for this very version then asks no release site.
        """
        release = upstream.Release.of(version)
        for name in versions.PUBLISHED:
            project = name if name in ("containerd", "runc") else "kubernetes"
            of = getattr(release, project)
            file = {
                "containerd": f"containerd-{of}-linux-{oci.machine(self.host)}.tar.gz",
                "runc": f"runc.{oci.machine(self.host)}",
            }.get(name, name)
            cached = downloads.place(self.host, project, of, oci.machine(self.host), file)
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
        return REAL_PATH(f"{self.root}{os.path.join(*parts)}")

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
        paths = [REAL_PATH(self.cgroup_root, file) for file in files]
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
        mount_cgroups(self.cgroup_root, self.cgroup_version)
        (self.root / "run").mkdir()
        if self.systemd:
            (self.root / "run/systemd/system").mkdir(parents=True)

    def disk_usage(self, folder: Path) -> Any:
        assert folder.exists()
        return types.SimpleNamespace(total=self.total, free=round(self.free * self.total))

    def _sleep(self, seconds: float) -> None:
        self.slept += max(seconds, self.stride)

    def which(self, program: str) -> str | None:
        """Where a program is."""
        there = program in self.present or (program == "systemctl" and self.systemd)
        return f"/usr/bin/{program}" if there else None

    def end(self, name: str) -> None:
        """An instance is gone, with its processes."""
        instance = self.instances.pop(name, None)
        if instance is None or name in self.stillborn:
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
            procs = REAL_PATH(below) / "cgroup.procs"
            if procs.exists() and str(pid) in procs.read_text().split():
                left = [word for word in procs.read_text().split() if word != str(pid)]
                procs.write_text("\n".join(left))

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

    def snapshot(self) -> dict[str, Any]:
        """Everything that delete must leave as it was: all but caches and logs."""
        kept = ("cache", "var/log", "proc/sys")
        files: dict[str, str] = {}
        for entry in tree(str(self.root)):
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

    def give_memory(self, megabytes: int) -> None:
        """Let so much memory be available."""
        known = f"MemTotal: 9000000 kB\nMemAvailable: {megabytes * 1024} kB\n"
        fill(self.root / "proc", {"meminfo": known})

    def _make_files(self) -> None:
        fill(self.root / "etc", {"resolv.conf": "nameserver 127.0.0.53\nnameserver 192.0.2.53\n"})
        fill(self.root / "etc", {"os-release": 'PRETTY_NAME="Debian, a fake one"\nID=debian\n'})
        give_capabilities(self.host, (1 << 41) - 1)
        fill(self.root / "proc/self", {"mountinfo": ""})
        names = ("mnt", "pid", "net", "uts", "ipc", "cgroup")
        fill(self.root / "proc/self/ns", dict.fromkeys(names, ""))
        fill(self.root / "proc", {"filesystems": "nodev\toverlay\n\tsquashfs\n"})
        self.give_memory(200_000)
        keys = self.root / "usr/share/keyrings/debian-archive-keyring.gpg"
        fill(keys.parent, {keys.name: "Debian Archive Automatic Signing Key (12/bookworm)"})
        script = f"variants - minbase\nkeyring {keys}\n"
        folder = self.root / "usr/share/debootstrap/scripts"
        fill(folder, {"bookworm": script, "trixie": script})
        fill(self.root / "usr/lib/cni", {"bridge": "", "static": ""})
        fill(self.root / "etc/apptainer", {"apptainer.conf": "# cni configuration path =\n"})
        fill(self.root / "home/.kube", {"config": documents.dump(OTHER_KUBECONFIG)})
        for name in ("var/lib", "run"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def etcd_of(self, name: str) -> Kubernetes:
        """What the control planes of a node's cluster share."""
        return self.kubernetes[name.rpartition("-")[0]]

    def _restore_etcd(self, name: str, objects: dict[str, Any]) -> None:
        self.etcd_of(name).objects = objects

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
