"""Hosts that an ordinary user's clusters cannot live on: one error each, and nothing changed.

Each is this host but for one thing, which a mount in namespaces of the test's takes away.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine import users
from tests.machine.users import User

pytestmark = pytest.mark.integration

NAME = "int-host"
IDS = 660_000
HOME = f"/var/tmp/home-{NAME}"


@dataclass(frozen=True)
class Case:
    """A host.

    Attributes:
        change: a shell program, which root runs in a mount namespace before.
        words: of the error, the line to ask for among them.
    """

    change: str
    words: tuple[str, ...]


CASES = {
    "user namespaces are forbidden": Case(
        "echo 0 > /run/zero; mount --bind /run/zero /proc/sys/user/max_user_namespaces",
        (
            "users may have no user namespaces",
            "Ask the administrator for: sysctl -w user.max_user_namespaces=10000",
        ),
    ),
    "no device": Case(
        "mount -t tmpfs tmpfs /dev/net",
        ("/dev/net/tun", "Ask the administrator for: modprobe tun && chmod 666 /dev/net/tun"),
    ),
    "a device that is root's": Case(
        "mount -t tmpfs tmpfs /dev/net; mknod -m 600 /dev/net/tun c 10 200",
        ("/dev/net/tun is not open", "modprobe tun && chmod 666 /dev/net/tun"),
    ),
    "no slirp4netns": Case(
        "mount --bind /dev/null /usr/bin/slirp4netns",
        ("missing: slirp4netns", "Ask the administrator for: apt-get install -y slirp4netns"),
    ),
    "newuidmap without its rights": Case(
        "cp /usr/bin/newuidmap /run/; chmod 755 /run/newuidmap; "
        "mount --bind /run/newuidmap /usr/bin/newuidmap",
        ("your subordinate user IDs", "Ask the administrator for: chmod u+s"),
    ),
    "a home that is read-only": Case(
        f"mount --bind {HOME} {HOME}; mount -o remount,bind,ro {HOME}",
        (f"{HOME} is read-only", "export XDG_DATA_HOME=", "KUBECONFIG="),
    ),
    "a home that is not there": Case(
        f"export HOME={HOME}/nowhere/at/all; mkdir /run/none; mount --bind /run/none {HOME}",
        ("your home", "is not there", f"install -d -m 700 -o {NAME} {HOME}/nowhere/at/all"),
    ),
    "no user attributes": Case(
        f"mount -t ramfs ramfs {HOME}; chown {NAME} {HOME}",
        ("lacks user extended attributes", "Take another one: --dest", "--ephemeral"),
    ),
    "no types in folders": Case(
        f"truncate -s 16M /run/disk; mkfs.ext4 -q -O ^filetype /run/disk; "
        f"mount -o loop /run/disk {HOME}; chown {NAME} {HOME}",
        ("lacks types in its folders (d_type", "Take another one: --dest"),
    ),
    "a small disk": Case(
        f"truncate -s 16M /run/disk; mkfs.ext4 -q /run/disk; "
        f"mount -o loop /run/disk {HOME}; chown {NAME} {HOME}",
        ("disk for nodes", "MB free", "--dest"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with users.made(NAME, ids=IDS) as made:
        yield made


def run_on(user: User, change: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of the user's on this host as a shell program of root's has changed it."""
    program = f'mount -t tmpfs tmpfs /run; {change}; exec "$@"'
    machine = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", program, "sh"]
    return subprocess.run(
        [*machine, *user.prefix, users.PYTHON, "-m", "sykube", *command],
        env=user.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_init_says_what_to_do(user: User, name: str) -> None:
    case = CASES[name]
    before = sorted(user.home.rglob("*"))
    done = run_on(user, case.change, "init")
    assert done.returncode == 6, done.stderr
    assert done.stderr.lower().count("error:") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for words in case.words:
        assert words in done.stderr
    assert user.processes() == []
    assert not Path(f"/tmp/sykube-{user.uid}").exists()
    kept = [each for each in user.home.rglob("*") if "/.local/state" not in f"{each}/"]
    assert sorted(kept) == before


def test_doctor_says_that_ids_lack_their_program(user: User) -> None:
    done = run_on(user, "mount --bind /dev/null /usr/bin/newuidmap", "init", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "you have some, but newuidmap is missing" in done.stdout
    assert "Ask the administrator for: apt-get install -y uidmap" in done.stdout
    assert user.processes() == []


@pytest.mark.parametrize("command", ["list", "status", "init"])
def test_the_home_of_another_is_said_to_be_none_of_the_users(user: User, command: str) -> None:
    """As su without - leaves it."""
    done = run_on(user, "install -d -m 700 /run/roots; export HOME=/run/roots", command)
    assert done.returncode == 6, done.stderr
    assert "/run/roots is not open to you" in done.stderr
    assert "export XDG_DATA_HOME=" in done.stderr


def test_a_cluster_of_another_host_is_listed_and_left_alone(user: User) -> None:
    """As one sees who shares the home with a host that this is not."""
    data = user.home / ".local/share/sykube"
    owner = json.dumps({"machine": "f" * 32, "name": "login9"})
    user.run("sh", "-ec", f"mkdir -p {data}/lab; echo '{owner}' > {data}/lab.host")
    user.run("sh", "-ec", f"echo '{{}}' > {data}/lab/state.json")
    there = sorted(data.rglob("*"))
    done = run_on(user, "true", "list")
    assert done.stdout.split()[:4] == ["lab", "elsewhere", "on", "login9"]
    for command in ("init", "status", "start", "stop", "delete"):
        done = run_on(user, "true", command, "--name", "lab")
        assert done.returncode == 10, done.stderr
        assert "the cluster lab is elsewhere: on the host login9" in done.stderr
    assert sorted(data.rglob("*")) == there
    assert user.processes() == []
