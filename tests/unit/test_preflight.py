"""What the host has and lacks, each finding with its cure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host import apt, capabilities, preflight
from sykube.host.preflight import Finding, Level
from sykube.host.run import CommandError, Completed
from tests.fakes import fill, host_path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has all that is looked for, below a folder; /proc and /sys are its own."""
    root = tmp_path / "host"
    monkeypatch.setattr(preflight, "Path", lambda *parts: host_path(root, *parts))
    monkeypatch.setattr(shutil, "which", lambda name, path="": f"/usr/bin/{name}")
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(preflight, "_CNI_PLUGINS", root / "usr/lib/cni")
    monkeypatch.setattr(apt, "KEYRING", root / "keyring.gpg")
    monkeypatch.setattr(capabilities, "effective", lambda: (1 << 41) - 1)
    monkeypatch.setattr(preflight, "run", lambda argv, **_: Completed(tuple(argv), 1, "", ""))
    fill(root, {"keyring.gpg": ""})
    fill(root / "usr/lib/cni", {"bridge": "", "static": ""})
    fill(root / "proc", {"filesystems": "nodev\toverlay\n\tsquashfs\n"})
    fill(root / "proc", {"meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"})
    fill(root / "sys/fs/cgroup", {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    names = ("mnt", "pid", "net", "uts", "ipc", "cgroup")
    fill(root / "proc/self/ns", dict.fromkeys(names, ""))
    return root


def examine(host: Path, nodes: int = 2, *, building: bool = True) -> list[Finding]:
    return preflight.examine(nodes=nodes, data=host / "d", cache=host / "c", building=building)


def failures(host: Path, nodes: int = 2) -> dict[str, Finding]:
    """Findings that are no good, but for the disk, which is this machine's own."""
    found = [f for f in examine(host, nodes) if f.level is not Level.OK]
    return {f.what: f for f in found if not f.what.startswith("disk")}


def test_a_host_that_has_everything(host: Path) -> None:
    assert failures(host) == {}
    for finding in examine(host):
        assert finding.detail


def test_missing_programs_name_their_packages(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ("iptables", "mksquashfs")
    monkeypatch.setattr(shutil, "which", lambda name, path="": None if name in missing else name)
    found = [f for f in examine(host) if f.level is Level.FAILURE and f.what == "programs"]
    assert [f.packages for f in found] == [("iptables",), ("squashfs-tools",)]
    assert preflight.missing_packages(found) == ("iptables", "squashfs-tools")
    # What only building needs is not asked for otherwise.
    found = [f for f in examine(host, building=False) if f.packages]
    assert preflight.missing_packages(found) == ("iptables",)


def test_missing_files_of_packages(host: Path) -> None:
    (host / "usr/lib/cni/static").unlink()
    (host / "keyring.gpg").unlink()
    found = failures(host)
    assert found["CNI plugins"].packages == ("containernetworking-plugins",)
    assert "static" in found["CNI plugins"].detail
    assert found["Debian's keys"].packages == ("debian-archive-keyring",)


def test_a_kernel_without_overlay(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(host / "proc", {"filesystems": "\tsquashfs\n"})
    assert "modprobe overlay" in failures(host)["kernel: overlay"].cure
    # A module that can be loaded is as good.
    monkeypatch.setattr(preflight, "run", lambda argv, **_: Completed(tuple(argv), 0, "", ""))
    assert failures(host) == {}


def test_root_of_an_unprivileged_container(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_admin = ((1 << 41) - 1) & ~(1 << 21)
    monkeypatch.setattr(capabilities, "effective", lambda: without_admin)
    assert failures(host)["capabilities"].detail == "root lacks CAP_SYS_ADMIN"


@pytest.mark.parametrize("version", [1, 2])
def test_a_host_without_a_controller(host: Path, version: int) -> None:
    root = host / "sys/fs/cgroup"
    if version == 2:
        fill(root, {"cgroup.controllers": "cpuset cpu pids\n"})
    else:
        (root / "cgroup.controllers").unlink()
        for name in ("cpu", "cpuset", "pids"):
            fill(root / name, {"tasks": ""})
    finding = failures(host)["cgroups"]
    assert f"version {version}" in finding.detail
    assert "memory" in finding.detail


def test_too_little_memory_for_so_many_nodes(host: Path) -> None:
    fill(host / "proc", {"meminfo": "MemAvailable: 2000000 kB\n"})
    assert failures(host, nodes=2) == {}
    finding = failures(host, nodes=9)["memory"]
    assert "1953 MB available" in finding.detail
    assert "--workers" in finding.cure


def test_too_little_disk(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    class Usage:
        free = 1_500_000_000

    def usage(place: Path) -> type[Usage]:
        asked.append(place)
        return Usage

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = {f.what: f for f in examine(host, nodes=1)}
    assert found["disk for building"].level is Level.FAILURE
    assert found["disk for nodes"].level is Level.OK
    assert {f.what: f for f in examine(host)}["disk for nodes"].level is Level.FAILURE
    # A folder that is still to be made is on the disk of the one above it.
    assert set(asked) == {host}


def test_every_failure_has_a_cure(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path="": None)
    monkeypatch.setattr(capabilities, "effective", lambda: 0)
    for name in ("static", "bridge"):
        (host / "usr/lib/cni" / name).unlink()
    fill(host / "proc", {"filesystems": "", "meminfo": "MemAvailable: 1 kB\n"})
    fill(host / "sys/fs/cgroup", {"cgroup.controllers": "\n"})
    (host / "proc/self/ns/cgroup").unlink()
    found = failures(host)
    assert len(found) >= 8
    assert all(finding.cure for finding in found.values())
    with pytest.raises(HostError) as raised:
        preflight.require(list(found.values()))
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    for finding in found.values():
        assert f"{finding.what}: {finding.detail}" in raised.value.details
        if not finding.packages:
            assert finding.cure in raised.value.resolution
    assert "apt-get install -y" in raised.value.resolution.splitlines()[0]


def test_warnings_stop_nothing() -> None:
    preflight.require([Finding("x", Level.WARNING, "y"), Finding("z", Level.OK, "")])


# --- who and where ---


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_root_on_a_known_processor(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setenv("SYKUBE_TEST_MACHINE", machine)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    preflight.check_identity()


def test_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root") as raised:
        preflight.check_identity()
    assert "sudo" in raised.value.resolution


def test_a_foreign_processor_is_said_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYKUBE_TEST_MACHINE", "riscv64")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="riscv64"):
        preflight.check_identity()


# --- installing ---


def test_packages_are_installed_without_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, object]]] = []

    def run(argv: list[str], **options: object) -> Completed:
        calls.append((argv, options))
        return Completed(tuple(argv), 0, "", "")

    monkeypatch.setattr(preflight, "run", run)
    preflight.install(("iptables", "kmod"))
    assert calls[0][0][-1] == "update"
    assert calls[1][0][-2:] == ["iptables", "kmod"]
    assert "-y" in calls[1][0]
    assert all(o["env"] == {"DEBIAN_FRONTEND": "noninteractive"} for _, o in calls)


def test_packages_that_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: object) -> Completed:
        raise CommandError("apt-get failed with exit code 100", argv, "E: Unable to locate")

    monkeypatch.setattr(preflight, "run", run)
    with pytest.raises(SykubeError, match="could not install iptables") as raised:
        preflight.install(("iptables",))
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    assert "Unable to locate" in raised.value.details
    assert "Ask the administrator for: apt-get install -y iptables" in raised.value.resolution
