"""What a container costs on this machine: `sykube bench` in all its kinds, and a page of that.

HPC Challenge on this host, by `apptainer exec` and in pods; with a process for each core, and with
two. Messages through NATS and Valkey, between processes, containers of Apptainer's and pods. The
network of pods; pods that start and stop. Each is kept as soon as it is measured: one that fails is
named on the page, and the others go on.

Run it as root, with nothing else to do: python3 -m benchmarks.container_cost [--runs 6]
    [--page docs/container-cost.md] [--measure KIND …] [--size N] [--messages N] [--rate N]
    [--seconds S] [--pods N] [--name bench] [--anyway] [--from DIR]
--page writes the page, and beside it, in a folder of its name, the figures and plots, which need
matplotlib: the extra `plots`. Without it, the page is printed. --from measures nothing: the page is
of figures that are there. --runs 0 measures as little as can be, to see whether it works.
A cluster of that name is used as it is. It exits with 1 where something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import conclusions, container_cost_page
from benchmarks.container_cost_page import TITLES, Told
from benchmarks.costs import HPCC
from benchmarks.measure import cluster_of_two, sykube
from sykube.bench import judging, results
from sykube.bench.hpcc_input import Shape, shapes
from sykube.bench.machine import usable_cores
from sykube.bench.results import Result
from sykube.cli import extras
from sykube.errors import SykubeError

_ONE_NODE = ("host", "exec", "runc:pod", "apptainer:pod", "runc:node", "apptainer:node")
# Of messages, by the keys of TITLES: one broker shows what a second node costs.
PLACES = {"stream-nats": (*_ONE_NODE, "runc:nodes", "apptainer:nodes"), "stream-valkey": _ONE_NODE}
_TOLD = "run.json"
_LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class Asked:
    """How much is measured; as the options of the same names.

    Attributes:
        few: only the first places of each, and no more processes than cores.
    """

    runs: int
    size: int
    messages: int
    rate: int
    seconds: float
    pods: int
    anyway: bool
    few: bool = False


# What `sykube bench` allows.
_LEAST = Asked(3, 200, 20, 200, 0.1, 1, True, few=True)


def commands(asked: Asked, cores: int) -> dict[str, list[str]]:
    """What `sykube bench` is asked for, by the keys of TITLES."""
    fitting = shapes(cores)[0]
    crowded = Shape(2 * fitting.processes, 1)
    processes = [f"--shape={each}" for each in ((fitting,) if asked.few else (fitting, crowded))]
    hpcc = ["--place=host", "--place=exec"] if asked.few else []
    messages = [
        *("stream", "--yes", f"--messages={asked.messages}", f"--rate={asked.rate}"),
        f"--warm-up={max(10, asked.messages // 5)}",
    ]  # fmt: skip
    brokers = {
        run: [
            *messages, f"--broker={run.partition('-')[2]}",
            *(f"--place={each}" for each in (places[:3] if asked.few else places)),
        ]
        for run, places in PLACES.items()
    }  # fmt: skip
    common = [f"--runs={asked.runs}", *["--anyway"] * asked.anyway]
    found = {
        HPCC: ["hpcc", "--yes", f"--size={asked.size}", *processes, *hpcc],
        **brokers,
        "network": ["network", f"--seconds={asked.seconds}"],
        "start": ["start", f"--pods={asked.pods}"],
    }
    return {run: [*words, *common] for run, words in found.items()}


def measure(
    wanted: Mapping[str, Sequence[str]], cluster: str, folder: Path
) -> tuple[dict[str, Result], Told]:
    """Run these commands, one after the other, and keep what they find in a folder."""
    failed = {}
    for run, words in wanted.items():
        print(f"{time.strftime('%H:%M:%S')} {TITLES[run]}", flush=True)
        try:
            sykube(
                "bench", *words, f"--name={cluster}", f"--save={folder / run}.json",
                timeout=_LONGEST_S,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            failed[run] = f"`sykube bench {words[0]}` ended with {error.returncode}"
    told = Told(time.strftime("%Y-%m-%d"), failed)
    keep({}, told, folder)
    return read(folder, wanted), told


def keep(found: Mapping[str, Result], told: Told, folder: Path) -> None:
    """Write results into a folder, from which `read` and `read_told` have them."""
    for run, result in found.items():
        results.write(result, folder / f"{run}.json")
    (folder / _TOLD).write_text(f"{json.dumps(asdict(told), indent=1)}\n", encoding="utf-8")


def read(folder: Path, runs: Sequence[str] | Mapping[str, object]) -> dict[str, Result]:
    """Those of these results that are in a folder."""
    files = {run: folder / f"{run}.json" for run in runs}
    return {run: results.read(file) for run, file in files.items() if file.exists()}


def read_told(folder: Path) -> Told:
    """What `measure` has said of the results there.

    Raises:
        OSError: it has said nothing.
    """
    found = json.loads((folder / _TOLD).read_text(encoding="utf-8"))
    return Told(found["date"], found["failed"])


def draw(found: Mapping[str, Result], folder: Path) -> dict[str, list[Path]]:
    """Write the plots of each result as SVG; their files."""
    # An extra: whoever only wants figures needs no matplotlib.
    from sykube.cli import figures_page

    return {
        run: figures_page.write_plots(result, folder, f"{run}-", ["svg"])
        for run, result in found.items()
    }


def summary(found: Mapping[str, Result], told: Told) -> dict[str, object]:
    """The line of JSON: medians with their intervals, and the words."""
    return {
        "runs": {
            run: {
                what: {place: judging.estimate(each) for place, each in measure.values.items()}
                for what, measure in result.measures.items()
            }
            for run, result in found.items()
        },
        "conclusions": [
            [each.conclusion.text, each.word] for each in conclusions.decided(found)
        ],
        "failed": told.failed,
    }  # fmt: skip


def main() -> int:
    """Measure, or read what was measured; write the page, print the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--page", type=Path, metavar="FILE.md")
    parser.add_argument("--measure", action="append", choices=[*TITLES])
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--pods", type=int, default=5)
    parser.add_argument("--name", default="bench")
    parser.add_argument("--anyway", action="store_true")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR")
    options = parser.parse_args()
    if options.page and options.page.suffix != ".md":
        parser.error(f"{options.page}: the page is Markdown: name it .md")
    if options.runs and options.runs < 3:
        parser.error("--runs is 3 or more, or 0")
    asked = (
        Asked(
            options.runs, options.size, options.messages, options.rate, options.seconds,
            options.pods, options.anyway,
        )
        if options.runs
        else _LEAST
    )  # fmt: skip
    wanted = commands(asked, len(usable_cores()))
    chosen = {run: wanted[run] for run in options.measure or wanted}
    try:
        if options.page:
            # Not only after all is measured.
            extras.require("sykube.bench.plots", "plots", "matplotlib")
        return run(chosen, options.name, options.page, options.source)
    except (SykubeError, OSError) as error:
        parser.exit(1, f"{error}\n{getattr(error, 'resolution', '')}\n")


def run(
    wanted: Mapping[str, Sequence[str]], cluster: str, page: Path | None, source: Path | None
) -> int:
    """Measure what is wanted, or read it from a folder; an exit code.

    Raises:
        SykubeError: what is in the folder is no result, or the cluster cannot be made.
        OSError: the folder has none, or the page cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = page.with_suffix("") if page else Path(temporary)
        folder.mkdir(exist_ok=True)
        if source:
            found, told = read(source, wanted), read_told(source)
            keep(found, told, folder)
        else:
            with cluster_of_two(cluster):
                found, told = measure(wanted, cluster, folder)
        if not found:
            raise SykubeError("nothing was measured")
        if page:
            drawn = draw(found, folder)
            pictures = {
                run: [file.relative_to(page.parent) for file in files]
                for run, files in drawn.items()
            }
            page.write_text(container_cost_page.page(found, told, pictures), encoding="utf-8")
        else:
            print(container_cost_page.page(found, told, {}))
    print(json.dumps(summary(found, told)))
    return int(bool(told.failed))


if __name__ == "__main__":
    sys.exit(main())
