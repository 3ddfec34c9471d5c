"""Ordinary users of this machine, made for a test and removed after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host
from sykube.rootless.host import SHARED_CACHE

_CHECKOUT = Path(__file__).resolve().parents[2]
# What udev opens to users, where it runs.
_DEVICES = {"/dev/net/tun": 0o666}
_PYTHON = "/usr/bin/python3"
_IMPORTS = "import click, jinja2, requests, sh, ssl, sykube, yaml"


@dataclass(frozen=True)
class User:
    """A user, with a home that is empty at first."""

    name: str
    uid: int
    home: Path

    @property
    def shown(self) -> Path:
        """Where this checkout, and the Python that runs it, are seen: they may be in /root."""
        return Path(f"/var/tmp/shown-{self.name}")

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs another as this user, with the caller's environment."""
        ids = ("--reuid", self.name, "--regid", self.name, "--clear-groups")
        return ("setpriv", *ids, "env", "--chdir", str(self.home))

    @property
    def environment(self) -> dict[str, str]:
        """What a login gives, and where sykube and its libraries are."""
        shown = str(self.shown / "checkout")
        installed = [each for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
        libraries = [shown, *(each.replace(str(_CHECKOUT), shown, 1) for each in installed)]
        found = {name: os.environ[name] for name in ("PATH", "SYKUBE_SOURCE") if name in os.environ}
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

    @property
    def python(self) -> str:
        """A Python that this user may run, with sykube's libraries."""
        own = self.shown / "python/bin" / Path(sys.executable).resolve().name
        for each in (str(own), _PYTHON):
            with contextlib.suppress(OSError):
                if self.run(each, "-c", _IMPORTS, check=False).returncode == 0:
                    return each
        raise AssertionError(f"{self.name} can run neither {own} nor {_PYTHON} with sykube")

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
    try:
        uid = home.stat().st_uid
        _grant_ids(name, ids)
        user = User(name, uid, home)
        home.chmod(0o700)
        with _opened_to_users(), _shown(user.shown):
            yield user
    finally:
        _end(User(name, home.stat().st_uid, home))
        _remove(name)
        shutil.rmtree(home, ignore_errors=True)
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


@contextlib.contextmanager
def _shown(folder: Path) -> Iterator[None]:
    """The checkout and Python where users see them."""
    binds = {folder / "checkout": _CHECKOUT, folder / "python": Path(sys.base_prefix)}
    try:
        for place, source in binds.items():
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", source, place], check=True)
        yield
    finally:
        for place in binds:
            # Lazily: what the user ran may be ending.
            subprocess.run(["umount", "--lazy", place], check=False)
            place.rmdir()
        folder.rmdir()


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
