"""The host's settings as they were, and putting them back on a fake /proc/sys."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.host.host import Host
from sykube.host.records import KUBELET_SYSCTLS, HostRecords, read_sysctl
from tests.fakes import Calls, FakeHost, FakePrograms, Kernel
from tests.fakes.kernel import SysctlPath

FORWARD = "net/ipv4/ip_forward"
REDIRECTS = "net/ipv4/conf/all/accept_redirects"


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path / "host"), Calls(), tmp_path)


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host", programs.run)


@pytest.fixture
def folder(host: FakeHost) -> Path:
    return host.records


def test_a_record_survives_being_stored(host: Host, programs: FakePrograms, folder: Path) -> None:
    assert HostRecords.load(host) is None
    records = HostRecords(host)
    records.remember(KUBELET_SYSCTLS)
    records.load_module("br_netfilter")
    assert HostRecords.load(host) == records
    assert records.sysctls["kernel/panic"] == "0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"sysctls": {}}',
    ],
)
def test_a_damaged_record_counts_as_none(host: Host, folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    assert HostRecords.load(host) is None


def test_the_first_value_is_the_one_that_is_kept(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    HostRecords(host).remember(("kernel/panic",))
    (programs.kernel.proc_sys / "kernel/panic").write_text("10")
    again = HostRecords.load(host)
    assert again is not None
    again.remember(("kernel/panic", "vm/panic_on_oom"))
    assert again.sysctls == {"kernel/panic": "0", "vm/panic_on_oom": "0"}


def test_a_sysctl_that_this_kernel_lacks_is_no_concern(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    records = HostRecords(host)
    records.remember(("net/none",))
    records.set_sysctl("net/none", "1")
    assert records.sysctls == {}
    assert read_sysctl(host, "net/none") is None


def test_a_value_is_recorded_on_disk_before_it_is_changed(
    host: FakeHost, programs: FakePrograms, folder: Path
) -> None:
    seen: list[dict[str, str]] = []

    class Looking(SysctlPath):
        def write_text(self, data: str, *rest: Any, **more: Any) -> int:
            seen.append(json.loads((folder / "record.json").read_text())["sysctls"])
            return super().write_text(data, *rest, **more)

    host = replace(host, sysctls=Looking)
    HostRecords(host).set_sysctl("kernel/panic", "10")
    HostRecords(host).enable_forwarding()
    assert seen[0] == {"kernel/panic": "0"}
    assert seen[1][FORWARD] == "0"


def test_a_value_that_is_right_already_is_neither_recorded_nor_set(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    programs.kernel.define(FORWARD, "1")
    records = HostRecords(host)
    records.enable_forwarding()
    records.set_sysctl("kernel/panic", "0")
    assert records.sysctls == {}
    assert not folder.exists()


def test_forwarding_and_what_the_kernel_changes_with_it_come_back(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    # A host that routes for one of its interfaces alone.
    programs.kernel.define("net/ipv4/conf/eth0/forwarding", "1")
    before = programs.kernel.snapshot()
    HostRecords(host).enable_forwarding()
    assert read_sysctl(host, FORWARD) == "1"
    assert read_sysctl(host, "net/ipv4/conf/default/forwarding") == "1"
    assert restore(host) == []
    assert programs.kernel.snapshot() == before


def test_a_host_that_refuses_redirects_refuses_them_afterwards(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    programs.kernel.define(REDIRECTS, "0")
    before = programs.kernel.snapshot()
    HostRecords(host).enable_forwarding()
    restore(host)
    assert programs.kernel.snapshot() == before


def restore(host: Host) -> list[str]:
    records = HostRecords.load(host)
    assert records is not None
    return records.restore()


def test_restoring_forgets_the_record(host: Host, programs: FakePrograms, folder: Path) -> None:
    records = HostRecords(host)
    records.set_sysctl("fs/inotify/max_user_instances", "1024")
    records.remember(KUBELET_SYSCTLS)
    (programs.kernel.proc_sys / "vm/overcommit_memory").write_text("1")
    assert restore(host) == []
    assert read_sysctl(host, "fs/inotify/max_user_instances") == "128"
    assert read_sysctl(host, "vm/overcommit_memory") == "0"
    assert not (folder / "record.json").exists()
    assert HostRecords.load(host) is None


def test_interfaces_that_are_gone_are_no_problem(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    programs.run(["ip", "link", "add", "name", "sk-other", "type", "bridge"])
    HostRecords(host).enable_forwarding()
    programs.run(["ip", "link", "delete", "dev", "sk-other"])
    assert restore(host) == []


def test_what_cannot_be_restored_is_named_and_the_rest_is(
    host: FakeHost, programs: FakePrograms, folder: Path
) -> None:
    class ReadOnly(SysctlPath):
        def write_text(self, data: str, *rest: Any, **more: Any) -> int:
            if self.name == "panic":
                raise OSError(30, "Read-only file system")
            return super().write_text(data, *rest, **more)

    records = HostRecords(host)
    records.set_sysctl("kernel/panic", "10")
    records.set_sysctl("vm/panic_on_oom", "1")
    host = replace(host, sysctls=ReadOnly)
    assert restore(host) == ["sysctl kernel.panic = 0 (Read-only file system)"]
    assert read_sysctl(host, "vm/panic_on_oom") == "0"


def test_a_module_is_recorded_before_it_is_loaded_and_unloaded_in_the_end(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    records = HostRecords(host)
    records.load_module("br_netfilter")
    records.load_module("br_netfilter")
    assert records.modules == ["br_netfilter"]
    assert programs.kernel.modules == {"br_netfilter"}
    assert restore(host) == []
    assert programs.argvs[-1] == ["modprobe", "-r", "br_netfilter"]
    assert programs.kernel.modules == set()


def test_a_module_in_use_stays_and_is_named(
    host: Host, programs: FakePrograms, folder: Path
) -> None:
    HostRecords(host).load_module("br_netfilter")
    programs.answers["modprobe"] = lambda _: (
        1,
        "",
        "modprobe: FATAL: Module br_netfilter is in use.",
    )
    (problem,) = restore(host)
    assert "br_netfilter" in problem
    assert not (folder / "record.json").exists()


def test_folders_that_others_make_go_in_the_end_unless_they_are_in_use(
    host: Host, programs: FakePrograms, folder: Path, tmp_path: Path
) -> None:
    there, made, below, used = (tmp_path / name for name in ("there", "made", "made/below", "used"))
    there.mkdir()
    records = HostRecords(host)
    records.expect_folders([there, made, below, used])
    below.mkdir(parents=True)
    (used / "somebody").mkdir(parents=True)
    records.expect_folders([there, made, below, used])
    assert restore(host) == []
    assert there.is_dir() and used.is_dir()
    assert not made.exists()
