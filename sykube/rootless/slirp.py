"""slirp4netns: the way from a user's namespaces to the world, and from ports of the host to them.

Its API: https://github.com/rootless-containers/slirp4netns/blob/master/slirp4netns.1.md
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube.errors import HostError, SykubeError
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.run import CommandError, start_detached

PROGRAM = "slirp4netns"
# What it gives the namespace, whatever the host has: its manual page.
ADDRESS = "10.0.2.100"
RESOLVER = "10.0.2.3"
_LINK = "tap0"
# As large as its packets may be: the fewer, the faster.
_MTU = 65520
_TIMEOUT_S = 10.0
# ip(7), ip_unprivileged_port_start.
_UNPRIVILEGED = 1024


class _EndedError(SykubeError):
    """There is nobody who could answer."""


@dataclass(frozen=True)
class Forward:
    """A port of the host that leads into the namespace."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class Slirp:
    """One slirp4netns, asked over its socket."""

    socket: Path

    @property
    def record(self) -> Path:
        """The file of its process number."""
        return self.socket.with_suffix(".pid")

    def start(self, host: Host, pid: int, lifeline: int, log: Path) -> None:
        """Connect the network namespace of a process to the world.

        Args:
            lifeline: the reading end of a pipe that the process holds open; it ends with it.
            log: the file that it writes to.

        Raises:
            HostError: it does not start.
        """
        program = host.which(PROGRAM)
        if program is None:
            raise CommandError(f"could not find the program {PROGRAM}", [PROGRAM], "")
        self.socket.unlink(missing_ok=True)
        reader, writer = os.pipe()
        try:
            slirp = start_detached(
                [
                    program, "--configure", f"--mtu={_MTU}", "--disable-host-loopback",
                    f"--api-socket={self.socket}", f"--ready-fd={writer}",
                    f"--exit-fd={lifeline}", str(pid), _LINK,
                ],
                output=log,
                descriptors=(writer, lifeline),
            )  # fmt: skip
            # Before it is ready: another one could not take its place beside it.
            write_atomically(self.record, str(slirp), mode=0o600)
            os.close(writer)
            writer = -1
            ready, _, _ = select.select([reader], [], [], _TIMEOUT_S)
            if not (ready and os.read(reader, 1)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slirp, signal.SIGKILL)
                text = log.read_text(encoding="utf-8", errors="replace")
                raise HostError(
                    f"{PROGRAM} does not start",
                    details="\n".join(text.splitlines()[-5:]),
                    resolution="Ask the administrator for: modprobe tun && chmod 666 /dev/net/tun",
                )
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def add(self, wanted: Forward, number: int = 0) -> None:
        """Let a port of the host lead to a port in the namespace.

        Args:
            number: of that one; 0 is the same.

        Raises:
            OSError: it is in use, or not to be had.
            SykubeError: nobody answers.
        """
        answer = self._ask(
            "add_hostfwd",
            proto=wanted.protocol,
            host_addr=wanted.address,
            host_port=wanted.port,
            guest_addr=ADDRESS,
            guest_port=number or wanted.port,
        )
        if "error" in answer:
            # It does not say why.
            reason = errno.EACCES if wanted.port < _UNPRIVILEGED else errno.EADDRINUSE
            raise OSError(reason, f"the port {wanted} of the host cannot be had")

    def remove(self, gone: Forward) -> None:
        """Close a port of the host; one that is closed already is no error.

        So are all of them where it has ended, as at the end of a batch job, which asks all to end.
        """
        with contextlib.suppress(_EndedError):
            for each, number in self.forwards().items():
                if each == gone:
                    self._ask("remove_hostfwd", id=number)

    def forwards(self) -> dict[Forward, int]:
        """The ports of the host that lead into the namespace, each with its number."""
        answer = self._ask("list_hostfwd")
        # Its manual page has it in "return"; 1.2.0 has it at the top.
        entries = answer.get("return", answer).get("entries", [])
        return {
            Forward(each["proto"], each["host_addr"], each["host_port"]): each["id"]
            for each in entries
        }

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One request, on a connection of its own."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_TIMEOUT_S)
                connection.connect(str(self.socket))
                connection.sendall(json.dumps(request).encode())
                connection.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: connection.recv(4096), b""))
            answer: dict[str, Any] = json.loads(received)
        except (OSError, ValueError) as error:
            ended = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            raise (_EndedError if ended else SykubeError)(
                f"{PROGRAM} does not answer: {error}",
                resolution="Run the command again: it starts another one where it is gone.",
            ) from error
        return answer
