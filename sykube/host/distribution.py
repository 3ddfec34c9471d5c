"""Linux distributions: the names of the packages that sykube needs, and how to install them.

Sources of the names, looked up in November 2026 (docs/hosts.md says what was seen to work): the
package searches of Debian, Ubuntu and Fedora with EPEL (https://packages.fedoraproject.org),
Fedora's debian-keyring.spec and iptables.spec, and dist/rpm/apptainer.spec.in of
github.com/apptainer/apptainer, whose package brings CNI plugins of its own.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host

# What is no program on PATH, by the name that it has in the tables below.
CNI_PLUGINS = "CNI plugins"
DEBIAN_KEYS = "Debian's keys"
APPTAINER = "apptainer"
USER_BUS = "a D-Bus for each user"


class Manager(enum.Enum):
    """What installs packages."""

    APT = "apt-get"
    DNF = "dnf"
    OTHER = ""


_APT_PACKAGES = {
    "ip": "iproute2",
    "iptables": "iptables",
    "sysctl": "procps",
    "mount": "mount",
    "modprobe": "kmod",
    "debootstrap": "debootstrap",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "slirp4netns": "slirp4netns",
    "newuidmap": "uidmap",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "gzip": "gzip",
    "zstd": "zstd",
    CNI_PLUGINS: "containernetworking-plugins",
    DEBIAN_KEYS: "debian-archive-keyring",
    USER_BUS: "dbus-user-session",
}
_DNF_PACKAGES = {
    "ip": "iproute",
    "iptables": "iptables-nft",
    "sysctl": "procps-ng",
    "mount": "util-linux",
    "modprobe": "kmod",
    "debootstrap": "debootstrap",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "slirp4netns": "slirp4netns",
    "newuidmap": "shadow-utils",
    "gzip": "gzip",
    "zstd": "zstd",
    CNI_PLUGINS: "apptainer",
    DEBIAN_KEYS: "debian-keyring",
    APPTAINER: "apptainer",
    USER_BUS: "dbus-daemon",
}
# Of these, Enterprise Linux itself has none.
_IN_EPEL = frozenset({"apptainer", "debian-keyring", "debootstrap"})
_EPEL_GUIDE = "https://docs.fedoraproject.org/en-US/epel/getting-started/"


@dataclass(frozen=True)
class Distribution:
    """The distribution of a host.

    Attributes:
        name: for people, such as "Rocky Linux 9.4 (Blue Onyx)".
        id: os-release's ID, such as rocky; see os-release(5).
        manager: what installs packages.
        enterprise: whether it is Enterprise Linux or a rebuild of it.
        has_epel: whether Fedora's packages for Enterprise Linux are set up.
    """

    name: str
    id: str
    manager: Manager
    enterprise: bool = False
    has_epel: bool = False

    @property
    def can_unpack_debian(self) -> bool:
        """Whether it has apt and dpkg, which a private Apptainer is downloaded and unpacked by."""
        return self.manager is Manager.APT

    def packages(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Packages that bring programs and other things; nothing for what it has no package of."""
        names: Mapping[str, str] = {
            Manager.APT: _APT_PACKAGES,
            Manager.DNF: _DNF_PACKAGES,
            Manager.OTHER: {},
        }[self.manager]
        return tuple(sorted({names[each] for each in wanted if each in names}))

    def installation(self, packages: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """The commands that install packages, without questions; none where they are not known."""
        wanted = tuple(packages)
        if self.manager is Manager.APT:
            return (
                ("apt-get", "-q", "update"),
                ("apt-get", "install", "-q", "-y", "--no-install-recommends", *wanted),
            )
        if self.manager is Manager.OTHER or (self._lacks_epel(wanted) and self.id == "rhel"):
            return ()
        epel = (("dnf", "install", "-y", "epel-release"),) if self._lacks_epel(wanted) else ()
        return (*epel, ("dnf", "install", "-y", "--setopt=install_weak_deps=False", *wanted))

    def fix(self, wanted: Iterable[str]) -> str:
        """What to type, or to ask the administrator for, where programs or things are missing."""
        things = tuple(wanted)
        packages = self.packages(things)
        unknown = [each for each in things if not self.packages([each])]
        parts = [self.command(packages)] if packages else []
        if unknown:
            parts.append(f"install what brings {', '.join(unknown)} on {self.name}")
        return "; ".join(parts)

    def command(self, packages: Iterable[str]) -> str:
        """The command that installs packages, as a person types it."""
        wanted = tuple(packages)
        install = f"{self.manager.value} install -y {' '.join(wanted)}"
        if not self._lacks_epel(wanted):
            return install
        if self.id == "rhel":
            return f"set up EPEL ({_EPEL_GUIDE}), then: {install}"
        return f"dnf install -y epel-release && {install}"

    @property
    def kernel_modules(self) -> str:
        """The command that brings kernel modules that a small installation goes without."""
        if self.id == "ubuntu":
            return "apt-get install -y linux-modules-extra-$(uname -r)"
        return "dnf install -y kernel-modules-$(uname -r)" if self.manager is Manager.DNF else ""

    def _lacks_epel(self, packages: Iterable[str]) -> bool:
        return self.enterprise and not self.has_epel and not _IN_EPEL.isdisjoint(packages)


def this(host: Host) -> Distribution:
    """The distribution of this host; one of no known package manager where it is unknown."""
    return read(host.etc / "os-release", host.etc / "yum.repos.d/epel.repo")


def read(file: Path, epel: Path) -> Distribution:
    """The distribution that an os-release is of, and whether it has the repository EPEL."""
    try:
        fields = _fields(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        fields = {}
    own = fields.get("ID", "linux")
    family = {own, *fields.get("ID_LIKE", "").split()}
    manager = Manager.OTHER
    if family & {"debian", "ubuntu"}:
        manager = Manager.APT
    elif family & {"fedora", "rhel", "centos"}:
        manager = Manager.DNF
    return Distribution(
        name=fields.get("PRETTY_NAME") or own,
        id=own,
        manager=manager,
        enterprise=own != "fedora" and bool(family & {"rhel", "centos"}),
        has_epel=epel.exists(),
    )


def _fields(text: str) -> dict[str, str]:
    """Assignments of a shell, which os-release(5) consists of.

    Not by platform.freedesktop_os_release, which reads no file but the running system's own.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            try:
                fields[name] = "".join(shlex.split(value))
            except ValueError:
                fields[name] = value
    return fields
