"""Checks of the host; each finding comes with its fix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sykube.errors import HostError, UsageError
from sykube.host import (
    apt,
    capabilities,
    confinement,
    distribution,
    engines,
    granted,
    orphans,
    places,
    provision,
    space,
)
from sykube.host.distribution import Distribution
from sykube.host.engines import FoundEngine
from sykube.host.finding import Finding, Level
from sykube.host.finding import failure as _failure
from sykube.host.finding import ok as _ok
from sykube.host.finding import warning as _warning
from sykube.host.host import Host
from sykube.host.records import read_sysctl
from sykube.host.run import CommandError

_PROGRAMS = ("ip", "iptables", "sysctl", "mount", "modprobe")
_BUILD_PROGRAMS = ("debootstrap", "mksquashfs")
# By these a private Apptainer is downloaded and unpacked.
_APT_PROGRAMS = ("apt-get", "dpkg-deb")
_SCRIPTS = "usr/share/debootstrap/scripts"
# Releases that images are built of.
_SUITES = ("bookworm", "trixie")
# Debian signs what nodes are built from with this key and with that of Debian 13; older keyrings
# have neither. It stands in the keyring as plain text: RFC 9580, 5.11 (user ID packet).
_LEAST_KEY = b"Debian Archive Automatic Signing Key (12/bookworm)"
_FILE_SYSTEMS = {"overlay": "overlay", "squashfs": "squashfs"}
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")

# Measured for a node with the control plane and for a worker (docs/benchmarks.md), with room.
_MASTER_MEMORY_MB = 1100
_WORKER_MEMORY_MB = 500
_NODE_DISK_MB = 1000
_BUILD_DISK_MB = 8000
_ASK = "Ask the administrator for: "
_BUILT_BY_ROOT = "sykube node-image build"

_ENGINES = (
    "Apptainer 1.2 or later (https://apptainer.org/docs/admin/main/installation.html) or "
    "SingularityCE 4 or later (https://docs.sylabs.io/guides/latest/admin-guide/installation.html)"
)


def _missing(what: str, detail: str, system: Distribution, things: Iterable[str]) -> Finding:
    """A failure that packages of the host's distribution fix, where it has any."""
    wanted = tuple(things)
    return _failure(what, detail, system.fix(wanted), system.packages(wanted))


def check_host(
    host: Host,
    *,
    nodes: int,
    data: Path,
    cache: Path,
    building: bool,
    mirror: str | None = "",
    ephemeral: bool = False,
) -> list[Finding]:
    """Look at everything that a cluster of so many nodes needs.

    Args:
        nodes: how many are to be made; 0 where all of them are there.
        data: folder that the cluster will be in.
        cache: folder that images are built in.
        building: whether a node image has to be built first.
        mirror: the Debian mirror that was asked for (--mirror); None where nothing is asked for
            yet: a host that names none can still do with an image that was built elsewhere.
        ephemeral: whether the cluster's files are to be kept in memory.

    Raises:
        UsageError: SYKUBE_ENGINE names no engine that will do.
    """
    system = distribution.this(host)
    engine = engines.find(host)
    if host.grants.rootless:
        findings = [*granted.findings(host), _engine(host, system, engine)]
        if building and host.grants.users:
            findings += _asked_for(_building(host, system, cache, mirror))
        if nodes:
            findings += places.findings(host, data, ephemeral=ephemeral)
        return findings + _room(host, nodes, data)
    findings = [
        _programs(host, system, _PROGRAMS), _iptables(host, system), _engine(host, system, engine),
        _cni_plugins(host, system, engine),
    ]  # fmt: skip
    unpacking = engine is None and system.can_unpack_debian
    if building:
        findings += _building(host, system, cache, mirror)
    if unpacking:
        findings.append(_programs(host, system, _APT_PROGRAMS))
        if not building:
            findings += [_keyring(host, system), _mirror(host, mirror)]
    findings += [*_file_systems(host, system), _capabilities(host), _cgroups(host), _inotify(host)]
    findings += [
        _namespaces(host), _first_process(host),
        _confinement("SELinux", confinement.selinux(host)),
        _confinement("AppArmor", confinement.apparmor(host)),
    ]  # fmt: skip
    return findings + _room(host, nodes, data)


def _building(host: Host, system: Distribution, cache: Path, mirror: str | None) -> list[Finding]:
    """What it takes to build a node image."""
    return [
        _programs(host, system, _BUILD_PROGRAMS), _debootstrap(host),
        _disk(host, "disk for building", cache, _BUILD_DISK_MB), _keyring(host, system),
        _mirror(host, mirror),
    ]  # fmt: skip


def _asked_for(findings: list[Finding]) -> list[Finding]:
    """Findings as they are for a user, who installs no package."""
    return [
        replace(each, packages=(), cure=f"{_ASK}{each.cure}; or for: {_BUILT_BY_ROOT}")
        if each.packages
        else each
        for each in findings
    ]


def _room(host: Host, nodes: int, data: Path) -> list[Finding]:
    """Memory and disk for so many new nodes."""
    if not nodes:
        return []
    return [
        _memory(host, _MASTER_MEMORY_MB + (nodes - 1) * _WORKER_MEMORY_MB),
        _disk(host, "disk for nodes", data, nodes * _NODE_DISK_MB),
    ]


def check_for_workers(host: Host, count: int, data: Path) -> list[Finding]:
    """Look at what further workers need beside a cluster that runs."""
    return [
        _memory(host, count * _WORKER_MEMORY_MB),
        _disk(host, "disk for nodes", data, count * _NODE_DISK_MB),
    ]


def missing_packages(findings: list[Finding]) -> tuple[str, ...]:
    """Packages of this host's distribution that would fix findings."""
    return tuple(sorted({package for finding in findings for package in finding.packages}))


def require(host: Host, findings: list[Finding], *, downloading: bool = True) -> None:
    """Stop at failures.

    Args:
        downloading: whether `sykube init --yes` would install packages.

    Raises:
        HostError: lists each failure with its fix.
    """
    failures = [finding for finding in findings if finding.level is Level.FAILURE]
    if not failures:
        return
    packages = missing_packages(failures)
    cures = [finding.cure for finding in failures if not finding.packages]
    if packages:
        command = distribution.this(host).command(packages)
        can_install = downloading and distribution.this(host).installation(packages)
        cures.insert(0, f"sykube init --yes, or: {command}" if can_install else command)
    raise HostError(
        "this host is not ready for a cluster",
        details="\n".join(f"{finding.what}: {finding.detail}" for finding in failures),
        resolution="\n  ".join(cures),
    )


def install(host: Host, packages: tuple[str, ...]) -> None:
    """Install packages on the host, by its own package manager.

    Raises:
        HostError: it failed, and holds the output; or something has to be set up by hand first.
    """
    system = distribution.this(host)
    commands = system.installation(packages)
    cure = f"Ask the administrator for: {system.command(packages)}"
    if not commands:
        raise HostError(f"cannot install {' '.join(packages)} on {system.name}", resolution=cure)
    try:
        for command in commands:
            host.run(command, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=1200)
    except CommandError as error:
        raise HostError(
            f"could not install {' '.join(packages)}", details=error.details, resolution=cure
        ) from error


def _first_process(host: Host) -> Finding:
    left = orphans.unreaped(host)
    if not left:
        return _ok("process 1", "waits for what has ended")
    detail = f"it does not wait for what has ended, such as {left[0]}: nodes may not end"
    return _warning("process 1", detail, orphans.CURE)


def _programs(host: Host, system: Distribution, programs: tuple[str, ...]) -> Finding:
    missing = [name for name in programs if not host.which(name)]
    if not missing:
        return _ok("programs", ", ".join(programs))
    return _missing("programs", f"missing: {', '.join(missing)}", system, missing)


def _iptables(host: Host, system: Distribution) -> Finding:
    """Whether iptables and this kernel fit together: some kernels only have nftables' side."""
    if not host.which("iptables"):
        return _ok("packet filter", "looked at once iptables is there")
    version = host.run(["iptables", "--version"], check=False).stdout.strip()
    done = host.run(["iptables", "-w", "-t", "filter", "-S"], check=False)
    if done.ok:
        return _ok("packet filter", version)
    cure = "Ask the administrator for: modprobe nf_tables; modprobe nft_compat"
    if "(legacy)" in version:
        cure = "update-alternatives --set iptables /usr/sbin/iptables-nft"
    if system.kernel_modules:
        cure += f"; where that module is missing: {system.kernel_modules}"
    detail = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.code}"]
    return _failure("packet filter", f"{version or 'iptables'}: {detail[0]}", cure)


def _engine(host: Host, system: Distribution, engine: FoundEngine | None) -> Finding:
    if engine:
        return _ok("engine", f"{engine.version}, {engine.binary}: {engine.why}")
    passed = "; ".join(each.problem for each in engines.candidates(host) if each.problem)
    if system.can_unpack_debian:
        own = "init sets up a private Apptainer"
        if not passed:
            return _ok("engine", own)
        return _warning("engine", f"{passed}; {own}", f"For one of the host's own: {_ENGINES}")
    packages = system.packages([distribution.APPTAINER])
    return _failure(
        "engine",
        passed or "neither Apptainer nor SingularityCE is there",
        system.command(packages) if packages else f"Install one of these: {_ENGINES}",
        packages,
    )


def _cni_plugins(host: Host, system: Distribution, engine: FoundEngine | None) -> Finding:
    settings = provision.build_settings(host, engine.binary) if engine else {}
    folder = provision.cni_plugins(host, settings)
    if folder:
        return _ok("CNI plugins", str(folder))
    wanted = [distribution.CNI_PLUGINS]
    return _missing("CNI plugins", "bridge and static are missing", system, wanted)


def _debootstrap(host: Host) -> Finding:
    """Whether debootstrap is new enough for the releases that images are built of."""
    if not (host.root / _SCRIPTS).is_dir():
        return _ok("debootstrap", "looked at once it is there")
    missing = [suite for suite in _SUITES if not (host.root / _SCRIPTS / suite).exists()]
    if not missing:
        return _ok("debootstrap", f"knows {', '.join(_SUITES)}")
    links = " && ".join(f"ln -s sid {host.root / _SCRIPTS}/{suite}" for suite in missing)
    return _failure(
        "debootstrap", f"it is older than Debian's releases {', '.join(missing)}", links
    )


def _keyring(host: Host, system: Distribution) -> Finding:
    """Debian's keys, without which nothing may be built.

    debootstrap only warns where they are missing, and takes packages unchecked (functions,
    keyring()); the engines call it without --force-check-gpg
    (internal/pkg/build/sources/conveyorPacker_debootstrap.go).
    """
    things = [distribution.DEBIAN_KEYS]
    if not host.debian_keys.is_file():
        detail = f"{host.debian_keys} is missing, which signatures are checked with"
        return _missing("Debian's keys", detail, system, things)
    if _LEAST_KEY not in host.debian_keys.read_bytes():
        return _failure(
            "Debian's keys",
            f"{host.debian_keys} is older than Debian 12 and has no key of today's archive",
            f"A newer {' '.join(system.packages(things)) or 'debian-archive-keyring'}, "
            f"or that file of a Debian 12 or 13 machine, in its place",
        )
    for other in _keyrings_of_debootstrap(host):
        if not other.is_file():
            return _failure(
                "Debian's keys",
                f"debootstrap looks for them in {other}, and would check nothing without it",
                f"ln -s {host.debian_keys} {other}",
            )
    return _ok("Debian's keys", str(host.debian_keys))


def _keyrings_of_debootstrap(host: Host) -> set[Path]:
    """The files that its scripts name, where it is there."""
    scripts = [
        host.root / _SCRIPTS / suite
        for suite in _SUITES
        if (host.root / _SCRIPTS / suite).is_file()
    ]
    named = (
        re.findall(r"^keyring (\S+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        for file in scripts
    )
    return {Path(keyring) for found in named for keyring in found}


def _mirror(host: Host, wanted: str | None) -> Finding:
    what = "Debian mirror"
    try:
        return _ok(what, apt.find_mirror(host, wanted or "").main)
    except UsageError as error:
        if wanted is None:
            cure = f"{error.resolution} None is needed with --local-image FILE."
            return _warning(what, error.brief, cure)
        return _failure(what, error.brief, error.resolution)


def _file_systems(host: Host, system: Distribution) -> list[Finding]:
    findings = []
    modules = f"{system.kernel_modules} && " if system.kernel_modules else ""
    for name, module in _FILE_SYSTEMS.items():
        known = (host.proc / "filesystems").read_text(encoding="utf-8").split()
        if name in known or host.run(["modprobe", module], check=False).ok:
            findings.append(_ok(f"kernel: {name}", "there"))
        else:
            findings.append(
                _failure(
                    f"kernel: {name}",
                    "this kernel has no such file system",
                    f"Ask the administrator for: {modules}modprobe {module}",
                )
            )
    return findings


def _capabilities(host: Host) -> Finding:
    missing = capabilities.REQUIRED - capabilities.names(capabilities.effective(host))
    if not missing:
        return _ok("capabilities", "all that nodes need")
    return _failure(
        "capabilities",
        f"root lacks {', '.join(sorted(missing))}",
        "Run sykube where root has them: not in an unprivileged container.",
    )


def _cgroups(host: Host) -> Finding:
    root = host.cgroups
    if (root / "cgroup.controllers").exists():
        version, present = 2, (root / "cgroup.controllers").read_text(encoding="utf-8").split()
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


def _inotify(host: Host) -> Finding:
    instances = read_sysctl(host, "fs/inotify/max_user_instances") or "0"
    return _ok("inotify", f"{instances} instances for each user; init raises it where it is low")


def _namespaces(host: Host) -> Finding:
    missing = [
        name for name in ("mnt", "pid", "net", "uts", "ipc", "cgroup")
        if not (host.proc / "self/ns" / name).exists()
    ]  # fmt: skip
    if not missing:
        return _ok("namespaces", "mount, pid, network, uts, ipc, cgroup")
    return _failure(
        "namespaces", f"this kernel lacks {', '.join(missing)}", "Use a kernel that has them."
    )


def _confinement(what: str, trouble: confinement.Trouble | None) -> Finding:
    if trouble:
        return _warning(what, trouble.detail, trouble.fix)
    return _ok(what, "does not confine this process")


def available_memory(host: Host) -> int:
    """Bytes that the machine, or a user's batch job, has left."""
    fields = dict(
        line.split(":", 1)
        for line in (host.proc / "meminfo").read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if host.grants.job and host.grants.job.memory:
        available = min(available, host.grants.job.memory)
    return available


def _memory(host: Host, needed_mb: int) -> Finding:
    available = available_memory(host) // 1024**2
    detail = f"{available} MB available, about {needed_mb} MB needed"
    if available >= needed_mb:
        return _ok("memory", detail)
    return _failure("memory", detail, "Take fewer --workers, or end other programs.")


def _disk(host: Host, what: str, folder: Path, needed_mb: int) -> Finding:
    room = space.free(host, folder)
    detail = f"{room}, about {needed_mb} MB needed"
    if room.free >= needed_mb * 1_000_000:
        return _ok(what, detail)
    cure = "Free some space, or take another folder: --dest for nodes, SYKUBE_CACHE_DIR for images."
    return _failure(what, detail, cure)
