"""What benchmarks.slurm asks for, and makes of what programs say."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks import slurm
from benchmarks.intervals import Estimate
from benchmarks.slurm_places import FOLDER, Bare, Pods, Work, libraries, remove
from sykube.bench import hpcc_output
from sykube.bench.hpcc_input import Shape

WORK = Work(Shape(4, 1), 4, 500, 1.0)
CROWDED = Work(Shape(8, 1), 2, 0, 1.0)
TIMES = "8 bytes: 0.350 32.567 149825.461 us\n262144 bytes: 101.119 790.715 68246.532 us\n"


def said(*hosts: str) -> str:
    """What ranks on these hosts say."""
    lines = [f"rank {rank} of {len(hosts)} on {host}\n" for rank, host in enumerate(hosts)]
    return "".join(lines) + TIMES


def options(**changed: Any) -> argparse.Namespace:
    defaults = {"ranks": None, "threads": None, "pods": None, "size": 0, "seconds": 1, "runs": 10}
    return argparse.Namespace(**(defaults | changed))


# --- what is asked for ---


@pytest.mark.parametrize(
    ("cores", "shape", "counts"),
    [
        (1, "1x1", [1]),
        (2, "2x1", [1, 2]),
        (6, "4x1", [1, 2, 4]),
        (8, "8x1", [1, 2, 4, 8]),
        (112, "8x14", [1, 2, 4, 8]),
    ],
)
def test_ranks_and_threads_are_as_many_as_cores_for_every_number_of_pods(
    cores: int, shape: str, counts: list[int]
) -> None:
    work, pods = slurm.chosen(options(), cores)
    assert (str(work.shape), pods) == (shape, counts)
    assert not work.is_crowded


def test_more_ranks_than_cores_are_for_whoever_asks_for_them() -> None:
    work, pods = slurm.chosen(options(ranks=8), 2)
    assert (str(work.shape), pods, work.is_crowded) == ("8x1", [1, 2, 4, 8], True)
    assert slurm.chosen(options(ranks=8, pods=[8, 2, 8]), 2)[1] == [2, 8]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"ranks": 4, "pods": [3]}, "4 ranks are not the same number on each of 3 pods"),
        ({"ranks": 2, "pods": [4]}, "2 ranks are not the same number on each of 4 pods"),
        ({"ranks": 2, "pods": [0]}, "more than 0"),
        ({"ranks": -2}, "more than 0"),
        ({"ranks": 0}, "more than 0"),
        ({"runs": 0}, "more than 0"),
        ({"seconds": 0}, "more than 0"),
        ({"size": -1}, "more than 0"),
    ],
)
def test_what_could_not_be_compared_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        slurm.chosen(options(**changed), 2)


def test_pods_have_equal_parts_of_the_cores_and_of_the_matrix() -> None:
    assert [WORK.cpus(pods) for pods in (1, 2, 4)] == [4, 2, 1]
    # No pod has less than one.
    assert [CROWDED.cpus(pods) for pods in (1, 2, 4, 8)] == [2, 1, 1, 1]
    memory = [int(WORK.memory(pods).removesuffix("Mi")) for pods in (1, 2, 4)]
    assert memory == [256 + 640 + 4, 256 + 320 + 2, 256 + 160 + 1]


# --- how it is started ---


def test_the_same_program_is_started_with_the_same_environment_and_ranks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def timed(command: list[Any], *, given: str) -> tuple[float, str]:
        commands.append([str(each) for each in command])
        return 1.0, given

    monkeypatch.setattr("benchmarks.slurm_places.timed", timed)
    for place in (Bare(WORK, tmp_path), Pods(WORK, "lab", 2, "crun")):
        assert place.run(*place.launcher, f"{FOLDER}/allreduce", given="input") == "input"
    bare, pods = commands
    environment = slice(-len(WORK.environment), None)
    assert bare[: bare.index("mpirun")][environment] == WORK.environment
    assert pods[: pods.index("salloc")][environment] == WORK.environment
    assert bare[-3:] == ["-n", "4", f"{FOLDER}/allreduce"]
    assert {"--ntasks=4", "--nodes=2", "--distribution=block", "--cpus-per-task=1"} <= {*pods}
    assert pods[pods.index("--namespace") + 1] == "bench-slurm-2-crun"
    assert "OMPI_MCA_mpi_yield_when_idle=0" in bare


def test_where_ranks_share_cores_they_yield_and_slurm_lets_them() -> None:
    launcher = Pods(CROWDED, "lab", 4).launcher
    assert {"--overcommit", "--ntasks=8", "--distribution=block"} <= {*launcher}
    assert not [word for word in launcher if word.startswith("--cpus-per-task")]
    assert "OMPI_MCA_mpi_yield_when_idle=1" in CROWDED.environment


def test_each_place_has_a_name_and_a_namespace_of_its_own() -> None:
    places = [Pods(WORK, "lab", n, r) for n in (1, 2) for r in ("", "crun")]
    assert [each.title for each in places] == ["C=1", "C=1 crun", "C=2", "C=2 crun"]
    assert len({each.namespace for each in places}) == 4


def test_all_slurm_clusters_are_removed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each waits for the other.
    both = threading.Barrier(2, timeout=20)
    removed: list[str] = []

    def down(place: Pods) -> None:
        both.wait()
        removed.append(place.namespace)

    monkeypatch.setattr(Pods, "down", down)
    remove([Pods(WORK, "lab", 1), Pods(WORK, "lab", 2)])
    assert sorted(removed) == ["bench-slurm-1", "bench-slurm-2"]


def test_libraries_are_those_that_ldd_has_found() -> None:
    assert libraries(
        "\tlinux-vdso.so.1 (0x00007fe0bcd77000)\n"
        "\tlibblas.so.3 => /lib/x86_64-linux-gnu/libblas.so.3 (0x00007fe0bcc4b000)\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007fe0bcd79000)\n"
    ) == {"libblas.so.3": "/lib/x86_64-linux-gnu/libblas.so.3"}


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def run(folder: Path, name: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A program of benchmarks/in_slurm, beside those of a folder."""
    ours = Path(slurm.__file__).with_name("in_slurm")
    shutil.copy(ours / name, folder)
    return subprocess.run(
        [folder / name, *words],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_hpc_challenge_is_started_by_a_launcher_and_leaves_nothing(tmp_path: Path) -> None:
    program(tmp_path, "hpcc", "echo noise; cat hpccinf.txt > hpccoutf.txt")
    done = run(tmp_path, "hpcc-by", "env", given="of the input\n")
    first, seconds = done.stdout.splitlines()
    assert first == "of the input"
    assert float(seconds.removeprefix("sykube_seconds=")) > 0
    program(tmp_path, "hpcc", "exit 7")
    assert run(tmp_path, "hpcc-by", "env").returncode == 7
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hpcc", "hpcc-by"]


def test_a_jobs_latency_is_from_its_submission_to_its_own_time(tmp_path: Path) -> None:
    program(tmp_path, "squeue", "")
    # Each look at the clock takes a second.
    program(tmp_path, "date", 'echo >> "$0.looks"; echo "$(wc -l < "$0.looks")000000000"')
    program(tmp_path, "sbatch", 'sh -c "$4" > "${2#--output=}"')
    program(tmp_path, "srun", 'exec "$@"')
    found = slurm.latencies(run(tmp_path, "latency").stdout)
    assert found == {"sbatch_ms": 1000.0, "srun_ms": 1000.0}
    assert not [*tmp_path.glob("latency-*")]
    program(tmp_path, "sbatch", "exit 1")
    assert run(tmp_path, "latency").returncode == 1


# --- what it said ---


def test_an_allreduce_has_its_shortest_its_mean_and_its_longest_time() -> None:
    found = slurm.allreduce(said("c1-0", "c2-0", "c1-0", "c2-0"), 2)
    assert found == {
        "allreduce_min_us": 0.35,
        "allreduce_avg_us": 32.567,
        "allreduce_max_us": 149825.461,
        "allreduce_large_us": 790.715,
    }
    assert slurm.allreduce(said("host", "host"), 0) == found


@pytest.mark.parametrize(
    ("text", "pods", "why"),
    [
        (said("c1-0", "c1-0"), 2, "not spread evenly over 2 pods"),
        (said("c1-0", "c1-0", "c2-0"), 2, "not spread evenly"),
        (said("c1-0", "c2-0"), 0, "not spread evenly over 0"),
        (said("c1-0", "c2-0").replace("rank 1", "task 1"), 2, "ranks are missing"),
        ("rank 0 of 1 on c1-0\n", 1, "it did not end"),
        ("", 1, "ranks are missing"),
    ],
)
def test_a_run_that_was_not_what_was_asked_for_is_no_figure(text: str, pods: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        slurm.allreduce(text, pods)


def test_latencies_are_milliseconds() -> None:
    assert slurm.latencies("sbatch 250500\nsrun 93000\n") == {"sbatch_ms": 250.5, "srun_ms": 93.0}


@pytest.mark.parametrize("order", [0, 500])
def test_a_run_has_each_figure_that_has_a_title(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(Shape(2, 1), 2, order, 1.0)
    of_hpcc = dict.fromkeys(hpcc_output.figures(2), 1.0)
    monkeypatch.setattr(hpcc_output, "parse", lambda *_: of_hpcc)
    asked: list[tuple[str, str]] = []

    def run(_: Pods, *command: str, given: str = "") -> str:
        asked.append((command[0].rpartition("/")[2], given))
        return said("c1-0", "c2-0")

    monkeypatch.setattr(Pods, "run", run)
    found = slurm.mpi_once(Pods(work, "lab", 2), work)
    assert [*found] == [*slurm.titles(work)]
    assert [name for name, _ in asked] == ["salloc", "hpcc-by"][: 2 if order else 1]
    assert not order or f"\n{order} " in asked[1][1]


# --- what it makes of them ---


def test_ratios_are_of_the_same_block() -> None:
    found: slurm.Figures = {
        "C=0": {"fft": [1.0, 10.0, 100.0]},
        "C=2": {"fft": [1.1, 12.0, 130.0]},
    }
    compared = slurm.ratios(found)
    assert [*compared] == ["C=2"]
    ratio = compared["C=2"]["fft"]
    assert ratio
    assert ratio == pytest.approx(Estimate(1.2, 1.1, 1.3))
    medians = slurm.estimates(found)
    assert medians["C=0"]["fft"] == Estimate(10.0, 1.0, 100.0)
    lines = [*slurm.table({"fft": ("FFT", "Gflop/s")}, medians, compared)]
    assert lines == [
        "| median (95 % interval) | C=0 | C=2 |",
        "|-|-|-|",
        "| FFT, Gflop/s | 10.0 (1.0 to 100.0) | 12.0, × 1.20 (1.10 to 1.30) |",
    ]


def test_nodes_are_added_and_removed_again_in_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def scale(_: Pods, *words: str) -> float:
        done.append(" ".join(words))
        return float(len(done))

    monkeypatch.setattr(Pods, "slurm", scale)
    monkeypatch.setattr(Pods, "run", lambda *_: "sbatch 250500\nsrun 93000\n")
    found = slurm.elastic([Pods(WORK, "lab", 2)], 2)
    assert done == ["scale 3", "scale 2"] * 2
    assert found == {
        "C=2": {
            "sbatch_ms": [250.5] * 2,
            "srun_ms": [93.0] * 2,
            "one_more_s": [1.0, 3.0],
            "one_less_s": [2.0, 4.0],
        }
    }
