"""Nodes that are instances of this host's engine, with their files in the cluster's folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sykube.errors import SykubeError
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.run import Completed
from sykube.node import cgroups, image_files, process
from sykube.node.engine import Engine, InstanceOptions
from sykube.node.limits import Limits
from sykube.node.logfile import LogFile
from sykube.node.node import Node, Usage

_DU_S = 600.0
_BOOT_TIMEOUT_S = 180.0
# Folders of a node, and where it sees them: real file systems where containerd and etcd need them,
# and what must outlive the instance.
_BINDS = {
    "containerd": "/var/lib/containerd",
    "kubelet": "/var/lib/kubelet",
    "etcd": "/var/lib/etcd",
    "config": "/etc/sykube",
    "log": "/var/log",
}
# Folders by what `disk` calls them; the others are small.
_DISK = {"overlay": "overlay", "containerd": "images", "etcd": "etcd"}
# Below a node's folder: keys, names and addresses, and what is about pods that have ended.
IDENTITY = (
    *("config", "kubelet", "log", "overlay/work"),
    *(
        f"overlay/upper/{name}"
        for name in ("etc/kubernetes", "etc/machine-id", "etc/cni/net.d", "var/lib/cni")
    ),
)


@dataclass(frozen=True)
class LocalNode(Node):
    """A node on this host; see Node.

    Attributes:
        folder: its files.
    """

    host: Host
    folder: Path
    engine: Engine

    def exists(self) -> bool:
        return self._overlay.is_dir()

    def prepare(self, files: Mapping[str, str], limits: Limits) -> None:
        for folder in (self._overlay, *(self.folder / name for name in _BINDS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_over()
        # Processes in the node that are not root read these.
        for folder in (self.folder / "config", self.folder / "log", self._overlay):
            folder.chmod(0o755)
        for name, text in {**files, "node.env": f"{self._granted()}{files['node.env']}"}.items():
            # A proxy's URL may hold a password, and so may a patch.
            mode = "0600" if name.startswith("containerd.") else "0644"
            self.write(f"/etc/sykube/{name}", f"{text.strip()}\n" if text else "", mode)
        cgroups.create(self.host, self.instance, limits)

    def _granted(self) -> str:
        """What node-init is told of what it may do."""
        grants = self.host.grants
        group = cgroups.path_of(self.instance) if grants.cgroups else ""
        return f"SYKUBE_CGROUP={group}\n" + ("SYKUBE_ROOTLESS=yes\n" if grants.rootless else "")

    def _take_over(self) -> None:
        """Move or remove what an earlier sykube keeps elsewhere, of a command that did not end."""
        for left in (self.folder / "containerd").glob(".load-*"):
            _remove(left)
        kept = self.folder / "kept-images.json"
        if kept.exists():
            kept.replace(self.folder / "config" / kept.name)

    def restore(self, folder: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        folder.rename(self.folder)

    def fit(self, fingerprint: str, present: str) -> None:
        image_files.fit(self.folder, fingerprint, present)

    def previous_containerd(self) -> Path:
        return image_files.aside(self.folder) / "containerd"

    def forget_previous(self) -> None:
        shutil.rmtree(image_files.aside(self.folder), ignore_errors=True)

    def start(
        self,
        image: Path,
        *,
        binds: Sequence[tuple[Path, str]],
        network: str,
        prefix_length: int,
        gateway: str,
        extra: tuple[str, ...],
    ) -> None:
        options = InstanceOptions(
            image=image,
            overlay=self._overlay,
            binds=(*((self.folder / name, inside) for name, inside in _BINDS.items()), *binds),
            network=network,
            address=f"{self.address}/{prefix_length}",
            gateway=gateway,
            hostname=self.instance,
            extra=extra,
        )
        self.engine.start(self.instance, options)

    def wait_booted(self) -> None:
        from sykube.node import supervised

        pid = self._pid()
        deadline = self.host.monotonic() + _BOOT_TIMEOUT_S
        while not supervised.is_up(self.host, pid):
            if self.host.monotonic() > deadline or not (self.host.proc / str(pid)).exists():
                raise SykubeError(
                    f"the node {self.name} does not boot",
                    details=self.boot_log(),
                    resolution=f"Look at {self.host.logs}, or init again with --retain and "
                    "`sykube shell`.",
                )
            self.host.sleep(0.05)

    def kill(self) -> None:
        # On cgroup v1 a frozen process does not even end when it is killed.
        self.freeze(frozen=False)
        self.engine.kill(self.instance)
        cgroups.remove(self.host, self.instance)

    def remove(self) -> None:
        self.kill()
        for leftover in self.engine.leftovers(self.instance):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def freeze(self, *, frozen: bool) -> None:
        cgroups.freeze(self.host, self.instance, frozen=frozen)

    def is_running(self) -> bool:
        return bool(self.engine.instances(self.instance))

    def is_frozen(self) -> bool:
        return cgroups.is_frozen(self.host, self.instance)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        return self.engine.exec(
            self.instance, argv, stdin=stdin, timeout=timeout, check=check, secret=secret
        )

    def exec(self, argv: Sequence[str]) -> None:
        self.engine.replace_with_exec(self.instance, argv)

    def push(self, source: Path | bytes, path: str, *, shared: bool = False) -> None:
        target = self.pull(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")
        _remove(new)
        if isinstance(source, bytes):
            new.write_bytes(source)
        elif shared and source.is_file():
            os.link(source, new)
        else:
            self.host.run(["cp", "-a", *(["--link"] if shared else []), source, new])
        if new.is_dir():
            _remove(target)
        new.replace(target)
        # Of two links to one file, rename(2) removes none.
        new.unlink(missing_ok=True)

    def pull(self, path: str) -> Path:
        return self._bound(path) or self._overlay / "upper" / path.lstrip("/")

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        if not (file := self._bound(path)):
            super().write(path, text, mode)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text, int(mode, 8))

    def discard(self, path: str) -> None:
        if file := self._bound(path):
            _remove(file)
        else:
            super().discard(path)

    def services(self) -> dict[str, str]:
        from sykube.node import supervised  # Not above: most commands ask no supervisord.

        return supervised.states(self.host, self._pid())

    def stop_service(self, name: str) -> None:
        from sykube.node import supervised

        supervised.stop(self.host, self._pid(), name)

    def start_service(self, name: str) -> None:
        from sykube.node import supervised

        supervised.start(self.host, self._pid(), name)

    def log(self, service: str) -> LogFile | None:
        log = LogFile(self.folder / "log" / "sykube" / f"{service}.log")
        return log if log.parts() else None

    def boot_log(self) -> str:
        return self.engine.output(self.instance)

    def usage(self) -> Usage:
        return cgroups.usage(self.host, self.instance)

    def disk(self) -> dict[str, int]:
        found = dict.fromkeys((*_DISK.values(), "other"), 0)
        folders = [each for each in self.folder.glob("*") if each.is_dir()]
        for folder, size in self._sizes(folders).items():
            found[_DISK.get(folder, "other")] += size
        return found

    def overlay_usage(self) -> tuple[int, str]:
        upper = self._overlay / "upper"
        size = sum(self._sizes([upper] if upper.exists() else []).values())
        return size, f"du -xa {upper} | sort -n | tail"

    def exchange(self, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        return self.host.network.exchange(self._pid(), address, request, timeout)

    def link(self) -> str:
        file = self.host.proc / str(self._pid()) / "root/sys/class/net/eth0/iflink"
        return file.read_text(encoding="utf-8").strip() if file.exists() else ""

    def inherited(self) -> list[str]:
        first = process.started_by(self.host, self._pid(), self.processes())
        return list(process.inherited(self.host, first)) if first else []

    def processes(self) -> list[int]:
        found = cgroups.members(self.host, self.instance)
        return found or [pid for pid in [self._pid()] if pid]

    def lost_process(self) -> int:
        if self.is_running():
            return 0
        return process.first_of(self.host, cgroups.members(self.host, self.instance))

    @property
    def _overlay(self) -> Path:
        return self.folder / "overlay"

    def _bound(self, path: str) -> Path | None:
        """The place of a file that lies in one of the node's folders, where it runs or not."""
        for name, inside in _BINDS.items():
            if PurePosixPath(path).is_relative_to(inside):
                return self.folder / name / PurePosixPath(path).relative_to(inside)
        return None

    def _sizes(self, folders: Sequence[Path]) -> dict[str, int]:
        """Bytes that folders take, by their names."""
        if not folders:
            return {}
        # Files come and go while it counts.
        done = self.host.run(
            ["du", "-s", "-x", "--block-size=1", *folders], timeout=_DU_S, check=False
        )
        pairs = (line.split("\t", 1) for line in done.stdout.splitlines())
        return {Path(folder).name: int(size) for size, folder in pairs}

    def _pid(self) -> int:
        """Its first process, seen from the host; 0 where it does not run."""
        running = self.engine.instances(self.instance).get(self.instance)
        return running.pid if running else 0


def found(host: Host, cluster: str) -> list[str]:
    """The instances of a cluster whose files are on this host, whatever its record says."""
    nodes = ClusterPaths(host, cluster).root / "nodes"
    return sorted(folder.name for folder in nodes.glob(f"{cluster}-*"))


def forget_addresses(host: Host, engine: Engine, network: str) -> None:
    """Remove what libcni notes of instances, which a killed engine or a reboot leaves behind.

    Instances that run keep theirs.
    """
    running = {instance.pid for instance in engine.instances().values()}
    ours = re.compile(rf"{re.escape(network)}-(\d+)-eth0")
    for file in (host.cni_state / "results").glob("*"):
        match = ours.fullmatch(file.name)
        if match and int(match[1]) not in running:
            file.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
