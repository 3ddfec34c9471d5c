"""The namespaces of an ordinary user, real ones: made, entered, connected and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sykube.rootless.slirp import Forward, Slirp
from tests.machine import users
from tests.machine.users import User

pytestmark = pytest.mark.integration

RANGES = {"ids": 600_000, "one-id": 0}


@pytest.fixture(scope="module", params=RANGES)
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with users.made(f"int-{request.param}", ids=RANGES[request.param]) as made:
        yield made


@pytest.fixture
def one_user() -> Iterator[User]:
    with users.made("int-one") as made:
        yield made


def words(user: User, *command: str, last: bool = True) -> list[str]:
    inside = ["-m", "tests.machine.inside", "last" if last else "stay"]
    return [users.PYTHON, *inside, *command]


def run(user: User, *command: str, last: bool = True, code: int = 0) -> str:
    done = user.run(*words(user, *command, last=last), check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def start(user: User, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*user.prefix, *words(user, *command)],
        env=user.environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait(what: str, check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def runtime(user: User) -> Path:
    return Path(f"/tmp/sykube-{user.uid}")


def test_a_command_runs_as_root_in_namespaces_that_end_with_it(user: User) -> None:
    out = run(
        user, "sh", "-c", "id -u; cat /proc/self/uid_map; ls /proc/1/cwd > /dev/null && echo 1"
    )
    lines = out.splitlines()
    assert lines[0] == "0"
    mapped = [list(map(int, line.split())) for line in lines[1:-1]]
    expected = [[0, user.uid, 1]]
    if user.name == "int-ids":
        expected.append([1, 600_000, 65_536])
    assert mapped == expected
    assert user.processes() == []
    assert not runtime(user).exists()


def test_it_has_a_network_of_its_own_and_the_way_out(user: User) -> None:
    out = run(user, "sh", "-c", "ip -br link; ip route; cat /etc/resolv.conf")
    assert "tap0" in out
    assert "default via 10.0.2.2" in out
    assert "nameserver 10.0.2.3" in out
    # What root does for a cluster can be done, and nothing of it is seen outside.
    run(user, "sh", "-ec", "ip link add sk-int type bridge; iptables -w -S; ip netns add x")
    assert not Path("/sys/class/net/sk-int").exists()
    assert not Path("/run/netns/x").exists()


def test_its_exit_code_and_its_end_by_a_signal_are_the_commands(user: User) -> None:
    run(user, "sh", "-c", "exit 7", code=7)
    run(user, "sh", "-c", "kill -9 $$", code=128 + signal.SIGKILL)


def test_a_signal_for_the_command_reaches_what_it_became(user: User) -> None:
    command = start(
        user, "sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done"
    )
    assert command.stdout
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signal.SIGTERM)
    assert command.wait(20) == 42
    assert user.processes() == []


def test_what_the_command_became_ends_with_it(one_user: User) -> None:
    command = start(one_user, "sh", "-c", "echo ready; exec sleep 87654")
    assert command.stdout
    command.stdout.readline()
    command.kill()
    command.wait()

    def ended() -> bool:
        return not any("sleep 87654" in each for each in one_user.processes())

    wait("the command has ended", ended)
    # They are found again, and end with the next command.
    run(one_user, "true")
    assert one_user.processes() == []


def test_commands_share_them_and_the_last_one_ends_them(one_user: User) -> None:
    command = start(one_user, "sh", "-c", "echo ready; exec sleep 600")
    assert command.stdout
    command.stdout.readline()
    there = run(one_user, "readlink", "/proc/self/ns/net")
    run(one_user, "sh", "-ec", "ip link add sk-int type bridge")
    assert run(one_user, "readlink", "/proc/self/ns/net") == there
    assert "sk-int" in run(one_user, "ip", "-br", "link")
    command.kill()
    command.wait()
    run(one_user, "true")
    assert one_user.processes() == []


def test_its_first_process_waits_for_orphans(one_user: User) -> None:
    # The inner shell ends at once, and its child is the first process's.
    run(one_user, "sh", "-c", "sh -c 'sleep 0.2 &'", last=False)
    time.sleep(0.5)
    states = run(one_user, "ps", "-A", "-o", "stat=,comm=")
    assert not any(line.startswith("Z") for line in states.splitlines()), states


def test_another_slirp4netns_takes_the_place_of_one_that_died(one_user: User) -> None:
    run(one_user, "true", last=False)
    pid = int((runtime(one_user) / "slirp4netns.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait("slirp4netns has ended", lambda: not Path(f"/proc/{pid}/exe").exists())
    assert "tap0" in run(one_user, "ip", "-br", "link", last=False)
    assert int((runtime(one_user) / "slirp4netns.pid").read_text()) != pid
    run(one_user, "true")
    assert one_user.processes() == []


# As long as it looks for programs first, and starts slirp4netns last.
KILLED_AT_LAST = """
import os, signal
from dataclasses import replace
from sykube.rootless import host, namespaces
found, asked = host.of_this_user(), []
def which(program):
    asked.append(program)
    if asked.count("slirp4netns") == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return found.which(program)
with namespaces.held(replace(found, which=which)):
    pass
"""


def test_a_command_that_is_killed_as_it_makes_them_leaves_none(one_user: User) -> None:
    done = one_user.run(users.PYTHON, "-c", KILLED_AT_LAST, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait("they have ended", lambda: not one_user.processes())
    run(one_user, "true")
    assert one_user.processes() == []
    assert not runtime(one_user).exists()


def test_a_command_whose_namespaces_are_killed_says_so(one_user: User) -> None:
    with subprocess.Popen(
        [*one_user.prefix, *words(one_user, "sh", "-c", "echo ready; exec sleep 600")],
        env=one_user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        assert command.stdout
        command.stdout.readline()
        first = json.loads((runtime(one_user) / "namespaces.json").read_text())["pid"]
        os.kill(first, signal.SIGKILL)
        _, errors = command.communicate(timeout=20)
    assert command.returncode == 1
    assert "namespaces ended" in errors
    assert "sykube start" in errors
    wait("all has ended", lambda: not one_user.processes())
    run(one_user, "true")
    assert not runtime(one_user).exists()


def test_a_port_of_the_hosts_loopback_leads_into_them(one_user: User) -> None:
    run(one_user, "true", last=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    slirp = Slirp(runtime(one_user) / "slirp4netns.sock")
    slirp.add(Forward("tcp", "127.0.0.1", port))
    with pytest.raises(OSError):
        slirp.add(Forward("tcp", "127.0.0.1", port))
    program = (
        "import socket, sys; s = socket.create_server(('10.0.2.100', int(sys.argv[1]))); "
        "print('ready', flush=True); s.accept()[0].sendall(b'from inside')"
    )
    command = start(one_user, users.PYTHON, "-c", program, str(port))
    assert command.stdout
    assert command.stdout.readline() == "ready\n"
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        assert connection.recv(100) == b"from inside"
    command.wait(20)
    assert one_user.processes() == []


def test_where_users_may_have_none_it_is_said_whom_to_ask(one_user: User) -> None:
    """In a changed root, in which the kernel makes none: user_namespaces(7), EPERM."""
    changed = 'mount --rbind / /mnt; exec chroot /mnt "$@"'
    command = [*one_user.prefix, *words(one_user, "true")]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", changed, "sh", *command],
        env=one_user.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "lets users have no user namespaces" in done.stderr
    assert "Ask the administrator" in done.stderr
    assert one_user.processes() == []
    assert not runtime(one_user).exists()


def test_nothing_is_left_of_a_batch_job_whose_scheduler_knows_only_its_process_tree(
    user: User,
) -> None:
    data = f"/tmp/sykube-{user.uid}-job-5-$(uname -n)-data"
    # A container's user may own files, where there is more than one ID.
    made = f"mkdir {data}/lab; touch {data}/lab/file; chown 1000 {data}/lab || true"
    job = ("env", "SLURM_JOB_ID=5", "SLURMD_NODENAME=batch", "TMPDIR=/tmp")
    user.run(*job, *words(user, "sh", "-ec", f"{made}; sleep 300 &", last=False))
    # The job's first process was that one.
    wait("its processes are gone", lambda: not user.processes())
    wait("its files are gone", lambda: not list(Path("/tmp").glob(f"sykube-{user.uid}-*")))
