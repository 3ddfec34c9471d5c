"""Slurm clusters as the dashboard gets them."""

from __future__ import annotations

import pytest

from sykube.cluster.commands.slurm import place as places
from sykube.cluster.commands.slurm import status
from sykube.cluster.commands.slurm.place import Place
from sykube.dashboard import slurm_data
from sykube.slurm import efficiency, manifests, sacct
from sykube.slurm.spec import SlurmSpec
from tests.fakes import World
from tests.fakes.slurm import FakeSlurm
from tests.unit.helpers import made

ONE = SlurmSpec("slurm", "sykube.local/slurm:1")
RECORD = "/api/v1/namespaces/slurm/configmaps/slurm"
JOBS = """\
JobID|State|AllocCPUS|Elapsed|TotalCPU
101|COMPLETED|1|00:00:10|00:08.000
102|COMPLETED|1|00:00:10|00:08.000
103|RUNNING|1|00:00:10|00:00:00
"""


@pytest.fixture
def slurm() -> FakeSlurm:
    """A Slurm cluster of two nodes, of which one has a job."""
    found = FakeSlurm()
    found.sets = {"c1", "c2"}
    found.nodes = {"c1-0": ("idle", ""), "c2-0": ("drained", "broken fan")}
    found.work = {"c1-0": 99}
    found.apply(manifests.objects(ONE, "QQ==", owned=True)[2])
    return found


@pytest.fixture
def place(world: World, slurm: FakeSlurm) -> Place:
    world.programs.answers["kubectl"] = slurm.kubectl
    return Place(made(world, workers=0), "slurm", slurm)


def test_those_of_a_cluster_are_found_by_their_records(place: Place, slurm: FakeSlurm) -> None:
    ours = {"sykube.json": ONE.to_json()}
    named = [("slurm", "lab", ours), ("slurmdbd", "lab", {}), ("slurm", "burst", ours),
             ("slurm", "others", {"slurm.conf": ""})]  # fmt: skip
    slurm.objects["/api/v1/configmaps"] = {
        "items": [{"metadata": {"name": n, "namespace": w}, "data": data} for n, w, data in named]
    }
    found = places.all_in(place.cluster, slurm)
    assert [each.namespace for each in found] == ["burst", "lab"]


def test_nodes_are_those_of_status_and_jobs_have_all_of_squeues_words(
    place: Place, slurm: FakeSlurm
) -> None:
    slurm.listed = [
        "7_[3-10]|ada|PENDING|Resources|2|0:00||<b>a|b</b>",
        "7_2|ada|RUNNING|None|2|1-00:00:05|c1-0|two",
        "lines",
    ]
    (found,) = slurm_data.clusters([place])
    assert found["jobs"] == [
        {"id": "7_[3-10]", "name": "<b>a|b</b>", "user": "ada", "state": "pending",
         "reason": "Resources", "cpus": 2, "time": "0:00", "nodes": ""},
        {"id": "7_2", "name": "two", "user": "ada", "state": "running",
         "reason": "", "cpus": 2, "time": "1-00:00:05", "nodes": "c1-0"},
    ]  # fmt: skip
    shown = status.collect(place)
    assert found["problem"] == shown.problem == "nodes of Slurm: c2-0: drained"
    assert found["nodes"] == [*shown.to_dict()["nodes"]]
    assert [(e["name"], e["state"], e["allocated"]) for e in found["nodes"]] == [
        ("c1-0", "allocated", 1),
        ("c2-0", "drained", 0),
    ]
    assert found["nodes"][1]["reason"] == "broken fan"


def test_a_long_queue_is_cut_and_counted(place: Place, slurm: FakeSlurm) -> None:
    slurm.listed = [f"{number}|ada|PENDING|Priority|1|0:00||bag" for number in range(1, 251)]
    (found,) = slurm_data.clusters([place])
    assert (len(found["jobs"]), found["more_jobs"]) == (200, 50)


def test_one_that_fails_says_why_and_hides_no_other(place: Place, slurm: FakeSlurm) -> None:
    gone = Place(place.cluster, "gone", slurm)
    found = slurm_data.clusters([gone, place])
    assert found[0]["problem"] == "there is no Slurm cluster in the namespace gone"
    assert found[0]["nodes"] == found[0]["jobs"] == []
    assert len(found[1]["nodes"]) == 2


def test_one_whose_slurmctld_is_away_has_no_nodes_and_says_why(
    world: World, place: Place, slurm: FakeSlurm
) -> None:
    slurm.unready = {"slurmctld-0": "0/1 nodes are available: 1 Insufficient memory."}
    world.programs.answers["kubectl"] = lambda _: (1, "", "container not found")
    (found,) = slurm_data.clusters([place])
    assert found["problem"].startswith("slurmctld-0: 0/1 nodes are available")
    assert found["nodes"] == found["jobs"] == []


def test_what_jobs_made_of_their_cpus_is_as_the_command_says(
    place: Place, slurm: FakeSlurm
) -> None:
    assert slurm_data.efficiencies([place]) == {}
    accounted = SlurmSpec("slurm", "sykube.local/slurm:1", accounting=True)
    slurm.apply(manifests.objects(accounted, "QQ==", owned=True)[2])
    slurm.accounting = JOBS.splitlines()[0]
    assert slurm_data.efficiencies([place])["slurm"] == {"problem": "there is no job in sacct"}
    slurm.accounting = JOBS
    found = slurm_data.efficiencies([place])["slurm"]
    survey = efficiency.survey("slurm", sacct.read(JOBS.splitlines(), "sacct"))
    assert (found["average"], found["median"]) == (survey.average, survey.median)
    assert (found["overall"], found["unfinished"]) == (pytest.approx(80.0), 1)
    assert [each["job"] for each in found["worst"]] == ["101", "102"]
    # Both jobs are the same point.
    assert (found["jobs"], found["points"]) == (2, [(10.0, 80.0)])


def test_points_of_many_jobs_are_few(place: Place) -> None:
    lines = [f"{n}|COMPLETED|1|00:16:40|{n % 600 // 60:02}:{n % 60:02}" for n in range(1, 20_000)]
    jobs = sacct.read([JOBS.splitlines()[0], *lines], "sacct")
    survey = efficiency.survey("lab", jobs)
    points = slurm_data._points(survey.jobs)
    assert len(points) < 500
    assert max(x for x, _ in points) == pytest.approx(survey.worst(1)[0].impact_percent, rel=0.01)
