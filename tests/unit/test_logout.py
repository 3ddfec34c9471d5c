"""What a logout ends of a user's clusters, and who can let them go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.host import granted, logout
from sykube.host.finding import Level
from sykube.host.grants import Grants
from sykube.host.logout import Logout
from sykube.host.run import Completed
from tests.fakes import FakeHost, fill

LOGIN = "/user.slice/user-1000.slice/session-3.scope"
MANAGED = "/user.slice/user-1000.slice/user@1000.service/app.slice/sykube.scope"
# What busctl --json=short prints for Debian's logind, and with KillUserProcesses=yes.
SPARES = '{"type":"b","data":false}\n{"type":"as","data":[]}\n{"type":"as","data":["root"]}\n'
KILLS = SPARES.replace("false", "true")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A host with systemd, and a user who does not linger."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return machine(FakeHost(tmp_path, grants=Grants(rootless=True, user="ada", uid=1000)))


def machine(host: FakeHost, logind: str = SPARES, pkcheck: int | None = None) -> FakeHost:
    """With a logind that answers so, and a polkit whose program ends with that code."""

    def run(argv: Sequence[str | Path], **_: Any) -> Completed:
        words = tuple(map(str, argv))
        if words[0] == "busctl":
            return Completed(words, 0 if logind else 1, logind, "")
        assert words[:3] == ("pkcheck", "--action-id", "org.freedesktop.login1.set-self-linger")
        assert pkcheck is not None
        return Completed(words, pkcheck, "", "")

    def which(name: str) -> str | None:
        return None if name == "pkcheck" and pkcheck is None else f"/usr/bin/{name}"

    return replace(host, run=run, which=which)


def asked(host: FakeHost, cgroup: str = MANAGED) -> Logout:
    found = logout.asked(host, cgroup, host.root / "run/user/1000/sykube")
    assert found
    return found


def let_linger(host: FakeHost) -> None:
    fill(host.root / "var/lib/systemd/linger", {"ada": ""})


@pytest.mark.parametrize("cgroup", [MANAGED, LOGIN])
def test_the_last_logout_ends_what_the_user_runs(host: FakeHost, cgroup: str) -> None:
    found = asked(host, cgroup)
    assert (found.lingers, found.ends) == (False, "your last logout ends your clusters")
    assert found.cure == "Ask the administrator for: loginctl enable-linger ada"


@pytest.mark.parametrize("cgroup", [MANAGED, LOGIN])
def test_who_lingers_may_log_out(host: FakeHost, cgroup: str) -> None:
    let_linger(host)
    assert asked(host, cgroup) == Logout(lingers=True)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (0, "loginctl enable-linger"),
        # Not authorized, and a password of an administrator's needed: pkcheck(1).
        (1, "Ask the administrator for: loginctl enable-linger ada"),
        (2, "Ask the administrator for: loginctl enable-linger ada"),
    ],
)
def test_where_polkit_lets_the_user_linger_nobody_else_is_asked(
    host: FakeHost, code: int, cure: str
) -> None:
    assert asked(machine(host, pkcheck=code)).cure == cure


def test_a_login_that_kills_is_said_also_to_who_lingers(host: FakeHost) -> None:
    let_linger(host)
    found = asked(machine(host, KILLS), LOGIN)
    assert "KillUserProcesses" in found.ends
    assert "KillExcludeUsers=root ada" in found.cure
    assert "enable-linger" not in found.cure
    # In a scope of the user's systemd they are no part of the login.
    assert asked(machine(host, KILLS), MANAGED).ends == ""


@pytest.mark.parametrize(
    "answer",
    [
        KILLS.replace('["root"]', '["root","ada"]'),
        KILLS.replace("[]", '["bob"]'),
        "",
        "Failed to get property\n",
    ],
    ids=["excluded", "only others", "no answer", "no JSON"],
)
def test_a_login_that_spares_the_user_kills_nothing(host: FakeHost, answer: str) -> None:
    let_linger(host)
    assert asked(machine(host, answer), LOGIN).ends == ""


def test_a_login_that_kills_only_some_kills_those(host: FakeHost) -> None:
    let_linger(host)
    assert asked(machine(host, KILLS.replace("[]", '["ada"]')), LOGIN).ends


def test_what_cron_began_and_recorded_in_tmp_no_logout_ends(host: FakeHost) -> None:
    found = logout.asked(host, "/system.slice/cron.service", host.root / "tmp/sykube-1000")
    assert found
    assert found.ends == ""
    # For a unit of the user's it lacks all the same.
    assert (found.lingers, found.cure.split()[-2:]) == (False, ["enable-linger", "ada"])


def test_without_systemd_there_is_nothing_to_say(host: FakeHost) -> None:
    (host.root / "run/systemd/system").rmdir()
    assert logout.asked(host, LOGIN, host.root / "run/user/1000/sykube") is None
    assert granted._logout(host) == []


def test_doctor_shows_it(host: FakeHost) -> None:
    ends = replace(host, grants=replace(host.grants, logout=asked(host)))
    (finding,) = granted._logout(ends)
    assert (finding.what, finding.level) == ("logout", Level.WARNING)
    assert finding.what not in granted.OPTIONAL
    let_linger(host)
    lives = replace(host, grants=replace(host.grants, logout=asked(host)))
    (finding,) = granted._logout(lives)
    assert finding.level is Level.OK
