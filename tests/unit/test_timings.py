"""Where the time of a command goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sykube.cluster.commands.steps import ALL
from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.host.run import CommandError, Completed
from sykube.kubernetes.api import wait_until
from sykube.timings import PROGRAM, WAIT, Timings, _named
from tests.fakes import World
from tests.fakes.host import FakeHost
from tests.unit.helpers import Sykube


class Clock:
    """It goes on by what a program or a wait takes, as the first word after it says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def run(self, argv: list[str], **_: object) -> Completed:
        self.now += float(argv[-1])
        if argv[0] == "fails":
            raise CommandError("no", argv, "")
        return Completed(tuple(argv), 0, "", "")

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timings(clock: Clock) -> Timings:
    return Timings(clock)


@pytest.fixture
def watched(clock: Clock, timings: Timings, tmp_path: Path) -> Host:
    # Each program takes the seconds that its last word says.
    fake = FakeHost(tmp_path, run=clock.run, monotonic=clock, sleep=clock.sleep)  # type: ignore[arg-type]
    return timings.watch(fake)


@contextmanager
def between(timings: Timings, clock: Clock, kind: str, start: float, end: float) -> Iterator[None]:
    """Something of threads: from then until then, whatever else there is."""
    with timings.span(kind, f"{start:g} to {end:g}") as span:
        yield
    span.start, span.end = start, end
    clock.now = 100.0 + max(end, clock.now - 100.0)


def wait(host: Host, what: str, seconds: float) -> None:
    until = host.monotonic() + seconds
    wait_until(host, what, lambda: "" if host.monotonic() >= until else "missing", 60, interval=1)


def test_a_step_shows_what_it_ran_and_waited_for_and_what_is_its_own(
    watched: Host, timings: Timings, clock: Clock
) -> None:
    with timings.step("Starting"):
        watched.run(["ip", "link", "2"])
        wait(watched, "nodes Ready", 3)
        clock.now += 4
    found = timings.to_dict()
    (step, outside) = found["steps"]
    assert (step["step"], step["seconds"], step["itself"]) == ("Starting", 9, 4)
    assert step["programs"] == [{"node": "", "name": "ip link", "start": 0, "seconds": 2}]
    assert step["waits"] == [{"name": "nodes Ready", "start": 2, "seconds": 3}]
    assert (outside["step"], outside["seconds"]) == ("(outside of steps)", 0)
    assert timings.seconds() == {"Starting": 9}
    assert found["seconds"] == 9


def test_the_requests_of_a_wait_are_a_part_of_it(
    watched: Host, timings: Timings, clock: Clock
) -> None:
    def request() -> str:
        with watched.waiting("API requests"):
            clock.now += 1
        return "" if clock.now >= 103 else "missing"

    request()
    wait_until(watched, "nodes Ready", request, 60, interval=0)
    request()
    found = [(each.name, each.seconds) for each in timings.spans]
    assert found[0] == found[2] == ("API requests", 1)
    assert found[1][0] == "nodes Ready"
    assert len(found) == 3


def test_what_is_outside_of_steps_is_shown_too(
    watched: Host, timings: Timings, clock: Clock
) -> None:
    watched.run(["modprobe", "1"])
    with timings.step("Starting"):
        clock.now += 2
    clock.now += 4
    outside = timings.to_dict()["steps"][-1]
    assert (outside["seconds"], outside["itself"]) == (5, 4)
    assert [each["name"] for each in outside["programs"]] == ["modprobe"]


def test_a_step_within_a_step_is_a_part_of_it(
    watched: Host, timings: Timings, clock: Clock
) -> None:
    with timings.step("Rolling back"):
        clock.now += 1
        with timings.step("Removing"):
            watched.run(["umount", "2"])
    outer, inner, outside = timings.to_dict()["steps"]
    assert (outer["seconds"], outer["itself"], outer["programs"]) == (3, 1, [])
    assert [each["name"] for each in inner["programs"]] == ["umount"]
    assert outside["seconds"] == 0


def test_steps_of_one_title_are_added_up(timings: Timings, clock: Clock) -> None:
    for _ in range(2):
        with timings.step("Waiting"):
            clock.now += 2
    assert timings.seconds() == {"Waiting": 4}


def test_what_fails_is_recorded_up_to_its_end(watched: Host, timings: Timings) -> None:
    with pytest.raises(CommandError), timings.step("Starting"):
        watched.run(["fails", "2"])
    with pytest.raises(SykubeError, match="not there"):
        wait_until(watched, "DNS", lambda: "missing", 5, interval=1)
    assert [(each.name, each.seconds) for each in timings.spans] == [
        ("Starting", 2), ("fails", 2), ("DNS", 6),
    ]  # fmt: skip


def test_what_goes_on_at_once_is_counted_once(timings: Timings, clock: Clock) -> None:
    with timings.step("Joining"):
        for start, end in ((0, 6), (2, 5), (8, 10)):
            with between(timings, clock, PROGRAM, start, end):
                pass
    assert timings.to_dict()["steps"][0]["itself"] == 2


def test_the_chain_goes_back_from_the_end_along_what_the_others_waited_for(
    timings: Timings, clock: Clock
) -> None:
    # Two threads of two programs each, a wait with a program in it, then a program.
    spans = [(0, 3), (3, 4), (0, 2), (2, 6), (7, 8), (10, 11)]
    for start, end in spans:
        with between(timings, clock, PROGRAM, start, end):
            pass
    with between(timings, clock, WAIT, 6.5, 8):
        pass
    assert [each.name for each in timings.chain()] == ["0 to 2", "2 to 6", "6.5 to 8", "10 to 11"]
    assert timings.lines()[-1] == "   8.50 s  of 11.00 s; the rest is in sykube itself"


def test_people_see_equal_programs_as_one_and_nothing_small(
    watched: Host, timings: Timings, clock: Clock
) -> None:
    with timings.step("Starting"):
        for seconds in ("1", "2"):
            watched.run(["ip", "link", seconds])
        watched.run(["sysctl", "0.05"])
        clock.now += 1
        watched.run(["modprobe", "0.06"])
    assert timings.lines()[:4] == [
        "   4.11 s  Starting",
        "         1.00 s  in sykube itself",
        "         3.00 s  ip link",
        "         0.11 s  others",
    ]
    assert not any("sysctl" in line for line in timings.lines())


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("/usr/sbin/ip link set", ("ip link", "")),
        ("ip -j route", ("ip", "")),
        ("/x/apptainer --config c instance start --overlay o i lab-node1",
         ("apptainer instance start", "lab-node1")),
        ("apptainer instance stop --signal SIGKILL lab-node1",
         ("apptainer instance stop", "lab-node1")),
        ("apptainer --silent exec --pwd / instance://lab-master kubeadm init --config c",
         ("kubeadm init", "lab-master")),
        ("apptainer exec instance://lab-master env KUBECONFIG=/x kubeadm token",
         ("kubeadm token", "lab-master")),
        ("apptainer exec instance://lab-master sh -c text check-node lab-master",
         ("check-node", "lab-master")),
        ("apptainer exec instance://lab-master sh -c text", ("sh", "lab-master")),
        ("apptainer exec instance://lab-master cat /etc/hosts", ("cat", "lab-master")),
    ],
)  # fmt: skip
def test_programs_have_the_names_that_people_know(words: str, shown: tuple[str, str]) -> None:
    assert _named(words.split()) == shown


def test_init_shows_its_timings_as_json(world: World, sykube: Sykube) -> None:
    done = sykube("init", "-q", "-o", "json", "--timings", "--dns", "192.0.2.1")
    assert done.err == ""
    shown = json.loads(done.out)
    steps = {each["step"]: each for each in shown["timings"]["steps"]}
    assert set(shown["seconds"]) == {*steps} - {"(outside of steps)"}
    waits = [each["name"] for each in steps["Waiting for nodes, pods and DNS"]["waits"]]
    assert [each for each in waits if each != "API requests"] == [
        "nodes Ready", "pods Ready", "DNS", "DNS",
    ]  # fmt: skip
    (joining,) = (step.title for step in ALL if step.name == "join")
    assert "API requests" in [each["name"] for each in steps[joining]["waits"]]
    programs = steps["Setting up the network"]["programs"]
    assert "ip link" in [each["name"] for each in programs]
    assert shown["timings"]["chain"]
    without = json.loads(sykube("init", "-o", "json", "--name", "b", "--dns", "192.0.2.1").out)
    assert "timings" not in without


def test_commands_show_their_timings_on_stderr_also_when_quiet(
    world: World, sykube: Sykube
) -> None:
    for command in (["init", "--dns", "192.0.2.1"], ["start"], ["node", "add"]):
        done = sykube(*command, "-q", "--timings")
        assert (done.code, done.out) == (0, "")
        assert "  Waiting for nodes, pods and DNS\n" in done.err
        assert "longest chain of waits and programs:\n" in done.err
    assert "Setting up" not in sykube("start", "-q").err


def test_a_command_that_failed_shows_its_timings_too(world: World, sykube: Sykube) -> None:
    world.programs.answers["iptables-restore"] = lambda _: (1, "", "no")
    done = sykube("init", "-q", "--timings", "--dns", "192.0.2.1")
    assert done.code != 0
    assert "  Rolling back\n" in done.err
    assert done.err.index("longest chain") < done.err.index("error:")
