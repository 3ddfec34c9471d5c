"""Where an ordinary user's clusters can live."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sykube.errors import HostError
from sykube.host import file_systems, overlays, places
from sykube.host.finding import Level
from sykube.host.grants import Grants
from tests.fakes import FakeHost
from tests.unit.helpers import mount

USER = Grants(rootless=True, user="ada", uid=1000)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    (tmp_path / "var/lib").mkdir(parents=True)
    mount(tmp_path)
    return FakeHost(tmp_path, grants=USER)


# --- file systems ---


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs", "fuse.sshfs"])
def test_a_network_file_system_is_known_by_its_type(host: FakeHost, kind: str) -> None:
    mount(host.root, (host.root / "var", kind))
    assert file_systems.network_type(host, host.data) == kind
    assert file_systems.network_type(host, host.root) == ""


def test_the_nearest_mount_and_the_last_one_there_is_the_one_that_counts(host: FakeHost) -> None:
    var = host.root / "var"
    mount(host.root, (var, "autofs"), (var, "nfs"), (var / "lib", "xfs"), (var / "li", "nfs"))
    assert file_systems.network_type(host, var / "cache") == "nfs"
    assert file_systems.network_type(host, host.data) == ""
    spaced = host.root / "my home"
    spaced.mkdir()
    mount(host.root, (spaced, "nfs"))
    assert file_systems.network_type(host, spaced / "x") == "nfs"


def test_a_link_is_where_it_leads_to(host: FakeHost) -> None:
    local = host.root / "local"
    local.mkdir()
    mount(host.root, (host.root / "var", "nfs"))
    host.data.symlink_to(local)
    assert file_systems.network_type(host, host.data / "sykube") == ""


def test_what_overlays_need_is_there_and_nothing_is_left(host: FakeHost) -> None:
    assert overlays.lacking(host.root / "var/lib/sykube/x") == ""
    assert [*(host.root / "var/lib").iterdir()] == []


def test_a_file_system_without_attributes_or_types(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/integration/test_rootless_hosts.py has real ones."""
    with monkeypatch.context() as patched:
        patched.setattr(overlays, "_type_of_first", lambda _: 0)
        assert "ftype=1" in overlays.lacking(host.root)
    missing = replace_setxattr(monkeypatch)
    assert "user_xattr" in overlays.lacking(host.root)
    assert missing


def replace_setxattr(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    asked: list[object] = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments)
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    return asked


# --- folders ---


def levels(host: FakeHost, data: Path, *, ephemeral: bool = False) -> dict[str, Level]:
    found = places.findings(host, data, ephemeral=ephemeral)
    return {each.what: each.level for each in found}


def test_folders_of_this_host_will_do(host: FakeHost) -> None:
    assert levels(host, host.data / "x") == {
        "folder for nodes": Level.OK,
        "folder for images": Level.OK,
    }


def test_a_home_of_nfs_is_refused_and_the_better_place_named(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = tmp_path / "scratch"
    better.mkdir()
    monkeypatch.setenv("TMPDIR", str(better))
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(tmp_path / "var/cache"))
    mount(host.root, (host.root / "var", "nfs4"))
    nodes, images = places.findings(host, host.data / "x", ephemeral=False)
    assert nodes.level is Level.FAILURE
    assert "network file system (nfs4)" in nodes.detail
    assert f"--dest {better}/ada-sykube" in nodes.cure
    assert "--ephemeral" in nodes.cure
    assert images.level is Level.FAILURE
    assert images.cure.endswith(f"export SYKUBE_CACHE_DIR={better}/ada-sykube/cache")
    # There all files are the user's.
    alone = replace(host, grants=replace(USER, users=False))
    assert levels(alone, better) == {"folder for nodes": Level.OK, "folder for images": Level.OK}
    assert levels(alone, host.data, ephemeral=True) == {"folder for images": Level.OK}


def test_where_no_place_is_better_nodes_stay_in_memory(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(host.root, (Path("/"), "nfs"))
    nodes, _ = places.findings(host, host.data, ephemeral=False)
    assert nodes.cure.startswith("Keep them in memory")
    assert "--dest" not in nodes.cure


@pytest.mark.parametrize("there", [True, False])
def test_folders_that_cannot_be_written_are_refused(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    home = tmp_path if there else tmp_path / "home/ada"
    monkeypatch.setenv("HOME", str(home))
    places.require_writable(host)
    # As root this test may write everywhere.
    monkeypatch.setattr(os, "access", lambda place, _: not Path(place).is_relative_to(tmp_path))
    with pytest.raises(HostError) as caught:
        places.require_writable(host)
    assert f"{host.data} cannot be written" in caught.value.brief
    assert "export XDG_DATA_HOME=" in caught.value.resolution
    assert ("is not open to you" in caught.value.brief) is there
    asked = f"Ask the administrator for: install -d -m 700 -o ada {home}"
    assert (asked in caught.value.resolution) is not there
    assert levels(host, host.data)["folder for nodes"] is Level.FAILURE
