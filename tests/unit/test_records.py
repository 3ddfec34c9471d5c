"""The host's settings as they were, and putting them back on a fake /proc/sys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sykube.host import records as records_module
from sykube.host.records import KUBELET_SYSCTLS, HostRecords, read_sysctl
from tests.fakes import Calls, FakeHost, Kernel, SysctlPath

FORWARD = "net/ipv4/ip_forward"
REDIRECTS = "net/ipv4/conf/all/accept_redirects"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHost:
    made = FakeHost(Kernel(tmp_path), Calls(), tmp_path)
    monkeypatch.setattr(records_module, "run", made.run)
    monkeypatch.setattr(records_module, "PROC_SYS", made.kernel.proc_sys)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "host"


def test_a_record_survives_being_stored(host: FakeHost, folder: Path) -> None:
    assert HostRecords.load(folder) is None
    records = HostRecords(folder)
    records.remember(KUBELET_SYSCTLS)
    records.load_module("br_netfilter")
    assert HostRecords.load(folder) == records
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
def test_a_damaged_record_counts_as_none(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "record.json").write_text(text)
    assert HostRecords.load(folder) is None


def test_the_first_value_is_the_one_that_is_kept(host: FakeHost, folder: Path) -> None:
    HostRecords(folder).remember(("kernel/panic",))
    (host.kernel.proc_sys / "kernel/panic").write_text("10")
    again = HostRecords.load(folder)
    assert again is not None
    again.remember(("kernel/panic", "vm/panic_on_oom"))
    assert again.sysctls == {"kernel/panic": "0", "vm/panic_on_oom": "0"}


def test_a_sysctl_that_this_kernel_lacks_is_no_concern(host: FakeHost, folder: Path) -> None:
    records = HostRecords(folder)
    records.remember(("net/none",))
    records.set_sysctl("net/none", "1")
    assert records.sysctls == {}
    assert read_sysctl("net/none") is None


def test_a_value_is_recorded_on_disk_before_it_is_changed(
    host: FakeHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    write = SysctlPath.write_text

    def look(path: SysctlPath, data: str, *rest: object, **more: object) -> int:
        seen.append(json.loads((folder / "record.json").read_text())["sysctls"])
        return write(path, data, *rest, **more)

    monkeypatch.setattr(SysctlPath, "write_text", look)
    HostRecords(folder).set_sysctl("kernel/panic", "10")
    HostRecords(folder).enable_forwarding()
    assert seen[0] == {"kernel/panic": "0"}
    assert seen[1][FORWARD] == "0"


def test_a_value_that_is_right_already_is_neither_recorded_nor_set(
    host: FakeHost, folder: Path
) -> None:
    host.kernel.define(FORWARD, "1")
    records = HostRecords(folder)
    records.enable_forwarding()
    records.set_sysctl("kernel/panic", "0")
    assert records.sysctls == {}
    assert not folder.exists()


def test_forwarding_and_what_the_kernel_changes_with_it_come_back(
    host: FakeHost, folder: Path
) -> None:
    # A host that routes for one of its interfaces alone.
    host.kernel.define("net/ipv4/conf/eth0/forwarding", "1")
    before = host.kernel.snapshot()
    HostRecords(folder).enable_forwarding()
    assert read_sysctl(FORWARD) == "1"
    assert read_sysctl("net/ipv4/conf/default/forwarding") == "1"
    assert restore(folder) == []
    assert host.kernel.snapshot() == before


def test_a_host_that_refuses_redirects_refuses_them_afterwards(
    host: FakeHost, folder: Path
) -> None:
    host.kernel.define(REDIRECTS, "0")
    before = host.kernel.snapshot()
    HostRecords(folder).enable_forwarding()
    restore(folder)
    assert host.kernel.snapshot() == before


def restore(folder: Path) -> list[str]:
    records = HostRecords.load(folder)
    assert records is not None
    return records.restore()


def test_restoring_forgets_the_record(host: FakeHost, folder: Path) -> None:
    records = HostRecords(folder)
    records.set_sysctl("fs/inotify/max_user_instances", "1024")
    records.remember(KUBELET_SYSCTLS)
    (host.kernel.proc_sys / "vm/overcommit_memory").write_text("1")
    assert restore(folder) == []
    assert read_sysctl("fs/inotify/max_user_instances") == "128"
    assert read_sysctl("vm/overcommit_memory") == "0"
    assert not (folder / "record.json").exists()
    assert HostRecords.load(folder) is None


def test_interfaces_that_are_gone_are_no_problem(host: FakeHost, folder: Path) -> None:
    host.run(["ip", "link", "add", "name", "sk-other", "type", "bridge"])
    HostRecords(folder).enable_forwarding()
    host.run(["ip", "link", "delete", "dev", "sk-other"])
    assert restore(folder) == []


def test_what_cannot_be_restored_is_named_and_the_rest_is(
    host: FakeHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = HostRecords(folder)
    records.set_sysctl("kernel/panic", "10")
    records.set_sysctl("vm/panic_on_oom", "1")
    write = SysctlPath.write_text

    def read_only(path: SysctlPath, data: str, *rest: object, **more: object) -> int:
        if path.name == "panic":
            raise OSError(30, "Read-only file system")
        return write(path, data, *rest, **more)

    monkeypatch.setattr(SysctlPath, "write_text", read_only)
    assert restore(folder) == ["sysctl kernel.panic = 0 (Read-only file system)"]
    assert read_sysctl("vm/panic_on_oom") == "0"


def test_a_module_is_recorded_before_it_is_loaded_and_unloaded_in_the_end(
    host: FakeHost, folder: Path
) -> None:
    records = HostRecords(folder)
    records.load_module("br_netfilter")
    records.load_module("br_netfilter")
    assert records.modules == ["br_netfilter"]
    assert host.kernel.modules == {"br_netfilter"}
    assert restore(folder) == []
    assert host.argvs[-1] == ["modprobe", "-r", "br_netfilter"]
    assert host.kernel.modules == set()


def test_a_module_in_use_stays_and_is_named(host: FakeHost, folder: Path) -> None:
    HostRecords(folder).load_module("br_netfilter")
    host.programs["modprobe"] = lambda _: (1, "", "modprobe: FATAL: Module br_netfilter is in use.")
    (problem,) = restore(folder)
    assert "br_netfilter" in problem
    assert not (folder / "record.json").exists()


def test_folders_that_others_make_go_in_the_end_unless_they_are_in_use(
    host: FakeHost, folder: Path, tmp_path: Path
) -> None:
    there, made, below, used = (tmp_path / name for name in ("there", "made", "made/below", "used"))
    there.mkdir()
    records = HostRecords(folder)
    records.expect_folders([there, made, below, used])
    below.mkdir(parents=True)
    (used / "somebody").mkdir(parents=True)
    records.expect_folders([there, made, below, used])
    assert restore(folder) == []
    assert there.is_dir() and used.is_dir()
    assert not made.exists()
