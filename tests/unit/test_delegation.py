"""cgroup v2 as systemd hands it on to a user, and how a command comes to share in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import HostError
from sykube.host import delegation, granted
from sykube.host.delegation import Delegation
from sykube.host.finding import Finding, Level
from sykube.host.grants import Grants
from sykube.host.run import Completed
from sykube.rootless import folders, namespaces, scope
from sykube.rootless.host import RootlessHost
from sykube.rootless.ids import Ids
from sykube.rootless.namespaces import Namespaces
from tests.fakes import fill

MANAGER = "user.slice/user-1000.slice/user@1000.service"
# As Debian 13 has it in a login by ssh.
LOGIN = "/user.slice/user-1000.slice/session-3.scope"
SCOPE = f"/{MANAGER}/app.slice/sykube.scope"
# Of Debian's user@.service, and with the drop-in that sykube asks for.
DEBIAN, ALL = "cpu memory pids\n", "cpuset cpu io memory pids\n"
ENOUGH = Delegation(True, True, frozenset(ALL.split()))


@dataclass
class Systemd:
    """A user's systemd as busctl asks it: it moves processes between cgroups."""

    root: Path
    calls: list[list[str]] = field(default_factory=list)
    # How often a scope of that name is still there.
    taken: int = 0
    refuses: str = ""

    def run(self, argv: Sequence[str | Path], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        self.calls.append(words)
        assert words[0] == "busctl"
        assert words[1] == f"--address=unix:path={self.root}/run/user/1000/bus"
        if self.refuses or self.taken:
            self.taken = max(0, self.taken - 1)
            error = self.refuses or "Call failed: Unit sykube.scope was already loaded"
            return Completed(tuple(words), 1, "", f"{error}\n")
        if "StartTransientUnit" in words:
            pid = words[words.index("PIDs") + 3]
            self.move(pid, SCOPE)
        else:
            assert words[words.index("AttachProcessesToUnit") + 1 :][:4] == [
                "ssau", "sykube.scope", "/init", "1",
            ]  # fmt: skip
            self.move(words[-1], f"{SCOPE}/init")
        return Completed(tuple(words), 0, 'o "/org/freedesktop/systemd1/job/42"\n', "")

    def move(self, pid: str, cgroup: str) -> None:
        assert pid == str(os.getpid())
        fill(self.root / "proc/self", {"cgroup": f"0::{cgroup}\n"})


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


@pytest.fixture
def host(tmp_path: Path, systemd: Systemd) -> RootlessHost:
    """A user's machine with cgroup v2, in a login, of which Debian's systemd hands on its part."""
    fill(tmp_path / "sys/fs/cgroup", {"cgroup.controllers": "cpuset cpu io memory hugetlb pids\n"})
    fill(tmp_path / "sys/fs/cgroup" / MANAGER, {"cgroup.controllers": DEBIAN})
    fill(tmp_path / "run/user/1000", {"bus": ""})
    fill(tmp_path / "proc/self", {"cgroup": f"0::{LOGIN}\n"})
    fill(tmp_path / "etc", {"os-release": "ID=debian\n"})
    return RootlessHost(
        tmp_path,
        folders=folders.of_user(1000, tmp_path / "home", {}, tmp_path),
        ids=Ids(1000, 100),
        grants=Grants(rootless=True, cgroups=False, user="ada", uid=1000),
        which=lambda name: f"/usr/bin/{name}",
        run=systemd.run,
        sleep=lambda _: None,
    )


# --- what there is ---


def test_what_a_user_is_given_is_what_the_users_systemd_has(host: RootlessHost) -> None:
    found = delegation.of_user(host)
    assert found == Delegation(True, True, frozenset({"cpu", "memory", "pids"}))
    assert found.is_enough
    assert found.missing == ["cpuset", "io"]


def test_a_host_with_cgroup_v1_hands_on_nothing_of_v2(host: RootlessHost) -> None:
    (host.cgroups / "cgroup.controllers").unlink()
    assert delegation.of_user(host) is None


@pytest.mark.parametrize("given", ["memory pids\n", "", "cpuset cpu io memory\n"])
def test_a_kubelet_needs_three_controllers(host: RootlessHost, given: str) -> None:
    fill(host.cgroups / MANAGER, {"cgroup.controllers": given})
    found = delegation.of_user(host)
    assert found
    assert not found.is_enough


def test_without_a_bus_or_a_program_for_it_nobody_asks_systemd(host: RootlessHost) -> None:
    without = replace(host, which=lambda name: None if name == "busctl" else name)
    (found,) = {delegation.of_user(without)}
    assert found
    assert (found.bus, found.is_enough) == (False, False)
    (host.root / "run/user/1000/bus").unlink()
    assert delegation.of_user(host) == found


def test_after_su_no_systemd_of_the_users_may_run(host: RootlessHost) -> None:
    (host.cgroups / MANAGER / "cgroup.controllers").unlink()
    (host.cgroups / MANAGER).rmdir()
    assert delegation.of_user(host) == Delegation(False, False, frozenset())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"0::{LOGIN}\n", LOGIN),
        (f"9:name=systemd:{LOGIN}\n8:memory:/user.slice\n0::{LOGIN}\n", LOGIN),
        # Where v2 is there, and systemd does not use it.
        (f"9:name=systemd:{LOGIN}\n8:memory:/user.slice\n0::/\n", LOGIN),
        (f"9:name=systemd:/\n0::{SCOPE}\n", SCOPE),
        ("8:memory:/\n0::/\n", "/"),
        ("", ""),
    ],
)
def test_a_process_is_where_systemd_has_it(host: RootlessHost, lines: str, expected: str) -> None:
    fill(host.proc / "self", {"cgroup": lines})
    assert own(host) == expected


# --- what doctor says of it ---


def cgroups(host: RootlessHost, found: Delegation | None, *, granted_: bool = False) -> Finding:
    grants = replace(host.grants, delegation=found, cgroups=granted_)
    return granted._cgroups(replace(host, grants=grants))


def test_where_all_is_handed_on_nothing_is_asked_for(host: RootlessHost) -> None:
    finding = cgroups(host, ENOUGH, granted_=True)
    assert (finding.level, finding.cure) == (Level.OK, "")


def test_what_debian_does_not_hand_on_is_said_with_what_it_changes(host: RootlessHost) -> None:
    finding = cgroups(host, delegation.of_user(host), granted_=True)
    assert finding.level is Level.WARNING
    assert "without cpuset no pods on CPUs of their own" in finding.detail
    assert "without io no usage of disks" in finding.detail
    assert "memory" not in finding.detail
    assert "[Service]\\nDelegate=cpu cpuset io memory pids\\n" in finding.cure
    assert "/etc/systemd/system/user@.service.d/delegate.conf" in finding.cure


@pytest.mark.parametrize(
    ("found", "detail", "cure"),
    [
        (replace(ENOUGH, controllers=frozenset({"memory", "pids"})), "not given cpu", "Delegate="),
        (replace(ENOUGH, bus=False), "cannot be asked", "apt-get install -y dbus-user-session"),
        (Delegation(False, False, frozenset()), "no systemd of yours runs", "ssh"),
        (ENOUGH, "your clusters began without", "reboot"),
        (None, "no limits", "outside of `sykube run`"),
    ],
    ids=["no cpu", "no bus", "no systemd", "made before", "in run"],
)
def test_why_there_are_none_is_said_with_what_gives_them(
    host: RootlessHost, found: Delegation | None, detail: str, cure: str
) -> None:
    finding = cgroups(host, found)
    assert finding.level is Level.WARNING
    assert detail in finding.detail
    assert cure in finding.cure
    # What is there and was not had, init says, too.
    assert (finding.what in granted.OPTIONAL) == (detail != "your clusters began without")


# --- the scope ---


def own(host: RootlessHost) -> str:
    return delegation.path_of(host, "self")


def test_the_first_process_begins_a_scope_that_is_the_users_to_share_out(
    host: RootlessHost, systemd: Systemd
) -> None:
    scope.begin(host)
    assert own(host) == SCOPE
    (words,) = systemd.calls
    text = " ".join(words)
    assert "ssa(sv)a(sa(sv)) sykube.scope fail 5 " in text
    assert f"PIDs au 1 {os.getpid()} Delegate b true" in text
    # No auxiliary units.
    assert words[-1] == "0"


def test_it_waits_until_the_scope_of_before_is_gone(host: RootlessHost, systemd: Systemd) -> None:
    systemd.taken = 2
    scope.begin(host)
    assert (own(host), len(systemd.calls)) == (SCOPE, 3)


def test_where_systemd_refuses_the_process_stays_and_says_why(
    host: RootlessHost, systemd: Systemd, capfd: pytest.CaptureFixture[str]
) -> None:
    systemd.refuses = "Call failed: Access denied"
    clock = iter(range(0, 1000, 5))
    scope.begin(replace(host, monotonic=lambda: float(next(clock))))
    assert own(host) == LOGIN
    assert "Access denied" in capfd.readouterr().err


def first_in(host: RootlessHost, cgroup: str) -> None:
    fill(host.proc / "4242", {"cgroup": f"0::{cgroup}\n"})


def test_a_later_command_goes_where_the_first_process_is(
    host: RootlessHost, systemd: Systemd
) -> None:
    first_in(host, f"{SCOPE}/init")
    scope.join(host, 4242)
    assert own(host) == f"{SCOPE}/init"
    scope.join(host, 4242)
    assert len(systemd.calls) == 1


def test_from_a_unit_of_the_users_systemd_it_goes_by_itself(
    host: RootlessHost, systemd: Systemd
) -> None:
    first_in(host, f"{SCOPE}/init")
    init = Path(f"{host.cgroups}{SCOPE}/init")
    fill(init, {"cgroup.procs": ""})
    scope.join(host, 4242)
    assert systemd.calls == []
    assert (init / "cgroup.procs").read_text(encoding="utf-8") == str(os.getpid())


@pytest.mark.parametrize("cgroup", [LOGIN, "/system.slice/cron.service", ""])
def test_where_there_is_no_scope_a_command_stays_where_it_is(
    host: RootlessHost, systemd: Systemd, cgroup: str
) -> None:
    first_in(host, cgroup)
    scope.join(host, 4242)
    assert systemd.calls == []


def test_a_command_that_may_not_go_there_is_refused_with_systemds_words(
    host: RootlessHost, systemd: Systemd
) -> None:
    first_in(host, f"{SCOPE}/init")
    systemd.refuses = "Call failed: Access denied"
    with pytest.raises(HostError) as caught:
        scope.join(host, 4242)
    assert caught.value.details == "Call failed: Access denied"


@pytest.mark.parametrize(
    ("there", "bus", "expected"),
    [(True, True, LOGIN), (False, True, SCOPE), (False, False, LOGIN)],
    ids=["made in the login", "to be made in a scope", "to be made in the login"],
)
def test_where_the_clusters_processes_are_or_will_be(
    host: RootlessHost,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    bus: bool,
    expected: str,
) -> None:
    first_in(host, LOGIN)
    found = Namespaces(4242, "1") if there else None
    monkeypatch.setattr(namespaces, "present", lambda _: found)
    grants = replace(host.grants, delegation=replace(ENOUGH, bus=bus))
    assert namespaces.cgroup(replace(host, grants=grants)) == expected


# --- in the namespaces ---


@pytest.mark.parametrize(
    ("cgroup", "controllers", "expected"),
    [
        ("/init", ALL, True),
        ("/init", DEBIAN, True),
        ("/init", "memory pids\n", False),
        # Of a login, which systemd did not move.
        ("/../../../session-3.scope", ALL, False),
    ],
)
def test_nodes_have_cgroups_where_the_command_is_below_the_scopes_own(
    host: RootlessHost, cgroup: str, controllers: str, expected: bool
) -> None:
    fill(host.cgroups, {"cgroup.controllers": controllers, "cgroup.procs": ""})
    fill(host.proc / "self", {"cgroup": f"0::{cgroup}\n"})
    assert host.entered().grants.cgroups is expected


def test_nodes_have_none_in_a_cgroup_of_roots(
    host: RootlessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(host.cgroups, {"cgroup.controllers": ALL, "cgroup.procs": ""})
    fill(host.proc / "self", {"cgroup": "0::/init\n"})
    # As root this test may write everywhere.
    allowed: Callable[[Any, int], bool] = lambda file, _: Path(file).name != "cgroup.procs"  # noqa: E731
    monkeypatch.setattr(os, "access", allowed)
    assert not host.entered().grants.cgroups
