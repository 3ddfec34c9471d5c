"""What it costs MPI that Slurm's nodes are pods: the same work on 0, 1, 2, 4 and 8 of them.

As Table II of Cérin, Greneche and Menouer, Towards pervasive containerization of HPC job schedulers
(2020), but that the number of ranks is the same for each C, not only that of ranks times threads:
C=0    no container: mpirun on this host, with the files of Slurm's image
C=n    srun in a Slurm cluster of n nodes: pods, each with an equal part of the cores for its limit
In each place, block by block, in an order by chance:
allreduce      MPI_Allreduce of one double and of 256 KiB: microseconds of a call
HPC Challenge  its tests, with HPL's matrix of order --size; 0 leaves it out
Then, --runs times, of the smallest Slurm cluster of each runtime:
sbatch, srun   from the submission of a job until its first program runs, with nothing before it
one node       more, and less: the whole `sykube slurm scale`

Run it as root, with nothing else to do: python3 -m benchmarks.slurm [--runs 10] [--ranks R]
    [--threads T] [--pods C …] [--size N] [--seconds S] [--runtime NAME …] [--name bench]
    [--plot FILE.svg]
A cluster of that name is used as it is. By default there are up to 8 ranks, no more than cores, and
as many threads as these leave to each. --plot needs matplotlib: the extra `plots`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.intervals import Estimate, cell, estimate
from benchmarks.measure import cluster_of_two, drawing
from benchmarks.slurm_places import FOLDER, Bare, Place, Pods, Work, laid_out
from sykube.bench import hpcc_input, hpcc_output, machine
from sykube.bench.hpcc_input import Shape
from sykube.cluster.commands.bench import laboratory
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.ui import Ui

_COUNTS = (8, 4, 2, 1)
# What benchmarks/in_slurm/allreduce says.
_RANK = re.compile(r"^rank \d+ of (\d+) on (\S+)$", re.MULTILINE)
_TIMES = re.compile(r"^(\d+) bytes: (\S+) (\S+) (\S+) us$", re.MULTILINE)
_SMALL, _LARGE = "8", "262144"
_ALLREDUCE = {
    "allreduce_min_us": ("allreduce of a double, the shortest", "µs"),
    "allreduce_avg_us": ("allreduce of a double, the mean", "µs"),
    "allreduce_max_us": ("allreduce of a double, the longest", "µs"),
    "allreduce_large_us": ("allreduce of 256 KiB, the mean", "µs"),
}
_ELASTIC = {
    "sbatch_ms": ("from sbatch until the job runs", "ms"),
    "srun_ms": ("from srun until the job runs", "ms"),
    "one_more_s": ("sykube slurm scale, one node more", "s"),
    "one_less_s": ("sykube slurm scale, one node less", "s"),
}
# Of each place, by figure: a value for each block.
Figures = dict[str, dict[str, list[float]]]
Estimates = dict[str, dict[str, Estimate | None]]


def titles(work: Work) -> dict[str, tuple[str, str]]:
    """The figures of MPI that are measured, with their titles and units."""
    of_hpcc = hpcc_output.figures(work.shape.processes) if work.order else {}
    return _ALLREDUCE | {key: (each.title, each.unit) for key, each in of_hpcc.items()}


def allreduce(said: str, pods: int) -> dict[str, float]:
    """The figures of a run of benchmarks/in_slurm/allreduce.

    Args:
        pods: that there were; 0 for none.

    Raises:
        ValueError: it did not end, or its ranks were not where they should have been.
    """
    ranks = _RANK.findall(said)
    where = Counter(host for _, host in ranks)
    if {int(total) for total, _ in ranks} != {len(ranks)}:
        raise ValueError(f"ranks are missing:\n{said}")
    if len(where) != max(pods, 1) or len({*where.values()}) != 1:
        raise ValueError(f"ranks are not spread evenly over {pods} pods: {dict(where)}")
    times = {size: [float(each) for each in found] for size, *found in _TIMES.findall(said)}
    if {*times} != {_SMALL, _LARGE}:
        raise ValueError(f"it did not end:\n{said}")
    shortest, mean, longest = times[_SMALL]
    figures = (shortest, mean, longest, times[_LARGE][1])
    return dict(zip(_ALLREDUCE, figures, strict=True))


def latencies(said: str) -> dict[str, float]:
    """The figures of a run of benchmarks/in_slurm/latency, in milliseconds."""
    times = dict(line.split() for line in said.splitlines())
    return {f"{each}_ms": int(times[each]) / 1000 for each in ("sbatch", "srun")}


def mpi_once(place: Place, work: Work) -> dict[str, float]:
    """The figures of MPI of one run in a place."""
    pods = place.count if isinstance(place, Pods) else 0
    said = place.run(*place.launcher, f"{FOLDER}/allreduce", str(work.seconds))
    found = allreduce(said, pods)
    if work.order:
        asked = hpcc_input.written(work.shape, work.order)
        said = place.run(f"{FOLDER}/hpcc-by", *place.launcher, given=asked.text)
        found |= hpcc_output.parse(said, work.shape.processes)
    tell(place.title, found)
    return found


def tell(title: str, found: Mapping[str, float]) -> None:
    """Print the figures of one run, of which those of an interrupted benchmark are there."""
    print(
        f"{title}: {', '.join(f'{what} {value:.4g}' for what, value in found.items())}", flush=True
    )


def elastic_once(place: Pods) -> dict[str, float]:
    """How soon a job runs in a Slurm cluster, and how long one node takes to come and to go."""
    found = latencies(place.run(f"{FOLDER}/latency"))
    found["one_more_s"] = place.slurm("scale", str(place.count + 1))
    found["one_less_s"] = place.slurm("scale", str(place.count))
    tell(place.title, found)
    return found


def elastic(places: Sequence[Pods], runs: int) -> Figures:
    """What `elastic_once` finds of each, run by run, in an order by chance."""
    found: Figures = {each.title: {what: [] for what in _ELASTIC} for each in places}
    for _ in range(runs):
        for place in random.sample(places, len(places)):
            for what, value in elastic_once(place).items():
                found[place.title][what].append(value)
    return found


def measure(
    cluster: Cluster, work: Work, counts: Sequence[int], runtimes: Sequence[str], runs: int
) -> tuple[Figures, Figures]:
    """The figures of MPI of each place, and those of how Slurm clusters are elastic."""
    with laid_out(cluster, work, counts, runtimes) as (bare, pods):
        places: dict[str, Place] = {bare.title: bare} | {each.title: each for each in pods}
        measures = laboratory.in_blocks(
            cluster,
            [*places],
            titles(work),
            lambda title: mpi_once(places[title], work),
            runs=runs,
            margin=0.02,
        )
        found = {
            title: {what: [*each.values[title]] for what, each in measures.items()}
            for title in places
        }
        first = {each.runtime: each for each in sorted(pods, key=lambda pods: -pods.count)}
        return found, elastic([*first.values()], runs)


def ratios(found: Figures) -> Estimates:
    """How much more of each figure each place has than C=0, block by block."""
    base = found[Bare.title]
    return {
        title: {
            what: estimate([one / of for one, of in zip(values, base[what], strict=True)])
            for what, values in figures.items()
        }
        for title, figures in found.items()
        if title != Bare.title
    }


def estimates(found: Figures) -> Estimates:
    """The median of each figure of each place."""
    return {
        title: {what: estimate(values) for what, values in figures.items()}
        for title, figures in found.items()
    }


def table(
    named: Mapping[str, tuple[str, str]], found: Estimates, compared: Estimates
) -> Iterable[str]:
    """Medians and, where there is one, their ratio to C=0, as docs/ has them."""
    yield f"| median (95 % interval) | {' | '.join(found)} |"
    yield f"|{'-|' * (len(found) + 1)}"
    for what, (title, unit) in named.items():
        cells = []
        for place, figures in found.items():
            ratio = compared.get(place, {}).get(what)
            median = figures[what]
            # Its interval says less than that of its ratio.
            shown = cell(median).partition(" ")[0] if ratio else cell(median)
            cells.append(f"{shown}, × {cell(ratio)}" if ratio else shown)
        yield f"| {title}, {unit} | {' | '.join(cells)} |"


def default_ranks(cores: int) -> int:
    """As many as the paper's largest but one C, and no more than cores."""
    return next(count for count in _COUNTS if count <= max(1, cores))


def chosen(options: argparse.Namespace, cores: int) -> tuple[Work, list[int]]:
    """What is asked for, with defaults for the machine: the work, and how many pods have it.

    Raises:
        ValueError: some pods would have more ranks than others, or a number is none.
    """
    ranks = default_ranks(cores) if options.ranks is None else options.ranks
    threads = max(1, cores // max(1, ranks)) if options.threads is None else options.threads
    counts = sorted({*(options.pods or (each for each in _COUNTS if ranks % each == 0))})
    if min(ranks, threads, options.runs, *counts) < 1 or options.size < 0 or options.seconds <= 0:
        raise ValueError(
            "ranks, threads, pods, runs and seconds are more than 0, and --size is not less"
        )
    if uneven := [count for count in counts if ranks % count]:
        raise ValueError(f"{ranks} ranks are not the same number on each of {uneven[0]} pods")
    return Work(Shape(ranks, threads), cores, options.size, options.seconds), counts


def main() -> None:
    """Measure, print the tables and the JSON, draw what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--pods", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runtime", action="append")
    parser.add_argument("--name", default="bench")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    try:
        work, counts = chosen(options, len(machine.usable_cores()))
    except ValueError as error:
        parser.error(str(error))
    plots = drawing(options.plot)
    with cluster_of_two(options.name):
        cluster = lookup.load(Host(), options.name, Ui())
        look = machine.look(cluster.host)
        try:
            found, of_slurm = measure(cluster, work, counts, options.runtime or [""], options.runs)
        except SykubeError as error:
            cluster.ui.error(error)
            sys.exit(error.exit_code)
    medians, compared, elasticity = estimates(found), ratios(found), estimates(of_slurm)
    named = titles(work)
    print(f"\n{work.shape} ranks × threads on {work.cores} cores, {options.runs} blocks")
    for line in (*table(named, medians, compared), "", *table(_ELASTIC, elasticity, {})):
        print(line)
    for each in look.disturbances:
        print(f"disturbed: {each}")
    if plots:
        nothing: dict[str, Estimate | None] = dict.fromkeys(_ELASTIC)
        drawn = {
            place: nothing | each | elasticity.get(place, {}) for place, each in medians.items()
        }
        options.plot.write_text(plots.svg(plots.panels(named | _ELASTIC, drawn)), encoding="utf-8")
    print(
        json.dumps({
            "runs": options.runs,
            "ranks": work.shape.processes,
            "threads": work.shape.threads,
            "cores": work.cores,
            "busy": round(look.busy, 2),
            "load": os.getloadavg()[1],
            "places": medians,
            "ratios": compared,
            "elastic": elasticity,
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
