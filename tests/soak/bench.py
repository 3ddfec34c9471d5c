"""A cluster that is made and broken over and over, and the host as it was before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import TestCluster, host_before
from tests.hostdiff import HostSnapshot, leaks_since

_INIT_TIMEOUT_S = 900
_END_TIMEOUT_S = 120
_LOCKED = 7


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `problem` is empty when it went as it should."""

    part: str
    case: str
    seconds: float
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.part:8} {self.case:45} {self.seconds:6.1f} s  {self.problem or 'well'}"


class Unexpected(Exception):
    """A case went as it should not."""


class Bench:
    """The cluster `name` and the host without it.

    Attributes:
        plain: options of an init with nothing special about it: two nodes in memory.
    """

    plain: tuple[str, ...] = ("--workers", "1", "--ephemeral", "--dns", "127.0.0.1")

    def __init__(self, cluster: TestCluster, folders: Sequence[Path] = ()) -> None:
        """Of a cluster that may leave files in some folders; without any, root's."""
        self.name, self.folder, self.cluster = cluster.name, cluster.folder, cluster
        self.clear()
        self.before = HostSnapshot.take(folders) if folders else host_before(self.name)

    def clear(self) -> None:
        """Remove the cluster, if any of it is there, also when its init still ends."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        while time.monotonic() < deadline:
            done = self.sykube("delete", "--yes", check=False)
            if done.returncode != _LOCKED:
                return
            time.sleep(1)

    def sykube(
        self, command: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command for the cluster to its end."""
        words = [*command.split(), "--name", self.name, *arguments]
        done = self.cluster.sykube(*words, check=False, timeout=_INIT_TIMEOUT_S)
        if check and done.returncode != 0:
            last = " / ".join(done.stderr.strip().splitlines()[-4:])
            raise Unexpected(f"{command} ended with exit code {done.returncode}: {last}")
        return done

    def init(
        self, options: Sequence[str], environment: dict[str, str] | None = None
    ) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """An init that runs; it does not outlive the body."""
        return self.running("init", options, environment)

    @contextlib.contextmanager
    def running(
        self, command: str, options: Sequence[str] = (), environment: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A command for the cluster that runs; it does not outlive the body."""
        words = [*command.split(), "--name", self.name, *options]
        # A session of its own: what interrupts the soak test is not for it.
        with subprocess.Popen(
            [*self.cluster.prefix, self.cluster.python, "-m", "sykube", *words],
            env=self.cluster.environment | (environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as running:
            try:
                yield running
            finally:
                if running.poll() is None:
                    running.send_signal(signal.SIGTERM)
                    try:
                        running.communicate(timeout=_END_TIMEOUT_S)
                    except subprocess.TimeoutExpired:
                        os.killpg(running.pid, signal.SIGKILL)

    def assert_clean(self) -> None:
        """The host is as it was.

        Raises:
            Unexpected: it is not.
        """
        if leaks := leaks_since(self.before):
            shown = "; ".join(str(leak) for leak in leaks[:5])
            raise Unexpected(f"{len(leaks)} left behind: {shown}")

    def assert_next_init_works(self) -> None:
        """The next init succeeds, and after delete nothing of it is left.

        Raises:
            Unexpected: one of them does not.
        """
        self.sykube("init", *self.plain)
        self.sykube("status")
        self.sykube("delete", "--yes")
        self.assert_clean()

    def case(
        self, part: str, name: str, action: Callable[[], None], *, clear: bool = True
    ) -> Outcome:
        """Do something that raises Unexpected where it goes wrong.

        Args:
            clear: nothing is left of the cluster then.
        """
        started = time.monotonic()
        problem = ""
        try:
            action()
        except Unexpected as error:
            problem = str(error)
        except subprocess.TimeoutExpired as error:
            problem = f"not within {error.timeout:.0f} s: {' '.join(map(str, error.cmd))}"
        if problem and clear:
            self.clear()
        return Outcome(part, name, time.monotonic() - started, problem)
