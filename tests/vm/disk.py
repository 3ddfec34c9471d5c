"""The guest's two disks: Debian 13, which is cached, and the data of one run."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.rootless import unpacked
from tests.upstream import mirror
from tests.vm import cache
from tests.vm.scenario import FIRST_SUBORDINATE, HERE, USER_ID, Scenario
from tests.vm.tools import VmError, run, say

CHECKOUT = HERE.parent.parent
ROOT_LABEL = "vm-root"
DATA_LABEL = "vm-data"
_FSTAB = f"LABEL={ROOT_LABEL} / ext4 defaults 0 1\nLABEL={DATA_LABEL} /vm ext4 defaults 0 2\n"

_PYTHON = "3.13"
_ROOT_SIZE = "12G"
_DATA_SPARE_BYTES = 1_000_000_000
# A machine with systemd that people log in to, and what sykube's documentation asks for.
_PACKAGES = (
    "ca-certificates",
    "containernetworking-plugins",
    "dbus",
    "dbus-user-session",
    "debootstrap",
    "git",
    "iproute2",
    "iptables",
    "kmod",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "make",
    "nftables",
    "procps",
    "python3",
    "python3-venv",
    "slirp4netns",
    "squashfs-tools",
    "systemd-sysv",
    "udev",
    "uidmap",
)
# Timers that start and end services by themselves while the host is compared with itself.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
)
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
# What tests/e2e takes of pyproject.toml's `dev` to test runtimes. sykube runs without.
_FOR_TESTS = ("dnspython", "pytest")
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"
)


@dataclass(frozen=True)
class SystemDisk:
    """A folder of the cache with the disk image of Debian 13 and what boots it."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "root.ext4"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"


def system_disk() -> SystemDisk:
    """Debian 13 from the cache, or made now with mmdebstrap.

    Raises:
        VmError: a package could not be had, or the file system not be made.
    """
    unit = (HERE / "guest/sykube-vm.service").read_text()
    key = [cache.SUITE, _PACKAGES, _MASKED, _ROOT_SIZE, _FSTAB, unit]
    text = "Making the disk of Debian 13, about two minutes"
    return SystemDisk(cache.folder("system", key, text, _make_system))


def data_disk(target: Path, scenario: Scenario, image: Path) -> None:
    """Make the disk that holds sykube, its node image and the scenario.

    Raises:
        VmError: the private Apptainer is missing, or the file system could not be made.
    """
    apptainer = engines.private(Host())
    if not apptainer.exists():
        raise VmError(f"{apptainer.root} is missing: `sykube node-image build` sets it up")
    with tempfile.TemporaryDirectory(prefix="data-", dir=target.parent) as name:
        folder = Path(name)
        shutil.copytree(CHECKOUT, folder / "sykube", ignore=_NOT_COPIED, symlinks=True)
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        shutil.copytree(_wheels(project["dependencies"]), folder / "site-packages", symlinks=True)
        for_tests = _wheels(of_tests(project["optional-dependencies"]["dev"]))
        shutil.copytree(for_tests, folder / "test-packages", symlinks=True)
        _install_sykube(folder / "sykube", folder / "site-packages")
        shutil.copytree(apptainer.root, folder / "apptainer", symlinks=True)
        if scenario.users:
            _add_for_users(folder, image)
        else:
            run(["cp", "--reflink=auto", image, folder / "node.sif"], timeout=300)
        for file in (*sorted((HERE / "guest").iterdir()), *scenario.scripts()):
            shutil.copy(file, folder / file.name)
        (folder / "plan").write_text(scenario.plan())
        # Paths in the tree of Apptainer are absolute, so the guest's cache is where ours is.
        (folder / "environment").write_text(f"SYKUBE_CACHE_DIR={Host().cache}\n")
        used = sum(file.lstat().st_size for file in folder.rglob("*"))
        size = f"{(used + _DATA_SPARE_BYTES) // 1024}K"
        _make_file_system(target, folder, DATA_LABEL, size)


def _add_for_users(folder: Path, sif: Path) -> None:
    """Add a node image as root's cache has it, and as a user's sykube unpacks it.

    That takes the guest four minutes, and tells nothing of systemd.

    Raises:
        VmError: the image is in no cache.
    """
    if not (sif.parent / "complete").exists():
        raise VmError(f"{sif} is in no cache of sykube's, from which users take node images")
    name = sif.parent.name
    (folder / "node-images").mkdir()
    run(["cp", "-a", "--reflink=auto", sif.parent, folder / "node-images"], timeout=300)
    root = folder / "unpacked" / name
    root.parent.mkdir()
    unpacked.unpack(Host(), sif, root)
    for below, folders, files in os.walk(root):
        for each in (Path(below), *(Path(below, name) for name in (*folders, *files))):
            _give_to_user(each)


def _give_to_user(file: Path) -> None:
    """Let a file be of whom it is of in the user's namespace: sykube.rootless.ids."""
    found = file.lstat()
    if found.st_uid == USER_ID or found.st_uid >= FIRST_SUBORDINATE:
        return
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        # A user could make none.
        file.unlink()
        return
    ids = [FIRST_SUBORDINATE + each - 1 if each else USER_ID for each in found[4:6]]
    os.chown(file, *ids, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        # chown(2) takes the bits by which a program runs as its owner.
        file.chmod(stat.S_IMODE(found.st_mode))


def node_image() -> Path:
    """The SIF of the release in the folder of SYKUBE_TEST_RELEASE, or of Debian's source.

    That of Debian's is the one of this checkout in sykube's cache, the other is built if need be.

    Raises:
        VmError: the one of Debian's is not there.
    """
    if folders := mirror.folders():
        engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), say)
        with (
            tempfile.TemporaryDirectory(prefix="mirror-", dir=cache.base()) as name,
            mirror.running(Path(name), folders, plain=True) as running,
        ):
            return mirror.node_image(running)
    image = build.cached(Host(), versions.DEBIAN, apt.Mirror(""))
    if image is None:
        raise VmError(
            f"{Host().cache}/node-images lacks the node image of this checkout: `make node-image` "
            "makes it, --image FILE names another one"
        )
    return image.sif


def of_tests(dev: list[str]) -> list[str]:
    """What pytest needs in the guest, of the packages that pyproject.toml names for developers."""
    return [each for each in dev if re.split(r"[^\w-]", each)[0] in _FOR_TESTS]


def _make_system(work: Path) -> None:
    root = work / "root"
    left_out = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
    options = (
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in left_out),
        # Its own apt may not ask the mirror's name of anybody later on.
        "--customize-hook=rm -f $1/etc/apt/sources.list",
    )
    cache.debian(root, "minbase", _PACKAGES, *options)
    units = root / "etc/systemd/system"
    shutil.copy(HERE / "guest/sykube-vm.service", units)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "sykube-vm.service").symlink_to("../sykube-vm.service")
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (root / "etc/hostname").write_text("debian13\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 debian13\n")
    (root / "etc/fstab").write_text(_FSTAB)
    (root / "vm").mkdir()
    # There is no network: an address that refuses at once, as a stub resolver's would be.
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    for pattern, name in (("vmlinuz-*", "vmlinuz"), ("initrd.img-*", "initrd.img")):
        shutil.copy(next((root / "boot").glob(pattern)), work / name)
    _make_file_system(work / "root.ext4", root, ROOT_LABEL, _ROOT_SIZE)
    shutil.rmtree(root)


def _wheels(wanted: list[str]) -> Path:
    """Packages and what they need, for the guest's Python: from the cache, or by pip."""

    def make(work: Path) -> None:
        # Both, since a wheel may be tagged with the older or with the newer one.
        platforms = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
        options: list[str | Path] = [
            "--target",
            work,
            "--python-version",
            _PYTHON,
            "--only-binary=:all:",
        ]
        options += [f"--platform={platform}" for platform in platforms]
        run([*_PIP, "install", *options, *wanted], timeout=600)

    return cache.folder(
        "site-packages", [_PYTHON, wanted], f"Fetching packages for Python {_PYTHON}", make
    )


def _install_sykube(checkout: Path, site_packages: Path) -> None:
    """Install sykube from its wheel, as a user's pip would; a checkout hides what that lacks."""
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=checkout.parent) as name:
        run([*_PIP, "wheel", "--no-deps", "--wheel-dir", name, checkout], timeout=300)
        wheels = Path(name).glob("*.whl")
        run([*_PIP, "install", "--no-deps", "--target", site_packages, *wheels], timeout=300)


def _make_file_system(target: Path, folder: Path, label: str, size: str) -> None:
    command = ["mkfs.ext4", "-q", "-F", "-L", label, "-E", "lazy_itable_init=0", "-m", "0"]
    run([*command, "-d", folder, target, size], timeout=600)
