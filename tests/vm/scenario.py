"""What is done in the guest: stages, which are shell files, and reboots between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOOT_LIMIT_S = 300
WHOLE_LIMIT_S = 5400


@dataclass(frozen=True)
class Stage:
    """A shell file that the guest runs in a login of its own.

    Attributes:
        limit_s: seconds until it is ended, which fails the scenario.
        user: whose login it is.
    """

    script: Path
    limit_s: int
    user: str = "root"

    @property
    def name(self) -> str:
        return self.script.stem


@dataclass(frozen=True)
class Reboot:
    """The guest reboots; the next stage runs in the machine that came up again."""


@dataclass(frozen=True)
class Scenario:
    """Stages and reboots in their order; the first stage that fails ends it.

    Attributes:
        users: ordinary users make clusters in it, of a node image that root has built.
    """

    name: str
    summary: str
    steps: tuple[Stage | Reboot, ...]
    users: bool = False

    def plan(self) -> str:
        """What guest/driver reads: a line for each step."""
        lines = [
            f"stage {step.name} {step.limit_s} {step.user}" if isinstance(step, Stage) else "reboot"
            for step in self.steps
        ]
        return "".join(f"{line}\n" for line in lines)

    def scripts(self) -> tuple[Path, ...]:
        """The files that its stages run."""
        return tuple(step.script for step in self.steps if isinstance(step, Stage))


def _stage(name: str, minutes: int, user: str = "root") -> Stage:
    return Stage(HERE / "stages" / f"{name}.sh", minutes * 60, user)


PREPARE = _stage("prepare", 5)
# The first user that useradd makes, as guest/lib.sh knows it.
USER, USER_ID, FIRST_SUBORDINATE = "ada", 1000, 100_000

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "cluster",
            "two nodes apart on cgroup v2, a pod and its DNS, a reboot that the cluster outlives, "
            "a clock that jumps, delete without a trace",
            (
                PREPARE,
                _stage("init", 30),
                _stage("look", 5),
                _stage("pod", 10),
                _stage("autostart", 10),
                Reboot(),
                _stage("returned", 25),
                _stage("clock", 25),
                _stage("delete", 10),
            ),
        ),
        Scenario(
            "users",
            "an ordinary user's node on cgroup v2 that systemd hands on: limits, pause, logouts "
            "without and with lingering, a unit that starts it at boot",
            (
                PREPARE,
                _stage("users-prepare", 5),
                _stage("users-init", 30, USER),
                _stage("users-logout", 3),
                _stage("users-autostart", 15, USER),
                _stage("users-lingering", 3),
                Reboot(),
                _stage("users-returned", 15, USER),
                _stage("users-gone", 3),
            ),
            users=True,
        ),
        Scenario(
            "runtimes",
            "tests/e2e/test_runtimes.py on cgroup v2: what pods may expect of runc, crun and Apptainer, "
            "on one node of root's; its table is in the log",
            (PREPARE, _stage("runtimes-init", 30), _stage("runtimes", 70), _stage("delete", 10)),
        ),
        Scenario(
            "boot",
            "the machine alone: Debian 13, systemd, cgroup v2, a reboot; no cluster",
            (PREPARE, Reboot(), _stage("rebooted", 5)),
        ),
    )
}


def of_files(words: list[str], limit_s: int) -> Scenario:
    """A scenario of given shell files, for a look at one thing.

    Args:
        words: a file, `ada:FILE` for one that the user runs, or `reboot`.
    """
    steps: list[Stage | Reboot] = []
    for word in words:
        user, _, file = word.rpartition(":")
        stage = Stage(Path(file).resolve(), limit_s, user or "root")
        steps.append(Reboot() if word == "reboot" else stage)
    summary = "shell files given on the command line"
    users = any(word.startswith(f"{USER}:") for word in words)
    return Scenario("files", summary, (PREPARE, *steps), users)
