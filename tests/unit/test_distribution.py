"""How distributions call what sykube needs, from their own os-release."""

from __future__ import annotations

from pathlib import Path

import pytest

from sykube.host import distribution
from sykube.host.distribution import APPTAINER, CNI_PLUGINS, DEBIAN_KEYS, Distribution, Manager

FIXTURES = Path(__file__).parent / "fixtures/os-release"
PROGRAMS = ("ip", "iptables", "sysctl", "mount", "modprobe", "debootstrap", "mksquashfs")
APT = ["debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"]
DNF = ["fedora-42", "rocky-9", "rhel-9"]


def read(name: str, *, epel: bool = False) -> Distribution:
    return distribution.read(FIXTURES / name, FIXTURES if epel else FIXTURES / "absent")


def test_every_fixture_is_tested() -> None:
    assert {file.name for file in FIXTURES.iterdir()} == {*APT, *DNF, "arch"}


@pytest.mark.parametrize("name", APT)
def test_debian_and_ubuntu(name: str) -> None:
    host = read(name)
    assert host.manager is Manager.APT
    assert host.can_unpack_debian
    assert host.packages([*PROGRAMS, CNI_PLUGINS, DEBIAN_KEYS]) == (
        "containernetworking-plugins",
        "debian-archive-keyring",
        "debootstrap",
        "iproute2",
        "iptables",
        "kmod",
        "mount",
        "procps",
        "squashfs-tools",
    )
    assert host.fix(["iptables", "ip"]) == "apt-get install -y iproute2 iptables"
    assert host.installation(["kmod"]) == (
        ("apt-get", "-q", "update"),
        ("apt-get", "install", "-q", "-y", "--no-install-recommends", "kmod"),
    )
    assert ("linux-modules-extra" in host.kernel_modules) == name.startswith("ubuntu")


@pytest.mark.parametrize("name", DNF)
def test_fedora_and_enterprise_linux(name: str) -> None:
    host = read(name, epel=True)
    assert host.manager is Manager.DNF
    assert not host.can_unpack_debian
    assert host.packages([*PROGRAMS, CNI_PLUGINS, DEBIAN_KEYS, APPTAINER]) == (
        "apptainer",
        "debian-keyring",
        "debootstrap",
        "iproute",
        "iptables-nft",
        "kmod",
        "procps-ng",
        "squashfs-tools",
        "util-linux",
    )
    assert host.fix(["debootstrap"]) == "dnf install -y debootstrap"
    ((program, *words),) = host.installation(["kmod"])
    assert program == "dnf"
    assert words[-1] == "kmod"
    assert "-y" in words
    assert host.kernel_modules.startswith("dnf install -y kernel-modules")


def test_what_enterprise_linux_has_in_epel_alone() -> None:
    rocky, rhel = read("rocky-9"), read("rhel-9")
    assert rocky.fix(["iptables"]) == "dnf install -y iptables-nft"
    assert rocky.fix(["iptables", "debootstrap"]) == (
        "dnf install -y epel-release && dnf install -y debootstrap iptables-nft"
    )
    commands = rocky.installation(["debootstrap"])
    assert [command[-1] for command in commands] == ["epel-release", "debootstrap"]
    # Red Hat's own repositories have no such package.
    assert rhel.fix(["debootstrap"]).startswith("set up EPEL (https://")
    assert rhel.fix(["debootstrap"]).endswith("dnf install -y debootstrap")
    assert rhel.installation(["debootstrap"]) == ()
    assert rhel.installation(["kmod"]) != ()
    assert read("fedora-42").fix(["debootstrap"]) == "dnf install -y debootstrap"


def test_an_unknown_distribution_is_told_what_is_missing(tmp_path: Path) -> None:
    host = read("arch")
    assert host.manager is Manager.OTHER
    assert host.packages(PROGRAMS) == ()
    assert host.installation(["iptables"]) == ()
    assert host.fix(["ip", "mksquashfs"]) == "install what brings ip, mksquashfs on Arch Linux"
    nothing = distribution.read(tmp_path / "absent", tmp_path / "absent")
    assert (nothing.name, nothing.manager) == ("linux", Manager.OTHER)


def test_what_a_distribution_has_no_package_of_is_said_beside_the_others() -> None:
    assert read("debian-12").fix(["ip", "sorcery"]) == (
        "apt-get install -y iproute2; install what brings sorcery on Debian GNU/Linux 12 (bookworm)"
    )


@pytest.mark.parametrize(
    ("text", "name", "manager"),
    [
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "linuxmint", Manager.APT),
        ("# comment\nID='raspbian'\nID_LIKE=debian\n", "raspbian", Manager.APT),
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\n', "almalinux", Manager.DNF),
        ('PRETTY_NAME="broken\nID=debian\n', '"broken', Manager.APT),
    ],
)
def test_relatives_and_odd_files(tmp_path: Path, text: str, name: str, manager: Manager) -> None:
    (tmp_path / "os-release").write_text(text)
    host = distribution.read(tmp_path / "os-release", tmp_path / "epel")
    assert (host.name, host.manager) == (name, manager)
