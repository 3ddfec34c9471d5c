"""The unit of an ordinary user's own systemd."""

from __future__ import annotations

import configparser
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest

from sykube.cli import main
from sykube.cluster.commands import autostart
from sykube.errors import HostError
from sykube.host import logout
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.job import Job
from sykube.host.logout import Logout
from sykube.host.run import CommandError, Completed
from sykube.rootless.folders import Folders
from sykube.rootless.host import RootlessHost
from sykube.rootless.ids import Ids
from tests.fakes import World, fill
from tests.unit.helpers import made, unchanged

USER = Grants(rootless=True, cgroups=False, users=False, user="ada", uid=1000)
MACHINE = "0123456789abcdef0123456789abcdef"


@dataclass
class UserSystemd:
    """systemctl --user, which enables units of the user's folder."""

    units: Path
    calls: list[tuple[str, ...]] = field(default_factory=list)
    refuses: bool = False

    def __call__(
        self, words: Sequence[str], env: Mapping[str, str | None] | None, *, check: bool
    ) -> Completed:
        assert words[:2] == ["systemctl", "--user"]
        assert env
        assert str(env["XDG_RUNTIME_DIR"]).endswith("/run/user/1000")
        self.calls.append(tuple(words[2:]))
        wanted = self.units / "default.target.wants"
        match [each for each in words[2:] if not each.startswith("--")]:
            case ["enable", unit]:
                if self.refuses:
                    raise CommandError("systemctl failed", words, "Failed to connect to bus")
                assert (self.units / unit).exists()
                fill(wanted, {unit: ""})
            case ["disable", unit]:
                (wanted / unit).unlink()
                wanted.rmdir()
            case ["stop", unit]:
                assert "ExecStop=" not in (self.units / unit).read_text()
            case ["daemon-reload"] | ["start" | "reset-failed", _]:
                assert check or "reset-failed" in words
            case unknown:
                raise AssertionError(unknown)
        return Completed(tuple(words), 0, "", "")


@dataclass
class Ada:
    """A user whose systemd runs."""

    world: World
    host: RootlessHost
    systemd: UserSystemd

    def unit(self) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(self.host.units / "sykube-fake.service")
        return parser


@pytest.fixture
def ada(world: World, monkeypatch: pytest.MonkeyPatch) -> Ada:
    cluster = made(world)
    home, runtime = world.root / "home", world.root / "run/user/1000"
    fill(world.root / "etc", {"machine-id": f"{MACHINE}\n"})
    (runtime / "systemd").mkdir(parents=True)
    (home / ".config/systemd/user").mkdir(parents=True)
    systemd = UserSystemd(home / ".config/systemd/user")

    def run(argv: Sequence[str | Path], **options: Any) -> Completed:
        if argv[0] == "systemctl":
            check = options.get("check", True)
            return systemd([*map(str, argv)], options.get("env"), check=check)
        return world.host.run(argv, **options)

    its = {each.name: getattr(world.host, each.name) for each in fields(Host)}
    its |= {"grants": USER, "run": run, "which": lambda name: f"/usr/bin/{name}"}
    folders = Folders(
        cluster.paths.root.parent, world.host.cache, world.host.logs, runtime / "sykube",
        world.host.snapshots, systemd.units,
    )  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", "/scratch/ada")
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "SYKUBE_SHARED_CACHE_DIR", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return Ada(world, RootlessHost(**its, folders=folders, ids=Ids(1000, 100)), systemd)


def test_the_users_systemd_starts_and_stops_the_cluster(ada: Ada) -> None:
    assert autostart.enable(ada.host, "fake", ada.world.ui()) is True
    unit = ada.unit()
    assert unit["Service"]["ExecStart"] == f'"{sys.executable}" -m sykube start --name fake'
    assert unit["Service"]["ExecStop"] == f'"{sys.executable}" -m sykube stop --name fake'
    assert unit["Install"]["WantedBy"] == "default.target"
    # Stopped in order before the scope that the cluster runs in.
    assert unit["Unit"]["After"] == "sykube.scope"
    # Units of the host's systemd mean nothing to a user's.
    assert "network-online" not in (ada.host.units / "sykube-fake.service").read_text()
    assert ada.systemd.calls == [
        ("--quiet", "enable", "sykube-fake.service"),
        ("daemon-reload",),
        ("start", "--no-block", "sykube-fake.service"),
    ]
    assert not (ada.world.root / "etc/systemd/system/sykube-fake.service").exists()


def test_it_finds_the_users_folders_again(ada: Ada) -> None:
    autostart.enable(ada.host, "fake", ada.world.ui())
    text = (ada.host.units / "sykube-fake.service").read_text()
    assert 'Environment="XDG_DATA_HOME=/scratch/ada"\n' in text
    assert f'Environment="SYKUBE_CACHE_DIR={ada.host.cache}"\n' in text
    assert "XDG_STATE_HOME" not in text


def test_other_hosts_that_share_the_home_do_not_start_it(ada: Ada) -> None:
    autostart.enable(ada.host, "fake", ada.world.ui())
    assert ada.unit()["Unit"]["ConditionHost"] == MACHINE
    (ada.world.root / "etc/machine-id").unlink()
    ada.world.kernel.define("kernel/hostname", "login1")
    autostart.enable(ada.host, "fake", ada.world.ui())
    assert ada.unit()["Unit"]["ConditionHost"] == "login1"


def test_disabling_it_leaves_the_cluster_and_nothing_else(ada: Ada) -> None:
    autostart.enable(ada.host, "fake", ada.world.ui())
    assert autostart.disable(ada.host, "fake", ada.world.ui()) is True
    assert [*ada.host.units.iterdir()] == []
    assert len(ada.world.instances) == 2
    assert autostart.disable(ada.host, "fake", ada.world.ui()) is False


def test_a_unit_that_the_users_systemd_refuses_is_not_left_behind(ada: Ada) -> None:
    ada.systemd.refuses = True
    with pytest.raises(CommandError, match="systemctl"):
        autostart.enable(ada.host, "fake", ada.world.ui())
    assert [*ada.host.units.iterdir()] == []


def test_without_a_systemd_of_the_users_cron_does_it(ada: Ada) -> None:
    (ada.world.root / "run/user/1000/systemd").rmdir()
    with unchanged(ada.world), pytest.raises(HostError) as caught:
        autostart.enable(ada.host, "fake", ada.world.ui())
    assert "crontab run at @reboot: sykube start --name fake" in caught.value.resolution
    assert ada.systemd.calls == []


def test_a_job_ends_before_the_host_boots(ada: Ada, tmp_path: Path) -> None:
    job = Job("Slurm", "42", 4000, 0, tmp_path)
    host = replace(ada.host, grants=replace(USER, job=job))
    with unchanged(ada.world), pytest.raises(HostError, match="ends with the job"):
        autostart.enable(host, "fake", ada.world.ui())


@pytest.mark.parametrize("lingers", [True, False])
def test_that_the_user_does_not_linger_is_said(
    ada: Ada,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lingers: bool,
) -> None:
    found = Logout(lingers, "", "" if lingers else "loginctl enable-linger")
    monkeypatch.setattr(logout, "asked", lambda *_: found)
    monkeypatch.setattr("sykube.rootless.entry.enter", lambda host, _: host)
    monkeypatch.setattr(sys, "argv", ["sykube", "autostart", "enable", "--name", "fake"])
    with pytest.raises(SystemExit) as ended:
        main.main(ada.host)
    assert not ended.value.code
    said = capsys.readouterr().err
    assert "The cluster fake starts with the host" in said
    assert ("you do not linger" in said) is not lingers
    assert ("loginctl enable-linger" in said) is not lingers
