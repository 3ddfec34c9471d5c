"""What a host grants its users: each finding, and the line that an administrator is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sykube.errors import ExitCode, HostError, UsageError
from sykube.host import granted, identity
from sykube.host.finding import Finding, Level
from sykube.host.grants import Grants
from tests.fakes import FakeHost, fill

NOTHING = Grants(rootless=True, cgroups=False, users=False, user="ada", uid=1000)
ALL = replace(NOTHING, cgroups=True, users=True)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """One that lacks nothing, but grants no more than it must."""
    fill(tmp_path / "etc", {"os-release": "ID=debian\n"})
    fill(tmp_path / "dev/net", {"tun": ""})
    fill(tmp_path / "proc", {"filesystems": "nodev\toverlay\n"})
    for key, value in {
        "net/bridge/bridge-nf-call-iptables": "1",
        "fs/inotify/max_user_instances": "1024",
        "user/max_user_namespaces": "1000",
    }.items():
        fill((tmp_path / "proc/sys" / key).parent, {key.rpartition("/")[2]: f"{value}\n"})
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return FakeHost(tmp_path, which=lambda name: f"/usr/bin/{name}", grants=NOTHING)


def found(host: FakeHost) -> Mapping[str, Finding]:
    return {each.what: each for each in granted.findings(host)}


def test_where_all_is_granted_nothing_is_asked_for(host: FakeHost) -> None:
    findings = found(replace(host, grants=ALL)).values()
    assert {each.level for each in findings} == {Level.OK}
    granted.require(host)


@pytest.mark.parametrize(
    ("key", "value", "command"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns", "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)  # fmt: skip
def test_a_host_that_forbids_user_namespaces(
    host: FakeHost, key: str, value: str, command: str
) -> None:
    fill((host.root / "proc/sys" / key).parent, {key.rpartition("/")[2]: f"{value}\n"})
    finding = found(host)["user namespaces"]
    assert finding.level is Level.FAILURE
    assert finding.cure == f"Ask the administrator for: {command}"
    with pytest.raises(HostError) as caught:
        granted.require(host)
    assert caught.value.exit_code is ExitCode.HOST_NOT_READY
    assert command in caught.value.resolution


def test_a_host_without_slirp4netns(host: FakeHost) -> None:
    bare = replace(host, which=lambda name: None if name == "slirp4netns" else f"/usr/bin/{name}")
    with pytest.raises(HostError) as caught:
        granted.require(bare)
    assert "missing: slirp4netns" in caught.value.brief
    assert "apt-get install -y slirp4netns" in caught.value.resolution


def test_a_host_whose_users_may_have_no_tun_device(host: FakeHost) -> None:
    (host.root / "dev/net/tun").unlink()
    with pytest.raises(HostError) as caught:
        granted.require(host)
    assert "modprobe tun && chmod 666 /dev/net/tun" in caught.value.resolution


def test_modules_that_only_root_can_load(host: FakeHost) -> None:
    (host.root / "proc/sys/net/bridge/bridge-nf-call-iptables").unlink()
    (host.root / "proc/filesystems").write_text("nodev\tproc\n")
    finding = found(host)["kernel"]
    assert finding.level is Level.FAILURE
    assert finding.cure.endswith("modprobe overlay && modprobe br_netfilter")


def test_ids_that_nobody_has_are_asked_for(host: FakeHost) -> None:
    fill(host.root / "etc", {"subuid": "bob:100000:65536\n", "subgid": "eve:231072:65536\n"})
    finding = found(host)["user IDs"]
    assert finding.level is Level.WARNING
    ids = "296608-362143"
    assert finding.cure.endswith(f"usermod --add-subuids {ids} --add-subgids {ids} ada")
    assert "install" not in finding.cure


def test_ids_that_nobody_can_map_only_lack_the_program(host: FakeHost) -> None:
    fill(host.root / "etc", {"subuid": "ada:100000:65536\n", "subgid": "ada:100000:65536\n"})
    bare = replace(host, which=lambda name: None if name == "newuidmap" else f"/usr/bin/{name}")
    # Not among what there could be beside, of which init says nothing.
    finding = found(bare)["your user IDs"]
    assert finding.what not in granted.OPTIONAL
    assert finding.level is Level.WARNING
    assert finding.cure == "Ask the administrator for: apt-get install -y uidmap"


@pytest.mark.parametrize(
    "lines",
    [
        {"subuid": "ada:100000:1000\n", "subgid": "ada:100000:65536\n"},
        {"subuid": "1000:100000:65536\n", "subgid": ""},
    ],
    ids=["too few", "no groups"],
)
def test_ids_that_are_too_few_are_asked_for(host: FakeHost, lines: dict[str, str]) -> None:
    fill(host.root / "etc", lines)
    cure = found(host)["user IDs"].cure
    assert cure.startswith("Ask the administrator for: usermod --add-subuids 165536-231071 ")


def test_a_range_by_the_users_number_is_one(host: FakeHost) -> None:
    fill(host.root / "etc", {"subuid": "1000:100000:65536\n", "subgid": "ada:100000:65536\n"})
    assert granted.has_enough_ids(host, "ada", 1000)
    assert not granted.has_enough_ids(host, "bob", 1001)


def test_cgroups_are_asked_for_by_a_command_that_gives_them(host: FakeHost, tmp_path: Path) -> None:
    cure = found(host)["cgroups"].cure
    assert "mkdir -p ${each}sykube-1000" in cure
    assert "chown -R ada /sys/fs/cgroup/*/sykube-1000" in cure


def test_cgroup_v2_is_not_used_yet_and_so_not_asked_for(host: FakeHost) -> None:
    fill(host.root / "sys/fs/cgroup", {"cgroup.controllers": "cpu memory\n"})
    assert "administrator" not in found(host)["cgroups"].cure


def test_few_inotify_instances_are_a_warning(host: FakeHost) -> None:
    fill(host.root / "proc/sys/fs/inotify", {"max_user_instances": "128\n"})
    finding = found(host)["inotify"]
    assert finding.level is Level.WARNING
    assert "sysctl -w fs.inotify.max_user_instances=1024" in finding.cure


def test_too_few_inotify_instances_for_a_cluster_are_a_failure(host: FakeHost) -> None:
    fill(host.root / "proc/sys/fs/inotify", {"max_user_instances": "32\n"})
    finding = found(host)["inotify"]
    assert finding.level is Level.FAILURE
    assert finding.cure.endswith("sysctl -w fs.inotify.max_user_instances=1024")


def test_a_user_needs_no_root(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    identity.check(replace(host, user=lambda: 1000))
    with pytest.raises(UsageError, match="needs root"):
        identity.check(replace(host, user=lambda: 1000, grants=Grants()))
