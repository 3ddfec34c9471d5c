"""kill -9 at random moments of an ordinary user's commands, of what their clusters hang on.

The first process of the user's namespaces, slirp4netns, and sykube itself: afterwards `start` brings
the cluster back with all that it had acknowledged, or `delete` leaves nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sykube.host.host import Host
from sykube.image.build import list_images
from tests.e2e.of_users import cluster_of, give_cgroups, host_changes
from tests.machine import users
from tests.machine.users import User
from tests.soak.bench import Bench, Outcome, Unexpected

_NAME = "soak"
_USER, _IDS = "soak-user", 480_000
_SNAPSHOT = "soak"
_NO_SUCH_CLUSTER = 5
_END_S = 600
_GONE_S = 30.0
_VICTIMS = ("namespaces", "slirp4netns", "sykube")


@dataclass(frozen=True)
class Command:
    """A command during which something is killed.

    Attributes:
        prepare: commands that bring a healthy cluster to where it makes sense.
        after: commands that bring it back, beside `start`, with all of their words.
    """

    words: str
    prepare: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


_IDLE = Command("kubectl apply")
_INIT = Command("init")
COMMANDS = (
    _IDLE,
    _INIT,
    Command("start", ("stop",)),
    Command("stop"),
    Command(f"snapshot save {_SNAPSHOT}", ("stop",), (f"snapshot delete {_SNAPSHOT}",)),
    Command("node add", (), (f"node delete node2 --name {_NAME}",)),
)


class UserBench(Bench):
    """A user's cluster, whose data is on disk.

    Attributes:
        kept: objects that the cluster has acknowledged.
        usual: seconds that a command takes, once it was seen.
    """

    plain = ("--workers", "1", "--dns", "192.0.2.53")

    def __init__(self, user: User, image_kubectl: Path) -> None:
        self.user, self._kubectl = user, image_kubectl
        self.kept: list[str] = []
        self.usual: dict[str, float] = {}
        super().__init__(cluster_of(user, _NAME), [user.home])

    @property
    def runtime(self) -> Path:
        return Path(f"/tmp/sykube-{self.user.uid}")

    def new_name(self) -> str:
        """The name of an object that the cluster does not have yet."""
        return f"kept-{time.monotonic_ns()}"

    def assert_kept(self) -> None:
        """All that was acknowledged is there, by the user's own kubectl from outside.

        Raises:
            Unexpected: some of it is not.
        """
        done = self.user.run(
            str(self._kubectl), "--kubeconfig", str(self.cluster.kubeconfig), "get", "configmaps",
            "--output", "name", check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unexpected(f"the user's kubectl: {done.stderr.strip()}")
        there = {line.removeprefix("configmap/") for line in done.stdout.split()}
        if lost := [name for name in self.kept if name not in there]:
            raise Unexpected(f"acknowledged and lost: {', '.join(lost)}")

    def assert_clean(self) -> None:
        deadline = time.monotonic() + _GONE_S
        while left := self._left():
            if time.monotonic() > deadline:
                raise Unexpected(f"{len(left)} left behind: {'; '.join(left[:5])}")
            time.sleep(0.2)

    def _left(self) -> list[str]:
        # What an init leaves there, also root's.
        kept = (".cache", ".kube", ".local/state", ".bash", ".profile", "kubeconfig")
        shown = (str(each.relative_to(self.user.home)) for each in _files(self.user.home))
        left = [each for each in shown if not each.startswith(kept)]
        if self.runtime.exists():
            left.append(str(self.runtime))
        return self.user.processes() + left + host_changes(self.before)


def _files(home: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(home):
        if ".cache" in folders:
            folders.remove(".cache")
        yield from (Path(folder) / each for each in files)


def kills(count: int, moments: random.Random) -> Iterator[Outcome]:
    """`count` kills, half of them of what a user has to whom nothing more is granted.

    Each command comes with each victim before any of these comes again.
    """
    pairs = _pairs(moments)
    yield from _of_user("nothing", 0, itertools.islice(pairs, (count + 1) // 2), moments)
    yield from _of_user("granted", _IDS, itertools.islice(pairs, count // 2), moments)


def _of_user(
    tier: str, ids: int, pairs: Iterator[tuple[Command, str]], moments: random.Random
) -> Iterator[Outcome]:
    with users.made(_USER, ids=ids) as user:
        if ids:
            give_cgroups(user)
        bench = UserBench(user, list_images(Host())[0].kubectl)
        try:
            for command, victim in pairs:
                share = moments.random()
                name = f"{tier}: {victim} at {share:.0%} of {command.words}"
                action = partial(_killed, bench, command, victim, share, moments)
                yield bench.case("kills", name, action)
        finally:
            bench.clear()
        yield bench.case("after", f"{tier}: delete after kills", bench.assert_clean)


def _pairs(moments: random.Random) -> Iterator[tuple[Command, str]]:
    while True:
        pairs = list(itertools.product(COMMANDS, _VICTIMS))
        moments.shuffle(pairs)
        yield from pairs


def _killed(
    bench: UserBench, command: Command, victim: str, share: float, moments: random.Random
) -> None:
    if command is _INIT:
        bench.clear()
        bench.kept.clear()
        if command.words not in bench.usual:
            _bring_up(bench)
            bench.clear()
    else:
        _bring_up(bench)
    for words in command.prepare:
        bench.sykube(words)
    code, errors = _strike(bench, command, victim, share, moments)
    # What has ended by a signal says nothing; what was told says why in words of sykube's.
    for wrong in ("Traceback", "sykube itself failed"):
        if wrong in errors:
            raise Unexpected(f"ended with {code}: {' / '.join(errors.strip().splitlines()[-6:])}")
    if command is _INIT and bench.sykube("start", check=False).returncode != 0:
        deleted = bench.sykube("delete", "--yes", check=False)
        if deleted.returncode not in (0, _NO_SUCH_CLUSTER):
            raise Unexpected(f"delete ended with {deleted.returncode}: {deleted.stderr[-300:]}")
        bench.assert_clean()
        return
    bench.sykube("start")
    bench.sykube("status")
    bench.assert_kept()
    for words in command.after:
        bench.cluster.sykube(*words.split(), check=False)


def _bring_up(bench: UserBench) -> None:
    """A healthy cluster with an object more."""
    started = time.monotonic()
    if bench.sykube("status", check=False).returncode == _NO_SUCH_CLUSTER:
        bench.kept.clear()
        bench.sykube("init", *bench.plain)
        bench.usual.setdefault("init", time.monotonic() - started)
    name = bench.new_name()
    bench.cluster.apply(_object(name))
    bench.kept.append(name)


def _object(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def _strike(
    bench: UserBench, command: Command, victim: str, share: float, moments: random.Random
) -> tuple[int, str]:
    """Run a command, or several of the shortest, and kill its victim meanwhile.

    Returns:
        Its exit code, and what it said.
    """
    if command is _IDLE:
        moment = time.monotonic() + 10 * share
        while time.monotonic() < moment:
            _apply_one(bench)
        return _apply_one(bench, victim, moments)
    usual = bench.usual.get(command.words, 15.0)
    started = time.monotonic()
    with bench.running(command.words, bench.plain if command is _INIT else ()) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=usual * share)
        struck = _kill(bench, victim, process, moments)
        _, errors = process.communicate(timeout=_END_S)
    if not struck:
        bench.usual[command.words] = time.monotonic() - started
    return process.returncode, errors


def _apply_one(
    bench: UserBench, victim: str = "", moments: random.Random | None = None
) -> tuple[int, str]:
    """`kubectl apply` of an object, which is kept where it was acknowledged."""
    name = bench.new_name()
    file = bench.user.home / "object.json"
    file.write_text(json.dumps(_object(name)), encoding="utf-8")
    file.chmod(0o644)
    with bench.running("kubectl", ("apply", "-f", str(file))) as process:
        if victim and moments:
            time.sleep(moments.uniform(0.0, 0.6))
            _kill(bench, victim, process, moments)
        _, errors = process.communicate(timeout=_END_S)
    file.unlink()
    if process.returncode == 0:
        bench.kept.append(name)
    elif not victim:
        raise Unexpected(f"kubectl apply ended with {process.returncode}: {errors}")
    return process.returncode, errors


def _kill(
    bench: UserBench, victim: str, process: subprocess.Popen[str], moments: random.Random
) -> bool:
    """Kill it once it is there; False where the command has ended before that."""
    while True:
        ended = process.poll() is not None
        if victim == "sykube":
            # What waits outside of the namespaces, or what works in them.
            pids = [] if ended else [process.pid, *_children(process.pid)]
            pid = moments.choice(pids) if pids else 0
        else:
            pid = _recorded(bench.runtime, victim)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return not ended
        if ended:
            return False
        time.sleep(0.02)


def _recorded(runtime: Path, victim: str) -> int:
    """The process number of one that runs; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        if victim == "namespaces":
            text = (runtime / "namespaces.json").read_text(encoding="utf-8")
            return int(json.loads(text)["pid"])
        pid = int((runtime / "slirp4netns.pid").read_text(encoding="utf-8"))
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == victim:
            return pid
    return 0


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
        return [int(each) for each in text.split()]
    return []
