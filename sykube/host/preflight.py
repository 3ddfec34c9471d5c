"""What the host has and lacks, each finding with its cure."""

from __future__ import annotations

import enum
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import HostError, UsageError
from sykube.host import apt, capabilities, provision
from sykube.host.records import read_sysctl
from sykube.host.run import CommandError, run

# Program → the Debian package that brings it.
_PROGRAMS = {
    "ip": "iproute2",
    "iptables": "iptables",
    "sysctl": "procps",
    "mount": "mount",
    "modprobe": "kmod",
}
_BUILD_PROGRAMS = {
    "debootstrap": "debootstrap",
    "mksquashfs": "squashfs-tools",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
_CNI_PLUGINS = Path("/usr/lib/cni")
_FILE_SYSTEMS = {"overlay": "overlay", "squashfs": "squashfs"}
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")

# Measured for a node with the control plane and for a worker (docs/benchmarks.md), with room.
_MASTER_MEMORY_MB = 1100
_WORKER_MEMORY_MB = 500
_NODE_DISK_MB = 1000
_BUILD_DISK_MB = 8000


class Level(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """One thing about the host.

    Attributes:
        cure: a command, or what to ask the administrator for; empty when all is well.
        packages: Debian packages that cure it.
    """

    what: str
    level: Level
    detail: str
    cure: str = ""
    packages: tuple[str, ...] = ()


def _ok(what: str, detail: str) -> Finding:
    return Finding(what, Level.OK, detail)


def _failure(what: str, detail: str, cure: str, *packages: str) -> Finding:
    return Finding(what, Level.FAILURE, detail, cure, packages)


def check_identity() -> None:
    """Refuse what no cure helps: a foreign processor, a user who is not root.

    Raises:
        HostError: the processor is neither x86-64 nor arm64.
        UsageError: this process is not root's.
    """
    machine = os.environ.get("SYKUBE_TEST_MACHINE") or os.uname().machine
    if machine not in provision.TRIPLETS:
        raise HostError(
            f"the processor of this machine ({machine}) is not supported",
            resolution="Use a machine with an x86-64 or arm64 processor.",
        )
    if os.geteuid() != 0:
        raise UsageError(
            "this needs root: nodes mount file systems and have networks of their own",
            resolution="Run the same command with sudo.",
        )


def examine(*, nodes: int, data: Path, cache: Path, building: bool) -> list[Finding]:
    """Look at everything that a cluster of so many nodes needs.

    Args:
        nodes: how many are to be made; 0 where all of them are there.
        data: folder that the cluster will be in.
        cache: folder that images are built in.
        building: whether a node image has to be built first.
    """
    findings = [_programs(_PROGRAMS), _cni_plugins()]
    if building:
        findings += [_programs(_BUILD_PROGRAMS), _keyring()]
        findings.append(_disk("disk for building", cache, _BUILD_DISK_MB))
    findings += [*_file_systems(), _capabilities(), _cgroups(), _inotify(), _namespaces()]
    if nodes:
        findings.append(_memory(_MASTER_MEMORY_MB + (nodes - 1) * _WORKER_MEMORY_MB))
        findings.append(_disk("disk for nodes", data, nodes * _NODE_DISK_MB))
    return findings


def examine_for_workers(count: int, data: Path) -> list[Finding]:
    """Look at what further workers need beside a cluster that runs."""
    return [
        _memory(count * _WORKER_MEMORY_MB),
        _disk("disk for nodes", data, count * _NODE_DISK_MB),
    ]


def missing_packages(findings: list[Finding]) -> tuple[str, ...]:
    """Debian packages that would cure findings."""
    return tuple(sorted({package for finding in findings for package in finding.packages}))


def require(findings: list[Finding], *, downloading: bool = True) -> None:
    """Stop at failures.

    Args:
        downloading: whether `sykube init --yes` would install packages.

    Raises:
        HostError: lists each failure with its cure.
    """
    failures = [finding for finding in findings if finding.level is Level.FAILURE]
    if not failures:
        return
    packages = missing_packages(failures)
    cures = [finding.cure for finding in failures if not finding.packages]
    if packages:
        by_hand = f"apt-get install -y {' '.join(packages)}"
        cures.insert(0, f"sykube init --yes, or: {by_hand}" if downloading else by_hand)
    raise HostError(
        "this host is not ready for a cluster",
        details="\n".join(f"{finding.what}: {finding.detail}" for finding in failures),
        resolution="\n  ".join(cures),
    )


def install(packages: tuple[str, ...], on_line: object = None) -> None:
    """Install Debian packages on the host.

    Raises:
        HostError: apt-get failed; holds its output.
    """
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    try:
        run(["apt-get", "-q", "update"], env=environment, timeout=600)
        run(command, env=environment, timeout=1200)
    except CommandError as error:
        raise HostError(
            f"could not install {' '.join(packages)}",
            details=error.details,
            resolution=f"Ask the administrator for: apt-get install -y {' '.join(packages)}",
        ) from error


def _programs(programs: dict[str, str]) -> Finding:
    search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [name for name in programs if not shutil.which(name, path=search)]
    if not missing:
        return _ok("programs", ", ".join(programs))
    packages = sorted({programs[name] for name in missing})
    return _failure(
        "programs",
        f"missing: {', '.join(missing)}",
        f"apt-get install -y {' '.join(packages)}",
        *packages,
    )


def _cni_plugins() -> Finding:
    missing = [name for name in ("bridge", "static") if not (_CNI_PLUGINS / name).exists()]
    if not missing:
        return _ok("CNI plugins", str(_CNI_PLUGINS))
    return _failure(
        "CNI plugins",
        f"missing in {_CNI_PLUGINS}: {', '.join(missing)}",
        "apt-get install -y containernetworking-plugins",
        "containernetworking-plugins",
    )


def _keyring() -> Finding:
    if apt.KEYRING.is_file():
        return _ok("Debian's keys", str(apt.KEYRING))
    return _failure(
        "Debian's keys",
        f"{apt.KEYRING} is missing, which signatures are checked with",
        "apt-get install -y debian-archive-keyring",
        "debian-archive-keyring",
    )


def _file_systems() -> list[Finding]:
    findings = []
    for name, module in _FILE_SYSTEMS.items():
        known = Path("/proc/filesystems").read_text().split()
        if name in known or run(["modprobe", module], check=False).ok:
            findings.append(_ok(f"kernel: {name}", "there"))
        else:
            findings.append(
                _failure(
                    f"kernel: {name}",
                    "this kernel has no such file system",
                    f"Ask the administrator for: modprobe {module}",
                )
            )
    return findings


def _capabilities() -> Finding:
    missing = capabilities.REQUIRED - capabilities.names(capabilities.effective())
    if not missing:
        return _ok("capabilities", "all that nodes need")
    return _failure(
        "capabilities",
        f"root lacks {', '.join(sorted(missing))}",
        "Run sykube where root has them: not in an unprivileged container.",
    )


def _cgroups() -> Finding:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        version, present = 2, (root / "cgroup.controllers").read_text().split()
    else:
        version = 1
        present = [name for name in _CONTROLLERS if (root / name / "tasks").exists()]
    missing = [name for name in _CONTROLLERS if name not in present]
    if not missing and os.access(root, os.W_OK):
        return _ok("cgroups", f"version {version}")
    return _failure(
        "cgroups",
        f"version {version}, missing controllers: {', '.join(missing) or 'not writable'}",
        "Boot with cgroup_enable=memory, or run sykube where /sys/fs/cgroup can be written.",
    )


def _inotify() -> Finding:
    instances = read_sysctl("fs/inotify/max_user_instances") or "0"
    return _ok("inotify", f"{instances} instances for each user; init raises it where it is low")


def _namespaces() -> Finding:
    missing = [
        name for name in ("mnt", "pid", "net", "uts", "ipc", "cgroup")
        if not Path(f"/proc/self/ns/{name}").exists()
    ]  # fmt: skip
    if not missing:
        return _ok("namespaces", "mount, pid, network, uts, ipc, cgroup")
    return _failure(
        "namespaces", f"this kernel lacks {', '.join(missing)}", "Use a kernel that has them."
    )


def _memory(needed_mb: int) -> Finding:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    available = int(fields["MemAvailable"].split()[0]) // 1024
    detail = f"{available} MB available, about {needed_mb} MB needed"
    if available >= needed_mb:
        return _ok("memory", detail)
    return _failure("memory", detail, "Take fewer --workers, or end other programs.")


def _disk(what: str, folder: Path, needed_mb: int) -> Finding:
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free // 1_000_000
    detail = f"{free} MB free in {place}, about {needed_mb} MB needed"
    if free >= needed_mb:
        return _ok(what, detail)
    cure = "Free some space, or take another folder: --dest for nodes, SYKUBE_CACHE_DIR for images."
    return _failure(what, detail, cure)
