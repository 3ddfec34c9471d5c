"""The systemd unit that starts a cluster with the host and stops it at shutdown."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sykube.cluster.commands import autostart, removal
from sykube.cluster.model.cluster import Cluster
from sykube.errors import HostError
from sykube.host.host import Host
from tests.fakes import Injected, World
from tests.unit.helpers import made, unchanged

UNIT = "etc/systemd/system/sykube-fake.service"
WANTED = "etc/systemd/system/multi-user.target.wants/sykube-fake.service"


@pytest.fixture
def systemd(world: World) -> World:
    """A host that systemd has booted."""
    world.systemd = True
    world.path("/etc/systemd/system").mkdir(parents=True)
    world.path("/run/systemd/system").mkdir(parents=True)
    return world


def commands(world: World) -> list[list[str]]:
    return [
        [word for word in argv if not word.startswith("-")]
        for argv in world.programs.argvs
        if argv[0] == "systemctl"
    ]


def enabled(world: World, **fields: object) -> Cluster:
    cluster = made(world, **fields)  # type: ignore[arg-type]
    assert autostart.enable(world.host, "fake", world.ui()) is True
    return cluster


def unit(world: World) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(world.root / UNIT)
    return parser


def test_the_unit_starts_and_stops_this_cluster_with_this_sykube(systemd: World) -> None:
    enabled(systemd)
    service = unit(systemd)["Service"]
    assert service["ExecStart"] == f'"{sys.executable}" -m sykube start --name fake'
    assert service["ExecStop"] == f'"{sys.executable}" -m sykube stop --name fake'
    # Stopped at shutdown only because it stays active after start has ended.
    assert (service["Type"], service["RemainAfterExit"]) == ("oneshot", "yes")
    assert service["Environment"].endswith(f'SYKUBE_CACHE_DIR={systemd.root}/cache"')


def test_the_unit_waits_for_the_network_and_for_the_clusters_own_file_systems(
    systemd: World, tmp_path: Path
) -> None:
    dest = systemd.root / "var/a disk of its own"
    enabled(systemd, dest=str(dest))
    section = unit(systemd)["Unit"]
    assert "network-online.target" in section["After"].split()
    assert section["RequiresMountsFor"] == f'"{dest}/fake" "{systemd.root}/cache"'
    assert unit(systemd)["Install"]["WantedBy"] == "multi-user.target"


def test_a_sykube_that_needs_pythonpath_finds_itself_again(
    systemd: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/opt/sykube")
    enabled(systemd)
    assert 'Environment="PYTHONPATH=/opt/sykube"\n' in (systemd.root / UNIT).read_text()


def test_without_pythonpath_there_is_no_word_of_it(
    systemd: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    enabled(systemd)
    assert "PYTHONPATH" not in (systemd.root / UNIT).read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("python_path", ["", "/opt/sykube"])
def test_systemd_itself_finds_nothing_wrong_with_the_unit(
    systemd: World, monkeypatch: pytest.MonkeyPatch, python_path: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path)
    enabled(systemd)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", systemd.root / UNIT],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    ours = [line for line in done.stderr.splitlines() if "sykube" in line]
    assert ours == []


def test_enabling_it_lets_systemd_watch_over_the_cluster_that_runs(
    host: Host, systemd: World
) -> None:
    enabled(systemd)
    assert autostart.unit_of(host, "fake").exists()
    assert (systemd.root / WANTED).is_symlink()
    assert commands(systemd) == [
        ["systemctl", "enable", "sykube-fake.service"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "start", "sykube-fake.service"],
    ]
    # start would wait for the lock that the caller may hold.
    assert "--no-block" in systemd.programs.argvs[-1]


def test_enabling_it_twice_is_enabling_it_once(systemd: World) -> None:
    enabled(systemd)
    with unchanged(systemd):
        assert autostart.enable(systemd.host, "fake", systemd.ui()) is True


def test_disabling_it_leaves_the_cluster_and_nothing_else(host: Host, systemd: World) -> None:
    made(systemd)
    with unchanged(systemd):
        autostart.enable(systemd.host, "fake", systemd.ui())
        assert autostart.disable(host, "fake", systemd.ui()) is True
        assert not autostart.unit_of(host, "fake").exists()
    assert len(systemd.instances) == 2


def test_disabling_what_is_not_enabled_asks_nobody(host: Host, systemd: World) -> None:
    made(systemd)
    with unchanged(systemd):
        assert autostart.disable(host, "fake", systemd.ui()) is False
    assert commands(systemd) == []


def test_a_host_without_systemctl_is_told_what_to_do_instead(world: World) -> None:
    made(world)
    with unchanged(world), pytest.raises(HostError, match="systemctl") as raised:
        autostart.enable(world.host, "fake", world.ui())
    assert raised.value.resolution.endswith("sykube start --name fake")


def test_where_systemd_is_installed_and_does_not_run_the_unit_is_there_for_later(
    host: Host,
    systemd: World,
) -> None:
    systemd.path("/run/systemd/system").rmdir()
    made(systemd)
    with unchanged(systemd):
        assert autostart.enable(systemd.host, "fake", systemd.ui()) is False
        assert (systemd.root / WANTED).is_symlink()
        assert autostart.disable(host, "fake", systemd.ui()) is True
    assert [argv[1] for argv in commands(systemd)] == ["enable", "disable"]


def test_a_unit_that_systemd_refuses_is_not_left_behind(host: Host, systemd: World) -> None:
    made(systemd)
    systemd.calls.fail(lambda call: call.words[0] == "systemctl")
    with unchanged(systemd), pytest.raises(Injected):
        autostart.enable(systemd.host, "fake", systemd.ui())
    assert not autostart.unit_of(host, "fake").exists()


def test_delete_removes_it(systemd: World) -> None:
    with unchanged(systemd):
        enabled(systemd)
        assert removal.delete(systemd.host, "fake", systemd.ui()) == []


def test_delete_without_a_record_removes_it(systemd: World) -> None:
    cluster = enabled(systemd)
    cluster.paths.state.unlink()
    removal.delete(systemd.host, "fake", systemd.ui())
    assert not (systemd.root / UNIT).exists()


def test_delete_removes_all_else_when_systemctl_fails_and_says_so(systemd: World) -> None:
    enabled(systemd)
    systemd.calls.fail(lambda call: call.words[0] == "systemctl", times=None)
    (problem,) = removal.delete(systemd.host, "fake", systemd.ui())
    assert problem.startswith("autostart: ")
    assert systemd.instances == {}
    assert not (systemd.root / UNIT).exists()
