"""What supervisord says of its programs, asked of a real one."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.node import supervised
from tests.fakes import FakeHost

PROGRAM = Path(__file__).resolve().parents[2] / "definitions/node/supervisord"
# sockaddr_un: 108 bytes with the one that ends the path.
_LONGEST_PATH = 107
CONFIGURATION = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/supervisord.pid
[unix_http_server]
file={folder}/run/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:kubelet]
command=cat
startsecs=0
[program:keepalived]
command=cat
autostart=false
[program:stubborn]
command=sh -c 'trap "" TERM; while :; do sleep 0.1; done'
startsecs=0
stopwaitsecs=1
[eventlistener:ready]
command={python} {folder}/listener.py {folder}/ready
events=PROCESS_STATE_RUNNING
startsecs=0
"""
# Writes to a named pipe once the kubelet is RUNNING. Protocol: supervisord.org/events.html
LISTENER = """
import sys

while True:
    print("READY", flush=True)
    header = dict(pair.split(":") for pair in sys.stdin.readline().split())
    event = sys.stdin.read(int(header["len"]))
    if "processname:kubelet" in event:
        with open(sys.argv[1], "w") as ready:
            ready.write("x")
    print("RESULT 2\\nOK", end="", flush=True)
"""


@pytest.fixture
def node(fast_path: Path) -> Iterator[int]:
    """A process whose supervisord has its socket below a folder of the test."""
    (fast_path / "run").mkdir()
    file = fast_path / "supervisord.conf"
    file.write_text(CONFIGURATION.format(folder=fast_path, python=sys.executable))
    (fast_path / "listener.py").write_text(LISTENER)
    os.mkfifo(fast_path / "ready")
    opened = os.open(fast_path / "ready", os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen(
        [sys.executable, PROGRAM, "-c", file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            readable, _, _ = select.select([opened], [], [], 20)
            assert readable, "supervisord does not come up"
            yield process.pid
        finally:
            process.terminate()
            os.close(opened)


@pytest.fixture
def host(fast_path: Path) -> FakeHost:
    """Every process that is asked for has the folder for its root."""
    return FakeHost(fast_path / "host")


def root_of(host: FakeHost, pid: int, folder: Path) -> None:
    (host.proc / str(pid)).mkdir(parents=True)
    (host.proc / str(pid) / "root").symlink_to(folder)


def test_each_program_is_there_with_its_state(host: FakeHost, node: int, fast_path: Path) -> None:
    root_of(host, node, fast_path)
    found = supervised.states(host, node)
    assert found.pop("ready") == supervised.RUNNING
    assert found.pop("stubborn") == supervised.RUNNING
    assert found == {"kubelet": supervised.RUNNING, "keepalived": "STOPPED"}


def test_a_node_without_supervisord_is_an_error_in_one_line(
    host: FakeHost, fast_path: Path
) -> None:
    root_of(host, os.getpid(), fast_path)
    with pytest.raises(SykubeError, match="supervisord does not answer: .*No such file"):
        supervised.states(host, os.getpid())


def test_a_supervisord_that_ended_and_left_its_socket_is_an_error(
    host: FakeHost, fast_path: Path
) -> None:
    root_of(host, os.getpid(), fast_path)
    (fast_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(fast_path / "run/supervisor.sock"))
    with pytest.raises(SykubeError, match="supervisord does not answer: .*refused"):
        supervised.states(host, os.getpid())


def test_the_socket_of_any_process_is_within_what_a_socket_address_holds() -> None:
    # The largest process number that Linux has: PID_MAX_LIMIT.
    assert len(str(Host().proc / str(2**22) / supervised._SOCKET)) <= _LONGEST_PATH


def test_a_program_ends_and_starts_and_what_is_so_already_is_no_error(
    host: FakeHost, node: int, fast_path: Path
) -> None:
    root_of(host, node, fast_path)
    for _ in range(2):
        supervised.stop(host, node, "kubelet")
        assert supervised.states(host, node)["kubelet"] == "STOPPED"
    for _ in range(2):
        supervised.start(host, node, "kubelet")
        assert supervised.states(host, node)["kubelet"] in ("STARTING", supervised.RUNNING)
    for action in (supervised.stop, supervised.start):
        with pytest.raises(SykubeError, match="BAD_NAME"):
            action(host, node, "nothing")


def test_a_program_has_ended_where_another_stop_of_it_was_under_way(
    host: FakeHost, node: int, fast_path: Path
) -> None:
    root_of(host, node, fast_path)
    with supervised._server(host, node) as server:
        server.supervisor.stopProcess("stubborn", False)
    assert supervised.states(host, node)["stubborn"] == "STOPPING"
    supervised.stop(host, node, "stubborn")
    assert supervised.states(host, node)["stubborn"] == "STOPPED"


def test_a_node_s_programs_are_awaited_until_supervisord_kills_them() -> None:
    folder = PROGRAM.parents[2] / "supervisor"
    files = [folder / "keepalived.conf", folder / "gpu-plugin.conf"]
    files += (folder / "programs").iterdir()
    waits = [int(re.findall(r"^stopwaitsecs=(\d+)$", file.read_text(), re.M)[0]) for file in files]
    assert len(waits) == 4
    assert 2 * max(waits) < supervised.STOP_TIMEOUT_S


def test_a_node_is_up_when_its_supervisord_answers(
    host: FakeHost, node: int, fast_path: Path
) -> None:
    assert not supervised.is_up(host, node)
    root_of(host, node, fast_path)
    assert supervised.is_up(host, node)


def test_names_of_functions_are_found_without_pkg_resources_and_ssl(tmp_path: Path) -> None:
    """Supervisor up to 4.2, Debian's, asks pkg_resources for them."""
    package = tmp_path / "supervisor"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "supervisord.py").write_text(
        "import pkg_resources, sys\n"
        "def main():\n"
        "    found = pkg_resources.EntryPoint.parse('x=os.path:join').resolve()\n"
        "    print(found.__name__, sys.modules['ssl'], hasattr(pkg_resources, 'WorkingSet'))\n"
    )
    done = subprocess.run(
        [sys.executable, PROGRAM],
        env={"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["join", "None", "False"]
