"""How a command in the namespaces asks the user's systemd: by a process that did not enter them.

libsystemd talks to no process that it has no number of (getpeercred: ENODATA), as it has none of
those in other PID namespaces.
"""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import SykubeError
from sykube.host import background
from sykube.host.host import Host
from sykube.host.run import CommandError, Completed

_NOT_RUN = 127


@dataclass(frozen=True)
class Outside:
    """That process.

    Attributes:
        connection: the way to it, with which it ends.
        pid: its number, for its parent.
    """

    connection: socket.socket
    pid: int

    def run(self, argv: Sequence[str], *, check: bool) -> Completed:
        """Run a program there.

        Raises:
            CommandError: it failed, and was not to.
        """
        with self.connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(f"{json.dumps([*argv])}\n")
            stream.flush()
            code, stdout, stderr = json.loads(stream.readline())
        done = Completed(tuple(argv), code, stdout, stderr)
        if check and not done.ok:
            raise CommandError(f"{argv[0]} failed with exit code {code}", argv, stdout + stderr)
        return done

    def end(self) -> None:
        """Let it end, and wait for it; for its parent, when nobody else has the connection."""
        self.connection.close()
        os.waitpid(self.pid, 0)


def begin(host: Host, log: Path, env: Mapping[str, str]) -> Outside:
    """Start it as a child of this process.

    Args:
        log: the file that it writes to.
        env: variables of what it runs.
    """
    own, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _serve(host, log, theirs.detach(), env)
    theirs.close()
    return Outside(own, pid)


def _serve(host: Host, log: Path, descriptor: int, env: Mapping[str, str]) -> None:
    """Run what is asked for until nobody can ask any more; it does not return."""
    try:
        background.detach(log, {descriptor})
        with socket.socket(fileno=descriptor) as own, own.makefile("rw", encoding="utf-8") as asked:
            for line in asked:
                asked.write(f"{json.dumps(_run(host, json.loads(line), env))}\n")
                asked.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _run(host: Host, argv: list[str], env: Mapping[str, str]) -> tuple[int, str, str]:
    try:
        done = host.run(argv, env=env, check=False)
    except SykubeError as error:
        return _NOT_RUN, "", f"{error.brief}\n{error.details}"
    return done.code, done.stdout, done.stderr
