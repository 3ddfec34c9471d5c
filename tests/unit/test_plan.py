"""The runner of steps, on steps that only say when they are called."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sykube.cluster.commands import plan
from sykube.cluster.commands.plan import Step
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import DONE, STARTED, State
from sykube.errors import SykubeError
from tests.fakes import Calls, Injected, World
from tests.fakes.engine import FakeEngine
from tests.fakes.nodes import make_subnets
from tests.fakes.ui import RecordingUi


class FakeStep:
    """A step that records its calls and the state on disk at that time."""

    def __init__(self, name: str, events: list[str], *, done: bool = True) -> None:
        self.name = name
        self.title = f"Step {name}"
        self.events = events
        self.done = done
        self.error: BaseException | None = None
        self.seen: dict[str, str] = {}

    def is_done(self, cluster: Cluster) -> bool:
        self.events.append(f"is_done {self.name}")
        return self.done

    def apply(self, cluster: Cluster) -> None:
        self.events.append(f"apply {self.name}")
        self.seen = dict(recorded(cluster).steps)
        if self.error:
            raise self.error

    def undo(self, cluster: Cluster) -> None:
        self.events.append(f"undo {self.name}")
        if self.error:
            raise self.error


def real(steps: list[FakeStep]) -> list[Step]:
    return [Step(each.name, each.title, each.is_done, each.apply, each.undo) for each in steps]


def recorded(cluster: Cluster) -> State:
    """The state as it is on disk."""
    state = State.load(cluster.paths.state)
    assert state is not None
    return state


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    state = State(ClusterSpec(name="fake"), make_subnets(), "", {}, "", "", {}, "", ())
    world = World(tmp_path / "host")
    (world.host.data / "fake").mkdir(parents=True)
    return Cluster(world.host, state, RecordingUi(Calls()), FakeEngine(world))


@pytest.fixture
def steps() -> list[FakeStep]:
    events: list[str] = []
    return [FakeStep(name, events) for name in ("one", "two", "three")]


def test_steps_are_applied_in_order_and_recorded_as_done(
    cluster: Cluster, steps: list[FakeStep]
) -> None:
    plan.execute(cluster, real(steps))
    assert steps[0].events == ["apply one", "apply two", "apply three"]
    assert recorded(cluster).steps == {"one": DONE, "two": DONE, "three": DONE}
    assert cluster.ui.steps == ["Step one", "Step two", "Step three"]  # type: ignore[attr-defined]


def test_a_step_is_recorded_as_started_on_disk_before_it_changes_anything(
    cluster: Cluster, steps: list[FakeStep]
) -> None:
    plan.execute(cluster, real(steps))
    assert steps[1].seen == {"one": DONE, "two": STARTED}


def test_a_failing_step_stays_started_and_the_later_ones_are_not_reached(
    cluster: Cluster, steps: list[FakeStep]
) -> None:
    steps[1].error = Injected("no")
    with pytest.raises(Injected):
        plan.execute(cluster, real(steps))
    assert recorded(cluster).steps == {"one": DONE, "two": STARTED}
    assert "apply three" not in steps[0].events


def test_a_step_is_skipped_only_when_it_was_done_and_its_result_is_still_there(
    cluster: Cluster, steps: list[FakeStep]
) -> None:
    cluster.state.steps = {"one": DONE, "two": DONE, "three": STARTED}
    steps[1].done = False
    plan.execute(cluster, real(steps))
    # A step that was only started is not asked: half of its result may be there.
    assert steps[0].events == ["is_done one", "is_done two", "apply two", "apply three"]


def test_steps_of_one_title_are_applied_at_the_same_time(
    cluster: Cluster, steps: list[FakeStep]
) -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(_cluster: Cluster) -> None:
        both.wait()

    one, two, three = real(steps)
    beside = [replace(each, title="Beside", apply=meet) for each in (one, two)]
    plan.execute(cluster, [*beside, three])
    assert cluster.ui.steps == ["Beside", "Step three"]  # type: ignore[attr-defined]
    assert recorded(cluster).steps == {"one": DONE, "two": DONE, "three": DONE}


def test_a_failing_step_does_not_leave_one_beside_it_running(
    cluster: Cluster, steps: list[FakeStep]
) -> None:
    failed, ended = threading.Event(), threading.Event()

    def fail(_cluster: Cluster) -> None:
        failed.set()
        raise Injected("no")

    def go_on(_cluster: Cluster) -> None:
        failed.wait(20)
        time.sleep(0.05)
        ended.set()

    one, two, three = real(steps)
    beside = [replace(one, title="Beside", apply=fail), replace(two, title="Beside", apply=go_on)]
    with pytest.raises(Injected):
        plan.execute(cluster, [*beside, three])
    assert ended.is_set()
    assert recorded(cluster).steps == {"one": STARTED, "two": STARTED}


@pytest.mark.parametrize(
    ("point", "events", "state"),
    [
        ("before:two", ["apply one"], {"one": DONE, "two": STARTED}),
        ("after:two", ["apply one", "apply two"], {"one": DONE, "two": STARTED}),
    ],
)
def test_the_points_where_tests_make_init_fail(
    cluster: Cluster,
    steps: list[FakeStep],
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    events: list[str],
    state: dict[str, str],
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", point)
    with pytest.raises(SykubeError, match=f"made to fail at {point}"):
        plan.execute(cluster, real(steps))
    assert steps[0].events == events
    assert recorded(cluster).steps == state


def test_undo_goes_backwards_through_all_steps(cluster: Cluster, steps: list[FakeStep]) -> None:
    assert plan.undo(cluster, real(steps)) == []
    assert steps[0].events == ["undo three", "undo two", "undo one"]


@pytest.mark.parametrize(
    "error",
    [
        Injected("it is stuck"),
        OSError(28, "it is stuck"),
        ValueError("it is stuck"),
    ],
    ids=["SykubeError", "OSError", "bug"],
)
def test_a_failing_undo_is_reported_and_the_others_still_run(
    cluster: Cluster, steps: list[FakeStep], error: Exception
) -> None:
    steps[1].error = error
    problems = plan.undo(cluster, real(steps))
    assert len(problems) == 1
    assert problems[0].startswith("two: ")
    assert "it is stuck" in problems[0]
    assert steps[0].events == ["undo three", "undo two", "undo one"]


def test_on_each_ends_all_before_it_raises_the_first_error() -> None:
    ended: list[str] = []

    def act(name: str) -> None:
        if name in ("b", "c"):
            raise Injected(name)
        ended.append(name)

    with pytest.raises(Injected, match="b"):
        on_each(["a", "b", "c", "d"], act)
    assert sorted(ended) == ["a", "d"]
    on_each([], act)
