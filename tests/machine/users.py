"""Ordinary users of this machine, made for a test and removed after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host
from sykube.image import choice, mirrors
from sykube.rootless.host import SHARED_CACHE

_CHECKOUT = Path(__file__).resolve().parents[2]
# What udev opens to users, where it runs.
_DEVICES = {"/dev/net/tun": 0o666}
# Most of what is installed beside sykube, which no command of a user needs.
_UNUSED = ("grpc*", "mypy*", "*__mypyc*", "numpy*", "pip", "scipy*", "selenium*")
# The one that runs the tests may be in /root.
PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class User:
    """A user, with a home that is empty at first."""

    name: str
    uid: int
    home: Path

    @property
    def shown(self) -> Path:
        """Where this checkout and its libraries are for this user."""
        return Path(f"/var/tmp/shown-{self.name}")

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs another as this user, with the caller's environment."""
        ids = ("--reuid", self.name, "--regid", self.name, "--clear-groups")
        return ("setpriv", *ids, "env", "--chdir", str(self.home))

    @property
    def environment(self) -> dict[str, str]:
        """What a login gives, and where sykube and its libraries are."""
        libraries = map(str, (self.shown / "checkout", self.shown / "libraries"))
        named = ("PATH", choice.VARIABLE, *(each.variable for each in mirrors.SETTINGS.values()))
        found = {name: os.environ[name] for name in named if name in os.environ}
        return found | {
            "HOME": str(self.home),
            "USER": self.name,
            "PYTHONPATH": ":".join(libraries),
            "PYTHONDONTWRITEBYTECODE": "1",
            SHARED_CACHE: str(Host().cache),
        }

    def run(
        self, *command: str, check: bool = True, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user."""
        done = subprocess.run(
            [*self.prefix, *command], env=self.environment, input=stdin, capture_output=True,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def processes(self) -> list[str]:
        """What runs as this user, or as a user of a namespace of its own."""
        first = self._first_subordinate()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                owner = process.stat().st_uid
                # One that has ended has no words; its parent has not looked yet.
                if words and (owner == self.uid or (first and first <= owner < first + 65536)):
                    found.append(f"{process.name} {words}")
        return found

    def _first_subordinate(self) -> int:
        lines = Path("/etc/subuid").read_text(encoding="utf-8").splitlines()
        return next(
            (int(line.split(":")[1]) for line in lines if line.startswith(f"{self.name}:")), 0
        )


@contextlib.contextmanager
def made(name: str, *, ids: int = 0) -> Iterator[User]:
    """A user of that name.

    Args:
        ids: the first of 65536 subordinate users and groups; 0 for none.
    """
    _remove(name)
    home = Path("/var/tmp") / f"home-{name}"
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run(
        ["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/sh", name], check=True
    )
    uid = home.stat().st_uid
    user = User(name, uid, home)
    try:
        _grant_ids(name, ids)
        home.chmod(0o700)
        _show(user.shown)
        with _opened_to_users():
            yield user
    finally:
        _end(user)
        _remove(name)
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(user.shown, ignore_errors=True)
        for folder in (f"/tmp/sykube-{uid}", f"/run/user/{uid}"):
            shutil.rmtree(folder, ignore_errors=True)
        for group in Path("/sys/fs/cgroup").glob(f"*/sykube-{uid}"):
            for each in sorted(group.rglob("*/"), reverse=True):
                each.rmdir()
            group.rmdir()


def _grant_ids(name: str, first: int) -> None:
    """Let a user have these subordinate IDs and no others; useradd gives some by itself."""
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        kept = [line for line in lines if not line.startswith(f"{name}:")]
        file.write_text("".join([*kept, *([f"{name}:{first}:65536\n"] if first else [])]))


def _remove(name: str) -> None:
    subprocess.run(["userdel", "--force", name], capture_output=True, check=False)


def _end(user: User) -> None:
    """Kill what a test that failed has left."""
    deadline = time.monotonic() + 30
    while left := user.processes():
        for line in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _show(folder: Path) -> None:
    """What users see of this checkout, which may be in /root or for its owner only."""
    shutil.rmtree(folder, ignore_errors=True)
    hidden, unused = shutil.ignore_patterns(".*"), shutil.ignore_patterns(".*", *_UNUSED)
    shutil.copytree(_CHECKOUT, folder / "checkout", ignore=hidden)
    shutil.copytree(sysconfig.get_path("purelib"), folder / "libraries", ignore=unused)
    # Users may not write there: each of their commands would compile what has not been.
    subprocess.run([PYTHON, "-m", "compileall", "-q", folder / "checkout/sykube"], check=True)
    subprocess.run(["chmod", "--recursive", "a+rX", folder], check=True)


@contextlib.contextmanager
def _opened_to_users() -> Iterator[None]:
    """Devices with the modes that udev gives them, and the images that root has built."""
    wanted = {**_DEVICES, str(Host().cache): 0o755}
    before = {path: Path(path).stat().st_mode & 0o7777 for path in wanted}
    for path, mode in wanted.items():
        Path(path).chmod(mode)
    try:
        yield
    finally:
        for path, mode in before.items():
            Path(path).chmod(mode)
