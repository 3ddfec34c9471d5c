"""What the host has and lacks, each finding with its cure."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host import confinement, identity, preflight
from sykube.host.engines import FoundEngine
from sykube.host.finding import Finding, Level
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.run import CommandError, Completed
from tests.fakes import FakeHost, fill
from tests.fakes.host import give_capabilities

FIXTURES = Path(__file__).parent / "fixtures/os-release"
KEYRING = "usr/share/keyrings/debian-archive-keyring.gpg"
SCRIPTS = "usr/share/debootstrap/scripts"
KEYS = b"\xb4\x49Debian Archive Automatic Signing Key (12/bookworm) <x>"
ENGINE = FoundEngine(Path("/usr/bin/apptainer"), "apptainer 1.4.5", {}, "the first")


def become(root: Path, name: str, *, epel: bool = True) -> None:
    fill(root / "etc", {"os-release": (FIXTURES / name).read_text()})
    # It is looked at on Enterprise Linux only.
    fill(root / "etc/yum.repos.d", {"epel.repo": ""} if epel else {})


def with_engine(host: FakeHost, version: str) -> FakeHost:
    """Its Apptainer is of that version; empty for none."""
    programs = set() if version else {"apptainer"}
    return replace(
        host,
        run=answer(host.root, apptainer=version),
        which=lambda name: None if name in {"singularity", *programs} else f"/usr/bin/{name}",
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has all that is looked for, below a folder; /proc and /sys are its own."""
    root = tmp_path / "folder"
    become(root, "debian-12")
    monkeypatch.setenv("SYKUBE_MIRROR", "http://m.example/debian")
    give_capabilities(FakeHost(root), (1 << 41) - 1)
    fill(root / "usr/share/keyrings", {})
    (root / KEYRING).write_bytes(KEYS)
    script = f"variants - minbase\nkeyring {root}/{KEYRING}\n"
    fill(root / SCRIPTS, {"bookworm": script, "trixie": script})
    fill(root / "usr/lib/cni", {"bridge": "", "static": ""})
    fill(root / "proc", {"filesystems": "nodev\toverlay\n\tsquashfs\n"})
    fill(root / "proc", {"meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"})
    fill(root / "sys/fs/cgroup", {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    names = ("mnt", "pid", "net", "uts", "ipc", "cgroup")
    fill(root / "proc/self/ns", dict.fromkeys(names, ""))
    return root


@pytest.fixture
def host(folder: Path) -> FakeHost:
    return with_engine(FakeHost(folder), "1.4.5")


def answer(
    root: Path,
    modprobe: int = 1,
    iptables: Completed | None = None,
    version: str = "v1.8.9 (nf_tables)",
    apptainer: str = "1.4.5",
) -> Callable[..., Completed]:
    """Stands in for run."""

    def run(given: Sequence[str | Path], **_: Any) -> Completed:
        argv = [str(word) for word in given]
        if argv[0].endswith("apptainer") and argv[1:] == ["--version"]:
            return Completed(tuple(argv), 0, f"apptainer version {apptainer}\n", "")
        if argv[0].endswith("apptainer") and argv[1:] == ["buildcfg"]:
            return Completed(tuple(argv), 0, f"LIBEXECDIR={root}/usr\n", "")
        if argv == ["singularity", "--version"]:
            raise CommandError("could not find the program singularity", argv, "")
        if argv == ["iptables", "--version"]:
            return Completed(tuple(argv), 0, f"iptables {version}\n", "")
        if argv[0] == "iptables":
            return iptables or Completed(tuple(argv), 0, "-P INPUT ACCEPT\n", "")
        assert argv[0] == "modprobe", argv
        return Completed(tuple(argv), modprobe, "", "")

    return run


def examine(host: Host, folder: Path, nodes: int = 2, *, building: bool = True) -> list[Finding]:
    return preflight.check_host(
        host, nodes=nodes, data=folder / "d", cache=folder / "c", building=building
    )


def failures(host: Host, folder: Path, nodes: int = 2) -> dict[str, Finding]:
    """Findings that are no good, but for the disk, which is this machine's own."""
    found = [f for f in examine(host, folder, nodes) if f.level is not Level.OK]
    return {f.what: f for f in found if not f.what.startswith("disk")}


def test_a_host_that_has_everything(host: Host, folder: Path) -> None:
    assert failures(host, folder) == {}
    for finding in examine(host, folder):
        assert finding.detail


def test_missing_programs_name_their_packages(host: Host, folder: Path) -> None:
    missing = ("iptables", "mksquashfs")
    host = replace(host, which=lambda name: None if name in missing else name)
    found = [f for f in examine(host, folder) if f.level is Level.FAILURE and f.what == "programs"]
    assert [f.packages for f in found] == [("iptables",), ("squashfs-tools",)]
    assert preflight.missing_packages(found) == ("iptables", "squashfs-tools")
    # What only building needs is not asked for otherwise.
    found = [f for f in examine(host, folder, building=False) if f.packages]
    assert preflight.missing_packages(found) == ("iptables",)


def test_a_user_who_may_build_is_told_what_to_ask_for(host: Host, folder: Path) -> None:
    fill(folder / "dev/net", {"tun": ""})
    grants = Grants(rootless=True, user="ada", uid=1000)
    host = replace(host, grants=grants, which=lambda name: None if name == "debootstrap" else name)
    found = {f.cure for f in examine(host, folder) if "debootstrap" in f.detail + f.cure}
    assert found == {
        "Ask the administrator for: apt-get install -y debootstrap; or for: sykube node-image build"
    }
    # Where there is one user ID only, none is built.
    host = replace(host, grants=replace(grants, users=False))
    assert not [f for f in examine(host, folder) if "debootstrap" in f.detail + f.cure]


def test_missing_files_of_packages(host: Host, folder: Path) -> None:
    (folder / "usr/lib/cni/static").unlink()
    (folder / KEYRING).unlink()
    found = failures(host, folder)
    assert found["CNI plugins"].packages == ("containernetworking-plugins",)
    assert found["Debian's keys"].packages == ("debian-archive-keyring",)


def test_a_kernel_without_overlay(host: Host, folder: Path) -> None:
    fill(folder / "proc", {"filesystems": "\tsquashfs\n"})
    assert "modprobe overlay" in failures(host, folder)["kernel: overlay"].cure
    # A module that can be loaded is as good.
    host = replace(host, run=answer(folder, modprobe=0))
    assert failures(host, folder) == {}


def test_root_of_an_unprivileged_container(host: Host, folder: Path) -> None:
    without_admin = ((1 << 41) - 1) & ~(1 << 21)
    give_capabilities(host, without_admin)
    assert failures(host, folder)["capabilities"].detail == "root lacks CAP_SYS_ADMIN"


@pytest.mark.parametrize("version", [1, 2])
def test_a_host_without_a_controller(host: Host, folder: Path, version: int) -> None:
    root = folder / "sys/fs/cgroup"
    if version == 2:
        fill(root, {"cgroup.controllers": "cpuset cpu pids\n"})
    else:
        (root / "cgroup.controllers").unlink()
        for name in ("cpu", "cpuset", "pids"):
            fill(root / name, {"tasks": ""})
    finding = failures(host, folder)["cgroups"]
    assert f"version {version}" in finding.detail
    assert "memory" in finding.detail


def test_too_little_memory_for_so_many_nodes(host: Host, folder: Path) -> None:
    fill(folder / "proc", {"meminfo": "MemAvailable: 2000000 kB\n"})
    assert failures(host, folder, nodes=2) == {}
    finding = failures(host, folder, nodes=9)["memory"]
    assert "1953 MB available" in finding.detail
    assert "--workers" in finding.cure


def test_too_little_disk(host: Host, folder: Path) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> SimpleNamespace:
        asked.append(place)
        return SimpleNamespace(free=1_500_000_000, total=9_000_000_000)

    host = replace(host, disk_usage=usage)
    found = {f.what: f for f in examine(host, folder, nodes=1)}
    assert found["disk for building"].level is Level.FAILURE
    assert found["disk for nodes"].level is Level.OK
    assert {f.what: f for f in examine(host, folder)}["disk for nodes"].level is Level.FAILURE
    # A folder that is still to be made is on the disk of the one above it.
    assert set(asked) == {folder}


def test_every_failure_has_a_cure(host: Host, folder: Path) -> None:
    host = replace(host, which=lambda _: None)
    give_capabilities(host, 0)
    for name in ("static", "bridge"):
        (folder / "usr/lib/cni" / name).unlink()
    fill(folder / "proc", {"filesystems": "", "meminfo": "MemAvailable: 1 kB\n"})
    fill(folder / "sys/fs/cgroup", {"cgroup.controllers": "\n"})
    (folder / "proc/self/ns/cgroup").unlink()
    found = failures(host, folder)
    assert len(found) >= 8
    assert all(finding.cure for finding in found.values())
    with pytest.raises(HostError) as raised:
        preflight.require(host, list(found.values()))
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    for finding in found.values():
        assert f"{finding.what}: {finding.detail}" in raised.value.details
        if not finding.packages:
            assert finding.cure in raised.value.resolution
    assert "apt-get install -y" in raised.value.resolution.splitlines()[0]


def test_warnings_stop_nothing(host: Host) -> None:
    preflight.require(host, [Finding("x", Level.WARNING, "y"), Finding("z", Level.OK, "")])


# --- the host's distribution and its engine ---


@pytest.mark.parametrize(
    ("name", "cures"),
    [
        ("debian-13", ("apt-get install -y iptables", "apt-get install -y containernetworking-plugins",
                       "apt-get install -y debian-archive-keyring")),
        ("fedora-42", ("dnf install -y iptables-nft", "dnf install -y apptainer",
                       "dnf install -y debian-keyring")),
        ("arch", ("install what brings iptables on Arch Linux",
                  "install what brings CNI plugins on Arch Linux",
                  "install what brings Debian's keys on Arch Linux")),
    ],
)  # fmt: skip
def test_cures_are_right_for_the_host_at_hand(
    host: Host, folder: Path, name: str, cures: tuple[str, ...]
) -> None:
    become(host.root, name)
    host = replace(host, which=lambda each: None if each == "iptables" else each)
    (folder / "usr/lib/cni/static").unlink()
    (folder / KEYRING).unlink()
    found = failures(host, folder)
    assert tuple(found[what].cure for what in ("programs", "CNI plugins", "Debian's keys")) == cures
    with pytest.raises(HostError) as raised:
        preflight.require(host, list(found.values()))
    first = raised.value.resolution.splitlines()[0]
    assert first.startswith("sykube init --yes, or: ") == (name != "arch")
    if name == "fedora-42":
        assert first.endswith("dnf install -y apptainer debian-keyring iptables-nft")


def test_plugins_that_the_engine_brings_along_will_do(host: Host, folder: Path) -> None:
    shutil.rmtree(folder / "usr/lib/cni")
    assert "CNI plugins" in failures(host, folder)
    fill(folder / "usr/apptainer/cni", {"bridge": "", "static": ""})
    assert failures(host, folder) == {}


@pytest.mark.parametrize("name", ["debian-12", "ubuntu-22.04", "fedora-42", "rocky-9", "arch"])
@pytest.mark.parametrize("old", ["", "1.1.9"])
def test_a_host_without_an_engine_that_will_do(
    host: FakeHost, folder: Path, name: str, old: str
) -> None:
    become(host.root, name)
    host = with_engine(host, old)
    (finding,) = (each for each in examine(host, folder) if each.what == "engine")
    assert not old or f"/usr/bin/apptainer is apptainer version {old}" in finding.detail
    if name in ("debian-12", "ubuntu-22.04"):
        # A private one is set up, which takes nothing from the host's own.
        assert finding.level is (Level.WARNING if old else Level.OK)
        assert "private" in finding.detail
        assert bool(finding.cure) is bool(old)
        assert finding.packages == ()
    elif name == "arch":
        assert finding.level is Level.FAILURE
        assert "https://apptainer.org" in finding.cure
    else:
        assert finding.level is Level.FAILURE
        assert (finding.cure, finding.packages) == ("dnf install -y apptainer", ("apptainer",))


def test_the_engine_is_shown_with_its_place_and_the_reason(host: Host, folder: Path) -> None:
    (finding,) = (each for each in examine(host, folder) if each.what == "engine")
    assert finding.level is Level.OK
    assert finding.detail.startswith("apptainer 1.4.5, /usr/bin/apptainer: the first on /usr")


def test_what_a_private_apptainer_needs(
    host: FakeHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nothing is to be built."""
    monkeypatch.delenv("SYKUBE_MIRROR")
    (folder / KEYRING).unlink()

    def bad() -> set[str]:
        found = examine(host, folder, building=False)
        return {each.what for each in found if each.level is Level.FAILURE}

    assert bad() == set()
    host = with_engine(host, "")
    assert bad() == {"Debian's keys", "Debian mirror"}


def test_a_host_without_debian_sources(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(host.root, "fedora-42")
    assert failures(host, folder) == {}
    monkeypatch.delenv("SYKUBE_MIRROR")
    finding = failures(host, folder)["Debian mirror"]
    assert "no Debian mirror" in finding.detail
    assert finding.level is Level.FAILURE
    assert "--mirror" in finding.cure
    # doctor knows of no wish: an image of --local-image would need none.
    looked = preflight.check_host(
        host, nodes=2, data=folder, cache=folder, building=True, mirror=None
    )
    (finding,) = (each for each in looked if each.what == "Debian mirror")
    assert finding.level is Level.WARNING
    assert "--local-image" in finding.cure


def test_keys_that_are_older_than_what_is_built(host: Host, folder: Path) -> None:
    """Ubuntu 22.04 has such a package."""
    become(host.root, "ubuntu-22.04")
    (folder / KEYRING).write_bytes(KEYS.replace(b"12/bookworm", b"11/bullseye"))
    finding = failures(host, folder)["Debian's keys"]
    assert "older than Debian 12" in finding.detail
    assert "debian-archive-keyring" in finding.cure
    # Installing the same again cures nothing.
    assert finding.packages == ()


def test_a_debootstrap_that_looks_for_keys_elsewhere(host: Host, folder: Path) -> None:
    """It would go on without them, and check nothing."""
    fill(folder / SCRIPTS, {"trixie": f"keyring {folder}/keyring.pgp\n"})
    finding = failures(host, folder)["Debian's keys"]
    assert f"{folder}/keyring.pgp" in finding.detail
    assert finding.cure == f"ln -s {folder}/{KEYRING} {folder}/keyring.pgp"
    (folder / "keyring.pgp").symlink_to(folder / KEYRING)
    assert failures(host, folder) == {}


def test_a_debootstrap_that_is_older_than_what_is_built(host: Host, folder: Path) -> None:
    (folder / SCRIPTS / "trixie").unlink()
    finding = failures(host, folder)["debootstrap"]
    assert "trixie" in finding.detail
    assert "bookworm" not in finding.cure
    assert finding.cure == f"ln -s sid {folder}/{SCRIPTS}/trixie"


# --- packet filters and other guards ---


@pytest.mark.parametrize(
    ("version", "cure"),
    [
        ("v1.8.9 (nf_tables)", "modprobe nf_tables"),
        ("v1.8.10 (legacy)", "update-alternatives --set iptables /usr/sbin/iptables-nft"),
    ],
)
def test_a_kernel_that_iptables_does_not_fit(
    host: Host, folder: Path, version: str, cure: str
) -> None:
    said = "modprobe: FATAL: Module ip_tables not found.\niptables: can't initialize table `filter'"
    failed = Completed(("iptables",), 3, "", said)
    host = replace(host, run=answer(folder, iptables=failed, version=version))
    finding = failures(host, folder)["packet filter"]
    assert version in finding.detail
    assert "can't initialize" in finding.detail
    assert cure in finding.cure
    become(host.root, "ubuntu-24.04")
    assert "linux-modules-extra" in failures(host, folder)["packet filter"].cure


def test_a_confined_root_is_warned(host: Host, folder: Path) -> None:
    fill(folder / "sys/fs/selinux", {"enforce": "1"})
    fill(folder / "sys/module/apparmor/parameters", {"enabled": "Y\n"})
    fill(folder / "proc/self/attr", {"current": "system_u:system_r:container_t:s0\n"})
    fill(folder / "proc/self/attr/apparmor", {"current": "docker-default (enforce)\n"})
    found = failures(host, folder)
    for trouble, what in ((confinement.selinux, "SELinux"), (confinement.apparmor, "AppArmor")):
        expected = trouble(host)
        assert expected
        finding = found[what]
        assert (finding.level, finding.detail) == (Level.WARNING, expected.detail)
        assert finding.cure == expected.fix


# --- who and where ---


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_root_on_a_known_processor(
    host: Host, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setenv("SYKUBE_TEST_MACHINE", machine)
    identity.check(host)


def test_another_user(host: Host) -> None:
    host = replace(host, user=lambda: 1000)
    with pytest.raises(UsageError, match="needs root") as raised:
        identity.check(host)
    assert "sudo" in raised.value.resolution


def test_a_foreign_processor_is_said_before_all_else(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_TEST_MACHINE", "riscv64")
    host = replace(host, user=lambda: 1000)
    with pytest.raises(HostError, match="riscv64"):
        identity.check(host)


# --- installing ---


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("debian-12", [["apt-get", "update"], ["apt-get", "iptables", "kmod"]]),
        ("ubuntu-24.04", [["apt-get", "update"], ["apt-get", "iptables", "kmod"]]),
        ("fedora-42", [["dnf", "iptables", "kmod"]]),
    ],
)
def test_packages_are_installed_without_questions(
    host: Host, name: str, commands: list[list[str]]
) -> None:
    calls: list[tuple[list[str], dict[str, object]]] = []

    def run(argv: Sequence[str | Path], **options: Any) -> Completed:
        words = [str(word) for word in argv]
        calls.append((words, options))
        return Completed(tuple(words), 0, "", "")

    become(host.root, name)
    host = replace(host, run=run)
    preflight.install(host, ("iptables", "kmod"))
    shown = [
        [argv[0], *(w for w in argv if w in ("update", "iptables", "kmod"))] for argv, _ in calls
    ]
    assert shown == commands
    assert "-y" in calls[-1][0]
    assert all(o["env"] == {"DEBIAN_FRONTEND": "noninteractive"} for _, o in calls)


def test_packages_that_cannot_be_installed(host: Host) -> None:
    def run(argv: Sequence[str | Path], **_: Any) -> Completed:
        raise CommandError(
            "apt-get failed with exit code 100", list(map(str, argv)), "E: Unable to locate"
        )

    become(host.root, "debian-12")
    host = replace(host, run=run)
    with pytest.raises(SykubeError, match="could not install iptables") as raised:
        preflight.install(host, ("iptables",))
    assert raised.value.exit_code is ExitCode.HOST_NOT_READY
    assert "Unable to locate" in raised.value.details
    assert "Ask the administrator for: apt-get install -y iptables" in raised.value.resolution


def test_packages_that_need_a_repository_first(host: Host) -> None:
    (host.etc / "yum.repos.d/epel.repo").unlink()
    become(host.root, "rhel-9", epel=False)
    with pytest.raises(HostError, match="cannot install debootstrap on Red Hat") as raised:
        preflight.install(host, ("debootstrap",))
    assert "EPEL" in raised.value.resolution


def test_a_first_process_that_waits_for_nobody_is_a_warning(host: Host, folder: Path) -> None:
    assert {each.what: each for each in examine(host, folder)}["process 1"].level is Level.OK
    fill(folder / "proc/16", {"stat": "16 (a child of another's) Z 15 1 1\n"})
    fill(folder / "proc/17", {"stat": "17 (a ) name) Z 1 1 1\n"})
    still = replace(host, sleep=lambda _: None)
    found = {each.what: each for each in examine(still, folder)}["process 1"]
    assert (found.level, "such as 17" in found.detail) == (Level.WARNING, True)
    assert "docker run --init" in found.cure
    # It had just ended, and was waited for in that moment.
    later = replace(host, sleep=lambda _: shutil.rmtree(folder / "proc/17"))
    assert {each.what: each for each in examine(later, folder)}["process 1"].level is Level.OK
