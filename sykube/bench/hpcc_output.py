"""What HPC Challenge says in hpccoutf.txt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sykube.errors import SykubeError

_BEGIN, _END = "Begin of Summary section.", "End of Summary section."
_LINE = re.compile(r"^(\w+)=(\S+)$", re.MULTILINE)
# HPL's and PTRANS' own words on each of their tests.
_FAILED = re.compile(r"^\s*(\d+) tests completed and failed residual checks", re.MULTILINE)
_SKIPPED = re.compile(r"^\s*(\d+) tests skipped because of illegal input", re.MULTILINE)
# Its other tests' words. FFT and DGEMM have none.
_CHECK_FAILED = re.compile(r"\(failed\)|Failed Validation")
# Updates of RandomAccess that may be lost. Source: HPC Challenge, its rules of verification.
_LOST_MAX = 0.01
# Of definitions/hpcc/hpcc-run.
SECONDS = "sykube_seconds"


@dataclass(frozen=True)
class Figure:
    """One of its results.

    Attributes:
        name: in the summary.
        title: for people, with its unit.
        factor: from the summary's unit.
        takes_two: whether it is of messages between processes.
    """

    name: str
    title: str
    unit: str
    factor: float = 1.0
    takes_two: bool = False


# Source of names and units: HPC Challenge 1.5.0, src/hpcc.c and src/io.c (the summary).
FIGURES: Mapping[str, Figure] = {
    "hpl": Figure("HPL_Tflops", "HPL", "Gflop/s", 1000),
    "stream": Figure("StarSTREAM_Triad", "STREAM triad of each process", "GB/s"),
    "ptrans": Figure("PTRANS_GBs", "PTRANS", "GB/s"),
    "random_access": Figure("MPIRandomAccess_GUPs", "RandomAccess", "Gup/s"),
    "fft": Figure("MPIFFT_Gflops", "FFT", "Gflop/s"),
    "ring_latency": Figure("RandomlyOrderedRingLatency_usec", "ring latency", "µs", 1, True),
    "ring_bandwidth": Figure(
        "RandomlyOrderedRingBandwidth_GBytes", "ring bandwidth of each process", "GB/s", 1, True
    ),
    "seconds": Figure(SECONDS, "the whole run", "s"),
}


def figures(processes: int) -> dict[str, Figure]:
    """Those of a run of so many processes."""
    return {key: each for key, each in FIGURES.items() if processes > 1 or not each.takes_two}


def parse(text: str, processes: int) -> dict[str, float]:
    """The figures of a run, each by its key.

    Args:
        text: hpccoutf.txt and what `hpcc-run` writes behind it; other lines may be among it.
        processes: how many there were.

    Raises:
        SykubeError: it did not end, failed one of its own checks, or gave no figure of a kind.
    """
    summary = text.partition(_BEGIN)[2]
    if _END not in summary:
        raise _bad("it wrote no whole summary, so it did not end", text)
    if any(int(count) for pattern in (_FAILED, _SKIPPED) for count in pattern.findall(text)):
        raise _bad("one of its matrices failed its check, or was skipped", text)
    said = dict(_LINE.findall(summary))
    if not _number(said.get("MPIRandomAccess_ErrorsFraction", "")) <= _LOST_MAX:
        raise _bad("RandomAccess lost more than 1 % of its updates", text)
    if said.get("Success") != "1":
        failed = [line.strip() for line in text.splitlines() if _CHECK_FAILED.search(line)]
        raise _bad("; ".join([f"it says Success={said.get('Success', '')}", *failed]), text)
    found = {}
    for key, figure in figures(processes).items():
        value = _number(said.get(figure.name, "")) * figure.factor
        if not (math.isfinite(value) and value > 0):
            raise _bad(f"{figure.name} is {said.get(figure.name, 'missing')!r}", text)
        found[key] = value
    return found


def _number(text: str) -> float:
    """The number; no number where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _bad(why: str, text: str) -> SykubeError:
    return SykubeError(
        "a run of HPC Challenge failed",
        details="\n".join([why, *text.strip().splitlines()[-10:]]),
        resolution="Ask for less by --size; -v shows all that it wrote.",
    )
