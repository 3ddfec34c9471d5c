"""A user's namespaces under a real systemd: its scope, its units, and what a logout ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine import systemd, users
from tests.machine.systemd import Systemd
from tests.machine.users import User

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(systemd.missing()), reason=f"lacks {systemd.missing()}"),
]

INSIDE = f"{users.PYTHON} -m tests.machine.inside"
OWN_CGROUP = "tail -n 1 /proc/self/cgroup"
ASKS = """
import sys
from dataclasses import replace
from sykube.rootless import entry, host

found = entry.enter(replace(host.of_this_user(), asks=True), lambda: True)
if isinstance(found, int):
    sys.exit(found)
print(found.systemctl("is-active", "sykube.scope").stdout)
"""


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with users.made("int-systemd") as made:
        yield made


@pytest.fixture(scope="module")
def machine(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    with systemd.booted(tmp_path_factory.mktemp("root")) as found:
        yield found


@pytest.fixture(autouse=True)
def _logged_out(machine: Systemd, user: User) -> Iterator[None]:
    machine.configure_logins()
    yield
    machine.run("loginctl", "disable-linger", user.name)
    wait("the user's processes end", lambda: not user.processes())


def wait(what: str, check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def runs(user: User, name: str) -> bool:
    return any(name in each for each in user.processes())


def test_commands_are_in_a_scope_and_may_share_out_its_cgroup(machine: Systemd, user: User) -> None:
    moved = "mkdir $x; sleep 9 & echo $! > $x/cgroup.procs; tail -n 1 /proc/$!/cgroup; kill $!"
    out = machine.login(
        user,
        f"{OWN_CGROUP}; {INSIDE} stay {OWN_CGROUP}; systemctl --user is-active sykube.scope; "
        f"{INSIDE} last sh -ec 'x=/sys/fs/cgroup/sykube; {moved}'",
    )
    before, own, scope, node = out.splitlines()
    assert "/session-" in before
    # Each sees the scope's as the root.
    assert (own, scope, node) == ("0::/init", "active", "0::/sykube")


def test_a_scope_follows_the_one_before_at_once(machine: Systemd, user: User) -> None:
    out = machine.login(user, f"for _ in 1 2 3; do {INSIDE} last {OWN_CGROUP}; done")
    assert out.splitlines() == ["0::/init"] * 3


def test_another_login_finds_the_namespaces_and_goes_there(machine: Systemd, user: User) -> None:
    machine.run("loginctl", "enable-linger", user.name)
    machine.login(user, f"{INSIDE} stay sh -c 'echo here > /run/mark'")
    out = machine.login(user, f"{INSIDE} last sh -c 'cat /run/mark; {OWN_CGROUP}'")
    assert out.splitlines() == ["here", "0::/init"]


def test_the_last_logout_ends_them(machine: Systemd, user: User) -> None:
    machine.login(user, f"{INSIDE} stay true")
    wait("all of it ends", lambda: not user.processes())
    folder = f"/run/user/{user.uid}"
    wait("so does the user's folder", lambda: machine.run("test", "-e", folder).returncode)


def test_who_lingers_may_log_out_whatever_logind_kills(machine: Systemd, user: User) -> None:
    machine.configure_logins("KillUserProcesses=yes")
    machine.run("loginctl", "enable-linger", user.name)
    machine.login(user, f"(sleep 4321 &); {INSIDE} stay true")
    # What is left of the login itself is killed, and so the setting counts.
    wait("the login is over", lambda: not runs(user, "sleep 4321"))
    assert runs(user, "rootless-init")
    assert runs(user, "slirp4netns")
    machine.login(user, f"{INSIDE} last true")
    wait("the namespaces end", lambda: not runs(user, "rootless-init"))


@pytest.mark.parametrize("lingers", [True, False])
def test_doctor_says_it_before(machine: Systemd, user: User, lingers: bool) -> None:
    machine.run("loginctl", "enable-linger" if lingers else "disable-linger", user.name)
    doctor = f"{users.PYTHON} -m sykube doctor --output json || true"
    findings = json.loads(machine.login(user, doctor))["findings"]
    found = {each["what"]: each for each in findings}
    assert found["logout"]["level"] == ("ok" if lingers else "warning")
    assert ("loginctl enable-linger" in found["logout"]["cure"]) is not lingers


def test_from_the_namespaces_the_users_systemd_is_asked(
    machine: Systemd, user: User, tmp_path: Path
) -> None:
    # By itself it answers nobody in there: libsystemd knows no process by the number 0.
    alone = f"{INSIDE} last env XDG_RUNTIME_DIR=/run/user/{user.uid} systemctl --user is-active x"
    script = f'{users.PYTHON} -c "$CODE"; ! {alone} 2>&1'
    out = machine.login(user, f"CODE='{ASKS}'; {script}")
    assert "active" in out
    assert "Failed to connect to bus" in out
