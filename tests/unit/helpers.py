"""Clusters in a fake world."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands import lifecycle
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.errors import ExitCode, UsageError
from sykube.host.host import Host
from tests.fakes import World, fill
from tests.fakes.ui import RecordingUi


def fake_spec(name: str = "fake", workers: int = 1, **fields: Any) -> ClusterSpec:
    fields.setdefault("dns", ("127.0.0.53", "192.0.2.53"))
    return ClusterSpec(name=name, workers=workers, **fields)


def init(
    world: World,
    spec: ClusterSpec | None = None,
    ui: RecordingUi | None = None,
    *,
    retain: bool = False,
) -> Cluster | None:
    return lifecycle.init(
        world.host, spec or fake_spec(), InitOptions(retain=retain), ui or world.ui()
    )


def made(world: World, workers: int = 1, **fields: Any) -> Cluster:
    """A cluster that is up, with the calls so far forgotten."""
    cluster = init(world, fake_spec(workers=workers, **fields))
    assert cluster is not None
    world.calls.all.clear()
    return cluster


def mount(root: Path, *mounted: tuple[Path, str]) -> None:
    """Let file systems be mounted there, as /proc/self/mountinfo of a machine has them."""
    lines = [
        f"{number} 1 8:1 / {str(point).replace(' ', chr(92) + '040')} rw shared:1 - {kind} x rw\n"
        for number, (point, kind) in enumerate([(Path("/"), "ext4"), *mounted])
    ]
    fill(root / "proc/self", {"mountinfo": "".join(lines)})


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two snapshots of a world, a line each."""
    found = []
    for what in before:
        one, two = before[what], after[what]
        if isinstance(one, dict):
            found += [
                f"{what} {key}: {one.get(key)!r} → {two.get(key)!r}"
                for key in sorted({*one, *two})
                if one.get(key) != two.get(key)
            ]
        elif one != two:
            found.append(f"{what}: {one!r} → {two!r}")
    return found


@contextlib.contextmanager
def unchanged(world: World) -> Iterator[None]:
    """The host is afterwards what it was before, but for caches and logs."""
    before = world.snapshot()
    yield
    assert differences(before, world.snapshot()) == []


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Sykube = Callable[..., Result]


class Terminal:
    """A real pseudo-terminal, and what was written to it."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.stream = os.fdopen(slave, "w")
        self._read = bytearray()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        # EIO is the end of it.
        try:
            while data := os.read(self._master, 65536):
                self._read += data
        except OSError:
            pass

    def text(self) -> str:
        """Everything that was written; closes it."""
        self.stream.close()
        self._thread.join()
        os.close(self._master)
        return self._read.decode()


def without_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy or password of this machine's site is in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def errors(host: Host, file: Path, text: str, **flags: Any) -> list[str]:
    """The errors of a configuration file, without its name."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, flags)
    assert raised.value.exit_code is ExitCode.USAGE
    shown = raised.value.details.splitlines() or [raised.value.brief]
    return [line.removeprefix(f"{file}:") for line in shown]
