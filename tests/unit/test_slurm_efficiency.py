"""`sykube slurm efficiency`: sacct's output read, and the figures of the paper."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands.slurm import accounting
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.slurm import efficiency, sacct
from sykube.slurm.efficiency import Survey
from sykube.slurm.sacct import Job
from sykube.slurm.spec import SlurmSpec
from tests.fakes import World
from tests.fakes.slurm import FakeSlurm
from tests.unit.helpers import Sykube, made

HEADER = "JobID|State|AllocCPUS|Elapsed|TotalCPU"
# 2160 s of 2400 s, 99.5 s of 100 s, 10 s of 100 s and 0 s of 200 s.
LAB = f"""\
{HEADER}
101|COMPLETED|4|00:10:00|00:36:00
102_1|COMPLETED|1|00:01:40|01:39.500
102_2|FAILED|1|00:01:40|00:10.000
103|CANCELLED by 1001|2|00:01:40|00:00:00
"""


def jobs(text: str) -> list[Job]:
    return sacct.read(text.splitlines(keepends=True), "jobs.txt")


def survey(text: str) -> Survey:
    return efficiency.survey("lab", jobs(text))


def one(**changed: str) -> list[Job]:
    """The jobs of an output of one line, in which some columns differ."""
    values = {"JobID": "7", "State": "COMPLETED", "AllocCPUS": "1", "Elapsed": "00:00:10",
              "TotalCPU": "00:05.000"} | changed  # fmt: skip
    return jobs(f"{HEADER}\n{'|'.join(values[each] for each in sacct.COLUMNS)}\n")


# --- what sacct prints ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:00", 0.0),
        ("00:00.005", 0.005),
        ("02:03.456", 123.456),
        ("59:59", 3599.0),
        ("01:02:03", 3723.0),
        ("1-02:03:04", 93784.0),
        ("365-00:00:00", 31536000.0),
        ("INVALID", 0.0),
        ("", 0.0),
    ],
)
def test_slurms_times_are_read(text: str, seconds: float) -> None:
    (found,) = one(TotalCPU=text)
    assert found.cpu_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"Elapsed": "10"}, "Elapsed '10' is no time"),
        ({"Elapsed": "1-02:03"}, "Elapsed '1-02:03' is no time"),
        ({"TotalCPU": "-1:00"}, "TotalCPU '-1:00' is no time"),
        ({"TotalCPU": "٠١:٠٠"}, "is no time"),
        ({"AllocCPUS": "-4"}, "AllocCPUS '-4' is no number"),
        ({"AllocCPUS": "1K"}, "AllocCPUS '1K' is no number"),
        ({"State": "COMPLETED|x"}, "6 columns, where the header has 5"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(changed: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match="jobs.txt, line 2: ") as caught:
        one(**changed)
    assert why in caught.value.brief
    assert "\n" not in caught.value.brief


def test_columns_are_in_any_order_and_more_of_them_do_no_harm() -> None:
    text = (
        "TotalCPU|jobid|JobName|Elapsed|AllocCpus|State|\r\n"
        "00:36:00|101|a name|00:10:00|4|COMPLETED|\r\n"
        "\r\n"
    )
    assert jobs(text) == [Job("101", 4, 600.0, 2160.0, finished=True)]


def test_steps_are_parts_of_their_jobs_and_tasks_of_arrays_are_jobs() -> None:
    text = f"""\
{HEADER}
101|COMPLETED|4|00:10:00|00:36:00
101.batch|COMPLETED|4|00:10:00|00:30:00
101.extern|COMPLETED|4|00:10:00|00:00.001
101.0|COMPLETED|4|00:05:00|00:06:00
102_1|COMPLETED|1|00:01:40|01:39.500
102_1.batch|COMPLETED|1|00:01:40|01:39.500
102_[2-9%2]|PENDING|1|00:00:00|00:00:00
103+0|TIMEOUT|8|02:00:00|08:30:00
103+0.0|CANCELLED|8|02:00:00|08:30:00
"""
    assert [job.id for job in jobs(text)] == ["101", "102_1", "102_[2-9%2]", "103+0"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "jobs.txt is empty"),
        ("\n", "jobs.txt is empty"),
        (f"{HEADER}\n", "there is no job in jobs.txt"),
        (f"{HEADER}\n1.batch|COMPLETED|1|00:01:40|00:01:40\n", "there is no job"),
        ("JobID|State|Elapsed|TotalCPU\n", "lacks the column AllocCPUS$"),
        ("JobID|JobName|State\n", "lacks the columns AllocCPUS, Elapsed, TotalCPU"),
        (LAB.partition("\n")[2], "no output of sacct --parsable2 with its header"),
        ("JobID  State  AllocCPUS  Elapsed  TotalCPU\n-----  ---\n", "no output of sacct"),
        (HEADER.replace("|", ","), "no output of sacct"),
        ("\x7fELF\x02\x01\x00\ufffd\n", "no output of sacct"),
    ],
)
def test_what_is_no_output_of_sacct_is_refused_with_the_command_that_makes_one(
    text: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        jobs(text)
    assert f"sacct --allusers --parsable2 --format={HEADER.replace('|', ',')}" in (
        caught.value.resolution
    )


# --- the figures; by hand ---


def test_the_figures_are_those_of_the_paper() -> None:
    found = survey(LAB)
    assert [job.percent for job in found.jobs] == pytest.approx([90.0, 99.5, 10.0, 0.0])
    assert found.average == pytest.approx(199.5 / 4)
    assert found.median == pytest.approx(50.0)
    assert found.overall == pytest.approx(100 * 2269.5 / 2800)
    assert [job.wasted_s for job in found.jobs] == pytest.approx([240.0, 0.5, 90.0, 200.0])
    impacts = [job.impact_percent for job in found.jobs]
    assert impacts == pytest.approx([24000 / 2800, 50 / 2800, 9000 / 2800, 20000 / 2800])
    # What all waste is what the cluster lacks of 100 %.
    assert sum(impacts) == pytest.approx(100 - found.overall)
    assert [job.job for job in found.worst(2)] == ["101", "103"]


def test_what_a_slurm_printed_is_read() -> None:
    file = Path(__file__).parent / "fixtures/sacct/22.05.8.txt"
    found = survey(file.read_text(encoding="utf-8"))
    assert {job.job: job.percent for job in found.jobs} == {
        "1": pytest.approx(100 * 2.212 / 3),
        "3": pytest.approx(100 * 1.243 / 10),
        "2_1": pytest.approx(100 * 2.041 / 3),
        "2_2": pytest.approx(100 * 2.135 / 3),
    }
    assert found.overall == pytest.approx(100 * 7.631 / 19)
    assert (found.unfinished, found.timeless) == (1, 2)


def test_as_they_are_printed_they_are_others() -> None:
    found = survey(LAB)
    # Of 8 CPUs and 900 s.
    assert found.printed_overall == pytest.approx(100 * 2269.5 / 8 / 900)
    assert found.jobs[0].printed_impact_percent == pytest.approx(100 * 240 / 900)
    # Two jobs that waste nothing, by the formula half of it.
    full = survey(f"{HEADER}\n" + "1|COMPLETED|1|00:01:40|00:01:40\n" * 2)
    assert (full.average, full.overall, full.printed_overall) == (100.0, 100.0, 50.0)
    # With one job there is nothing to add up.
    single = survey(f"{HEADER}\n1|COMPLETED|4|00:10:00|00:36:00\n")
    assert single.overall == single.printed_overall == pytest.approx(90.0)


def test_jobs_that_have_not_ended_or_took_no_time_are_left_out_and_counted() -> None:
    found = survey(
        LAB
        + "104|RUNNING|8|1-00:00:00|00:00:00\n"
        + "105|PENDING|0|00:00:00|00:00:00\n"
        + "106|COMPLETED|1|00:00:00|00:00.020\n"
        + "107|CANCELLED by 0|0|00:00:00|\n"
        + "108|FAILED|1|INVALID|00:01.000\n"
    )
    assert found.jobs == survey(LAB).jobs
    assert (found.overall, found.average) == (survey(LAB).overall, survey(LAB).average)
    assert (found.unfinished, found.timeless) == (2, 3)


def test_a_job_that_took_more_than_it_was_given_wastes_nothing() -> None:
    found = survey(
        f"{HEADER}\n1|COMPLETED|1|00:00:10|00:15.000\n2|COMPLETED|1|00:00:10|00:05.000\n"
    )
    assert [job.percent for job in found.jobs] == pytest.approx([150.0, 50.0])
    assert [job.impact_percent for job in found.jobs] == pytest.approx([0.0, 25.0])
    assert found.over == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1|RUNNING|1|00:01:40|00:00:00", "no job in lab has ended"),
        ("1|COMPLETED|1|00:01:40|00:00:00", "no job in lab has any CPU time"),
    ],
)
def test_jobs_that_say_nothing_are_refused(line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        survey(f"{HEADER}\n{line}\n")


# --- the command ---


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "lab.txt").write_text(LAB)
    return tmp_path / "lab.txt"


def test_a_table_has_a_line_for_each_file(sykube: Sykube, lab: Path) -> None:
    other = lab.with_name("university.txt")
    # Not everybody's names are UTF-8.
    other.write_bytes(
        f"JobName|{HEADER}\n".encode() + b"caf\xe9|1|COMPLETED|1|00:00:10|00:15.000\n"
        b"x|2|RUNNING|1|00:00:10|00:00.000\n"
    )
    done = sykube("slurm", "efficiency", "--file", str(lab), "--file", str(other), "--worst", "2")
    assert done.code == ExitCode.OK
    assert done.out.splitlines() == [
        "Cluster     Jobs  Average %  Median %  Overall %  (2) as printed %",
        "lab            4      49.88     50.00      81.05              31.5",
        "university     1     150.00    150.00     150.00               150",
        "",
        "lab: jobs with the most impact",
        "  Job  Efficiency %  Wasted CPU time  Impact %",
        "  101         90.00         00:04:00      8.57",
        "  103          0.00         00:03:20      7.14",
        "university: left out as they wait or run: 1",
        "university: jobs that took more than was allocated to them: 1",
    ]


def test_programs_get_each_job(sykube: Sykube, lab: Path) -> None:
    done = sykube("slurm", "efficiency", "--file", str(lab), "--output", "json")
    (found,) = json.loads(done.out)
    assert found["name"] == "lab"
    assert found["overall_percent"] == pytest.approx(81.0535714)
    assert found["left_out"] == {"unfinished": 0, "without_time": 0}
    assert found["efficiencies"][3] == {
        "job": "103",
        "efficiency_percent": 0.0,
        "wasted_cpu_s": 200.0,
        "impact_percent": pytest.approx(7.14285714),
        "impact_as_printed_percent": pytest.approx(22.2222222),
    }


def test_standard_input_is_a_file(sykube: Sykube, lab: Path) -> None:
    before = os.dup(0)
    try:
        with lab.open(encoding="utf-8") as file:
            os.dup2(file.fileno(), 0)
        done = sykube("slurm", "efficiency", "--file", "-")
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert done.out.splitlines()[1].split()[:4] == ["standard", "input", "4", "49.88"]


@pytest.mark.parametrize("name", ["none.txt", "."])
def test_a_file_that_cannot_be_read_is_one_error(sykube: Sykube, tmp_path: Path, name: str) -> None:
    done = sykube("slurm", "efficiency", "--file", str(tmp_path / name))
    assert done.code == ExitCode.USAGE
    assert done.err.count("error: ") == 1
    assert "cannot read" in done.err


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("box.pdf",), "SVG or PNG"),
        (("none/box.svg",), "cannot be written: there is no such folder"),
        (("box.svg", "box.svg"), "the same file"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_anything_is_read(
    sykube: Sykube, tmp_path: Path, names: tuple[str, ...], why: str
) -> None:
    words = [word for name in names for word in ("--box-plot", str(tmp_path / name))]
    done = sykube("slurm", "efficiency", "--file", str(tmp_path / "none.txt"), *words)
    assert done.code == ExitCode.USAGE
    assert why in done.err


def test_without_matplotlib_the_error_has_the_command_that_installs_it(
    sykube: Sykube, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "sykube.slurm.plots", raising=False)
    picture = lab.with_name("box.svg")
    done = sykube("slurm", "efficiency", "--file", str(lab), "--box-plot", str(picture))
    assert done.code == ExitCode.HOST_NOT_READY
    assert done.out == ""
    assert f"{sys.executable} -m pip install matplotlib" in done.err
    assert not picture.exists()
    # Figures need none.
    assert sykube("slurm", "efficiency", "--file", str(lab)).code == ExitCode.OK


def test_pictures_have_each_cluster_and_are_the_same_each_time(
    sykube: Sykube, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    other = lab.with_name("other.txt")
    other.write_text(f"{HEADER}\n9001|COMPLETED|1|00:00:10|00:05.000\n")
    drawn = []
    for again in ("a", "b"):
        box, scatter, png = (
            lab.with_name(f"{again}-{name}") for name in ("box.svg", "scatter.svg", "scatter.PNG")
        )
        done = sykube(
            "slurm", "efficiency", "--file", str(lab), "--file", str(other),
            "--box-plot", str(box), "--scatter-plot", str(scatter), "--scatter-plot", str(png),
        )  # fmt: skip
        assert (done.code, done.err) == (ExitCode.OK, "")
        assert png.read_bytes().startswith(b"\x89PNG\r\n")
        drawn.append((box.read_text(encoding="utf-8"), scatter.read_text(encoding="utf-8")))
    assert drawn[0] == drawn[1]
    box_text, scatter_text = drawn[0]
    for text in ("lab", "4 jobs", "other", "1 job", "median", "average"):
        assert f">{text}</" in box_text
    assert ">lab: 4 jobs</" in scatter_text
    # The three with the most impact have their numbers.
    for job, shown in {"101": 1, "103": 1, "102_2": 1, "102_1": 0, "9001": 1}.items():
        assert scatter_text.count(f">{job}</") == shown
    monkeypatch.setattr("sykube.slurm.plots._MOST_POINTS", 3)
    sykube("slurm", "efficiency", "--file", str(lab), "--scatter-plot", str(scatter))
    assert "<image " in scatter.read_text(encoding="utf-8")
    assert "<image " not in scatter_text


def test_a_picture_that_cannot_be_written_is_one_error(sykube: Sykube, lab: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    picture = lab.with_name("full.svg")
    picture.symlink_to("/dev/full")
    done = sykube("slurm", "efficiency", "--file", str(lab), "--box-plot", str(picture))
    assert done.code == ExitCode.USAGE
    assert f"cannot write {picture}: No space left" in done.err


# --- of a Slurm cluster ---


@pytest.fixture
def place(world: World) -> Place:
    slurm = FakeSlurm()
    record: Any = {"data": {"sykube.json": SlurmSpec("slurm", "sykube.local/slurm:1").to_json()}}
    slurm.objects["/api/v1/namespaces/slurm/configmaps/slurm"] = record
    world.programs.answers["kubectl"] = slurm.kubectl
    return Place(made(world, workers=0), "slurm", slurm)


def test_a_slurm_cluster_without_accounting_is_one_clear_error(place: Place) -> None:
    with pytest.raises(SykubeError, match="the Slurm cluster slurm has no accounting") as caught:
        accounting.collect(place)
    assert "sykube slurm up --name fake --accounting" in caught.value.resolution
    assert "--file FILE" in caught.value.resolution


def test_all_that_it_has_kept_is_asked_for(place: Place) -> None:
    slurm = place.api
    assert isinstance(slurm, FakeSlurm)
    slurm.accounting = LAB
    assert accounting.collect(place) == LAB
    assert slurm.said == [
        f"sacct --allusers --parsable2 --format={HEADER.replace('|', ',')} --duplicates"
        " --starttime=1970-01-01"
    ]


def test_where_there_is_no_slurm_cluster_it_is_said(place: Place) -> None:
    slurm = place.api
    assert isinstance(slurm, FakeSlurm)
    slurm.objects.clear()
    with pytest.raises(SykubeError) as caught:
        accounting.collect(place)
    assert caught.value.exit_code == ExitCode.NO_SUCH_CLUSTER
