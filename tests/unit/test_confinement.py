"""SELinux and AppArmor, as /sys and /proc show them."""

from __future__ import annotations

import pytest

from sykube.host import confinement
from sykube.host.host import Host
from tests.fakes import fill


def test_a_kernel_without_either(host: Host) -> None:
    assert confinement.selinux(host) is None
    assert confinement.apparmor(host) is None


@pytest.mark.parametrize(
    ("enforce", "context", "confined"),
    [
        ("1", "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\0", False),
        ("1", "system_u:system_r:unconfined_service_t:s0\0", False),
        ("1", "staff_u:sysadm_r:sysadm_t:s0-s0:c0.c1023\0", True),
        ("1", "system_u:system_r:container_t:s0:c1,c2\0", True),
        ("0", "staff_u:sysadm_r:sysadm_t:s0\0", False),
        ("1", "", True),
    ],
)
def test_selinux(host: Host, enforce: str, context: str, confined: bool) -> None:
    fill(host.root / "sys/fs/selinux", {"enforce": enforce})
    fill(host.proc / "self/attr", {"current": context})
    trouble = confinement.selinux(host)
    assert bool(trouble) is confined
    if trouble:
        assert (context.strip("\0") or "unknown") in trouble.detail
        assert "unconfined_t" in trouble.fix


@pytest.mark.parametrize(
    ("profile", "confined"),
    [
        ("unconfined\n", False),
        ("/usr/bin/apptainer (unconfined)\n", False),
        ("docker-default (enforce)\n", True),
        ("lxc-container-default-cgns (enforce)\n", True),
        ("tried-out (complain)\n", False),
    ],
)
@pytest.mark.parametrize("file", ["current", "apparmor/current"])
def test_apparmor(host: Host, file: str, profile: str, confined: bool) -> None:
    fill(host.root / "sys/module/apparmor/parameters", {"enabled": "Y\n"})
    place = host.proc / "self/attr" / file
    fill(place.parent, {place.name: profile})
    trouble = confinement.apparmor(host)
    assert bool(trouble) is confined
    if trouble:
        assert profile.strip() in trouble.detail
    fill(host.root / "sys/module/apparmor/parameters", {"enabled": "N\n"})
    assert confinement.apparmor(host) is None
