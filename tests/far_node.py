"""A node that is not of this host: a second class beside LocalNode, with commands alone.

It serves what looks at a cluster (status, logs, exec). mypy names what it would need to be started
and updated, too: the methods of Node that have no body.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.host.run import CommandError, Completed
from sykube.node.node import Log, Node


class Pipe:
    """The way to another machine: one process, and what is written to it and read from it."""

    def __init__(self, root: Path) -> None:
        program = Path(__file__).with_name("far_machine.py")
        self.process = subprocess.Popen(
            [sys.executable, program, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def run(self, argv: Sequence[str], stdin: str | None) -> Completed:
        assert self.process.stdin
        assert self.process.stdout
        if self.process.poll() is not None:
            return Completed(tuple(argv), 255, "", "the other machine does not answer")
        with self._lock:
            self.process.stdin.write(json.dumps({"argv": [*argv], "stdin": stdin}) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        return Completed(tuple(argv), answer["code"], answer["stdout"], answer["stderr"])

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@dataclass(frozen=True)
class FarLog:
    """A log that is read by commands."""

    node: Node
    path: str

    def read(self, count: int | None = None) -> Iterator[str]:
        command = ["cat"] if count is None else ["tail", "-n", str(count)]
        yield from self.node.run([*command, self.path]).stdout.splitlines()

    def follow(self, count: int) -> Callable[[], Iterator[str]]:
        seen = max(0, len([*self.read()]) - count)

        def lines() -> Iterator[str]:
            nonlocal seen
            new = self.node.run(["tail", "-n", f"+{seen + 1}", self.path]).stdout.splitlines()
            seen += len(new)
            yield from new

        return lines


@dataclass(frozen=True)
class FarNode(Node):
    """A node at the other end of a pipe."""

    pipe: Pipe

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        done = self.pipe.run(argv, stdin)
        if check and not done.ok:
            raise CommandError(f"{argv[0]} failed", argv, done.stdout + done.stderr)
        return done

    def exec(self, argv: Sequence[str]) -> None:
        done = self.pipe.run(argv, None)
        sys.stdout.write(done.stdout)
        raise SystemExit(done.code)

    def pull(self, path: str) -> Path:
        place = Path(tempfile.mkdtemp()) / Path(path).name
        for file in self.run(["find", path, "-type", "f"], check=False).stdout.splitlines():
            target = place / Path(file).relative_to(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.read(file))
        return place

    def exists(self) -> bool:
        return True

    def is_running(self) -> bool:
        return self.pipe.process.poll() is None

    def is_frozen(self) -> bool:
        return False

    def services(self) -> dict[str, str]:
        listed = self.run(["supervisorctl", "status"]).stdout.splitlines()
        return {line.split()[0]: line.split()[1] for line in listed}

    def log(self, service: str) -> Log | None:
        path = f"/var/log/sykube/{service}.log"
        return FarLog(self, path) if self.run(["test", "-f", path], check=False).ok else None

    def disk(self) -> dict[str, int]:
        if not self.is_running():
            return {}
        return {"other": 1024 * int(self.run(["du", "-sk", "/"]).stdout.split()[0])}

    def exchange(self, address: tuple[str, int], request: bytes, timeout: float) -> bytes:
        command = ["ask-udp", address[0], str(address[1]), request.hex()]
        return bytes.fromhex(self.run(command).stdout)
