"""Which host an ordinary user's clusters belong to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sykube.errors import ExitCode, SykubeError
from sykube.host import belonging
from sykube.host.grants import Grants
from tests.fakes import FakeHost, fill
from tests.unit.helpers import mount


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    fill(tmp_path / "etc", {"machine-id": "0123\n"})
    fill(tmp_path / "proc/sys/kernel", {"hostname": "login1\n"})
    (tmp_path / "var/lib").mkdir(parents=True)
    mount(tmp_path)
    return FakeHost(tmp_path, grants=Grants(rootless=True, user="ada", uid=1000))


def moved(host: FakeHost, machine: str, name: str) -> FakeHost:
    """What another host sees, which has the same folders."""
    fill(host.root / "etc", {"machine-id": machine})
    fill(host.root / "proc/sys/kernel", {"hostname": name})
    return host


def test_a_cluster_belongs_to_the_host_that_made_it(host: FakeHost) -> None:
    host.data.mkdir()
    belonging.note(host, "lab")
    assert belonging.elsewhere(host, "lab") == ""
    belonging.require_here(host, "lab")
    other = moved(host, "4567\n", "login2\n")
    assert belonging.elsewhere(other, "lab") == "login1"
    assert belonging.others(other) == {"lab": "login1"}
    with pytest.raises(SykubeError) as caught:
        belonging.require_here(other, "lab")
    assert caught.value.exit_code is ExitCode.ELSEWHERE
    assert "on the host login1" in caught.value.brief
    # The way out that it names.
    Path(caught.value.resolution.rpartition("rm ")[2]).unlink()
    belonging.require_here(other, "lab")


@pytest.mark.parametrize(
    ("machine", "name", "network", "same"),
    [
        ("0123", "renamed", False, True),
        ("4567", "login1", False, False),
        ("", "login1", False, True),
        ("uninitialized", "login2", False, False),
        ("0123", "login2", True, False),
        ("4567", "login1", True, True),
    ],
    ids=["renamed", "another", "no ID", "no ID, another", "the image's ID", "an ID of each boot"],
)
def test_hosts_are_told_apart(
    host: FakeHost, machine: str, name: str, network: bool, same: bool
) -> None:
    host.data.mkdir()
    belonging.note(host, "lab")
    mount(host.root, *([(host.root / "var", "nfs")] if network else []))
    assert (belonging.elsewhere(moved(host, machine, name), "lab") == "") is same


def test_without_a_record_and_for_root_it_is_here(host: FakeHost) -> None:
    host.data.mkdir()
    assert belonging.elsewhere(host, "lab") == ""
    fill(host.data, {"lab.host": "{"})
    assert belonging.elsewhere(host, "lab") == ""
    belonging.note(host, "lab")
    root = replace(moved(host, "4567", "login2"), grants=Grants())
    assert belonging.elsewhere(root, "lab") == ""
    assert belonging.others(root) == {}
    belonging.note(root, "roots")
    assert not (host.data / "roots.host").exists()
