"""The process by which a command in the namespaces asks the user's systemd."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import HostError
from sykube.host.grants import Grants
from sykube.host.run import CommandError, Completed
from sykube.rootless import folders, outside
from sykube.rootless.host import RootlessHost
from sykube.rootless.ids import Ids
from sykube.rootless.outside import Outside
from tests.fakes.host import no_process


def systemctl(argv: Sequence[str | Path], **options: Any) -> Completed:
    """One that fails for units of another name, and does not start without an environment."""
    words = tuple(map(str, argv))
    if "XDG_RUNTIME_DIR" not in options["env"]:
        raise CommandError("could not be started", words, "no such program")
    if words[-1] == "other.service":
        return Completed(words, 5, "", "Unit other.service not loaded.\n")
    return Completed(words, 0, f"{os.getpid()} {len(os.listdir('/proc/self/fd'))}\n", "")


@pytest.fixture
def host(tmp_path: Path) -> RootlessHost:
    found = folders.of_user(1000, tmp_path / "home", {}, tmp_path)
    grants = Grants(rootless=True, user="ada", uid=1000)
    return RootlessHost(tmp_path, folders=found, ids=Ids(1000, 100), grants=grants, run=systemctl)


@pytest.fixture
def asks(host: RootlessHost, tmp_path: Path) -> Iterator[Outside]:
    begun = outside.begin(host, tmp_path / "log", host.manager_environment)
    yield begun
    begun.end()
    assert not Path(f"/proc/{begun.pid}").exists()


def test_what_is_asked_for_in_the_namespaces_runs_in_another_process(
    host: RootlessHost, asks: Outside
) -> None:
    inside = replace(host, inside=True, outside=asks, run=no_process)
    done = inside.systemctl("enable", "sykube-fake.service")
    assert done.argv == ("systemctl", "--user", "enable", "sykube-fake.service")
    assert int(done.stdout.split()[0]) == asks.pid != os.getpid()
    # As often as there is something to ask for.
    assert inside.systemctl("daemon-reload").ok


def test_it_holds_nothing_that_the_command_holds(
    host: RootlessHost, asks: Outside, tmp_path: Path
) -> None:
    """A lock that it held on to would keep the namespaces from ending."""
    # Three streams, the connection, and the folder that is listed.
    assert int(asks.run(["systemctl"], check=True).stdout.split()[1]) <= 5


def test_what_fails_there_fails_here_with_its_words(host: RootlessHost, asks: Outside) -> None:
    inside = replace(host, inside=True, outside=asks)
    with pytest.raises(CommandError) as caught:
        inside.systemctl("start", "other.service")
    assert "Unit other.service not loaded." in caught.value.details
    assert inside.systemctl("reset-failed", "other.service", check=False).code == 5


def test_a_program_that_is_not_there_is_an_error_as_well(
    host: RootlessHost, tmp_path: Path
) -> None:
    begun = outside.begin(host, tmp_path / "log", {})
    with pytest.raises(CommandError, match="127") as caught:
        begun.run(["systemctl"], check=True)
    assert "could not be started" in caught.value.details
    begun.end()


def test_what_run_has_started_has_no_such_process(host: RootlessHost) -> None:
    with pytest.raises(HostError, match="sykube run"):
        replace(host, inside=True).systemctl("enable", "sykube-fake.service")


def test_before_the_namespaces_it_needs_none(host: RootlessHost) -> None:
    assert host.systemctl("daemon-reload").ok
