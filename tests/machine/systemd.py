"""A machine that systemd has booted, with logins: this one's root, in namespaces (tests/machine/systemd).

It shows what systemd does with users' processes. What needs controllers of cgroup v2 is for tests.vm:
where this machine has v1, they are not to be had.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.machine import cgroup
from tests.machine.users import User

_SCRIPT = Path(__file__).with_name("systemd")
_CGROUP = "sykube-test-systemd"
_BOOT_S = 60.0
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
_CONF = "/etc/systemd/logind.conf.d/test.conf"


def missing() -> str:
    """What this machine lacks for it; empty where it lacks nothing."""
    programs = ("systemctl", "busctl", "loginctl", "runuser")
    lacks = [each for each in programs if not shutil.which(each)]
    return ", ".join(lacks) or ("" if _hierarchy() else "cgroup v2")


def _hierarchy() -> str:
    """Where this machine has cgroup v2, beside v1 or alone."""
    lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    return next((line.split()[1] for line in lines if line.split()[2] == "cgroup2"), "")


@dataclass(frozen=True)
class Systemd:
    """The machine, by the number of its first process."""

    pid: int

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command as root."""
        enter = ("nsenter", f"--target={self.pid}", *_NAMESPACES)
        return subprocess.run(
            [*enter, *words], capture_output=True, text=True, timeout=timeout, check=False
        )

    def login(self, user: User, script: str) -> str:
        """Run a shell's script in a login of a user's; what it prints.

        Raises:
            AssertionError: it failed.
        """
        variables = [f"{name}={value}" for name, value in user.environment.items()]
        command = shlex.join(["env", *variables, "sh", "-ec", script])
        service = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect")
        done = self.run(*service, "runuser", "-l", user.name, "-c", command, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def configure_logins(self, *lines: str) -> None:
        """Give logind these settings; users' systemd ends at once, and not 10 s later."""
        text = "\n".join(("[Login]", "UserStopDelaySec=0", *lines, ""))
        self.run("mkdir", "-p", str(Path(_CONF).parent))
        self.run("sh", "-c", f"printf %s {shlex.quote(text)} > {_CONF}")
        assert self.run("systemctl", "kill", "-s", "HUP", "systemd-logind").returncode == 0


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Systemd]:
    """The machine, from when one can log in on.

    Args:
        folder: an empty one of the caller's.
    """
    cgroup.remove(_CGROUP)
    words = ["sh", str(_SCRIPT), str(folder), f"{_hierarchy()}/{_CGROUP}"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield _wait(process)
    finally:
        process.kill()
        process.wait()
        cgroup.remove(_CGROUP)


def _wait(process: subprocess.Popen[bytes]) -> Systemd:
    deadline = time.monotonic() + _BOOT_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline and process.poll() is None:
        for pid in children.read_text(encoding="utf-8").split():
            machine = Systemd(int(pid))
            if machine.run("systemctl", "is-active", "logins.target").stdout == "active\n":
                return machine
        time.sleep(0.1)
    raise AssertionError("systemd does not boot in namespaces")
