"""What HPC Challenge is asked for: processes, threads, cores, sizes, and its hpccinf.txt."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import HostError, UsageError
from sykube.host.files import unreadable

_SHAPE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})", re.ASCII)
# Of HPL's matrix: columns that are worked on together. OpenBLAS is fast from about there on.
_BLOCK = 128
# Of the free memory, in HPL's matrix; the other tests take as much. More would show no more of
# what places differ in, and takes longer by its power of 1.5.
_PART_OF_MEMORY = 0.2
_BYTES = 8
# Beside the matrix: HPL's work space, and what each process has of libraries and shared memory.
_WORK_SPACE = 1.1
_PROCESS_BYTES = 100 * 1024**2
# Lines of hpccinf.txt by their number, from 1. Source: HPL, TUNING; HPC Challenge, README.
_ORDERS, _BLOCKS, _GRIDS, _LINES = 5, 7, 10, 31
_MOST_OF_A_KIND = 20
_THRESHOLD = 13
_HEAD = 3


@dataclass(frozen=True)
class Shape:
    """How many processes run, each with how many threads."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.threads}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """PROCESSESxTHREADS.

        Raises:
            ValueError: it is no such text.
        """
        match = _SHAPE.fullmatch(text)
        if not match:
            raise ValueError(text)
        return cls(int(match[1]), int(match[2]))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of processes: as square as can be, and no more rows than columns."""
        rows = max(n for n in range(1, math.isqrt(self.processes) + 1) if not self.processes % n)
        return rows, self.processes // rows

    def cores(self, usable: Sequence[int]) -> list[str]:
        """The cores of each process, as taskset(1) takes them, in turn of those that are usable."""
        turns = range(self.processes * self.threads)
        dealt = [usable[turn % len(usable)] for turn in turns]
        own = [
            sorted({*dealt[start : start + self.threads]})
            for start in range(0, len(dealt), self.threads)
        ]
        return [",".join(map(str, each)) for each in own]


@dataclass(frozen=True)
class Asked:
    """A hpccinf.txt.

    Attributes:
        order: of its largest matrix.
        processes: how many its largest grid takes.
    """

    text: str
    order: int
    processes: int


def shapes(cores: int) -> list[Shape]:
    """Those of the default: a process for each core, and two that share them all.

    One process would measure no ring.
    """
    found = [Shape(max(2, cores), 1)]
    return [*found, Shape(2, cores // 2)] if cores >= 4 else found


def written(shape: Shape, order: int) -> Asked:
    """The file for a shape and the order of HPL's matrix, from which other sizes follow."""
    rows, columns = shape.grid
    values = [
        ("HPLinpack benchmark input file", ""), ("written by sykube bench hpcc", ""),
        ("HPL.out", "output file name"), ("8", "device out"),
        ("1", "# of problem sizes (N)"), (order, "Ns"),
        ("1", "# of NBs"), (min(_BLOCK, order), "NBs"), ("0", "PMAP, 0: by rows"),
        ("1", "# of process grids"), (rows, "Ps"), (columns, "Qs"), ("16.0", "threshold"),
        ("1", "# of panel fact"), ("2", "PFACTs, 2: right-looking"),
        ("1", "# of recursive stopping criteria"), ("4", "NBMINs"),
        ("1", "# of panels in recursion"), ("2", "NDIVs"),
        ("1", "# of recursive panel fact"), ("1", "RFACTs, 1: Crout"),
        ("1", "# of broadcasts"), ("1", "BCASTs, 1: modified ring"),
        ("1", "# of lookahead depths"), ("1", "DEPTHs"),
        ("2", "SWAP, 2: mix"), ("64", "swapping threshold"),
        ("0", "L1, 0: transposed"), ("0", "U, 0: transposed"), ("1", "equilibration"),
        ("8", "memory alignment in doubles"),
        ("-----", "the rest is of PTRANS"),
        ("0", "# of further problem sizes"), ("0", "values of N"),
        ("0", "# of further block sizes"), ("0", "values of NB"),
    ]  # fmt: skip
    lines = [f"{value!s:<12} {meaning}".rstrip() for value, meaning in values]
    return Asked("\n".join(lines) + "\n", order, shape.processes)


def read(file: Path) -> Asked:
    """A file of the user's, as far as HPC Challenge would not end in an endless run or a crash.

    Raises:
        UsageError: it cannot be read, or HPC Challenge does not take it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise _not_taken(file, str(error)) from error
    lines = text.splitlines()
    if len(lines) < _LINES:
        raise _not_taken(file, f"it has {len(lines)} lines, and HPL reads {_LINES}")
    try:
        order = max(_numbers(lines, _ORDERS, 1))
        _numbers(lines, _BLOCKS, 1)
        rows, columns = _numbers(lines, _GRIDS, 1), _numbers(lines, _GRIDS, 2)
        for number in range(_HEAD + 1, _LINES + 1):
            _first(lines, number)
    except ValueError as error:
        raise _not_taken(file, str(error)) from error
    processes = max(p * q for p, q in zip(rows, columns, strict=True))
    return Asked(text, order, processes)


def order_for(free: int) -> int:
    """The order of HPL's matrix by default.

    Args:
        free: bytes of memory.
    """
    order = math.isqrt(int(free * _PART_OF_MEMORY / _BYTES))
    return max(_BLOCK, order // _BLOCK * _BLOCK)


def require_memory(asked: Asked, shape: Shape, free: int) -> None:
    """Refuse what does not fit.

    Args:
        free: bytes of memory.

    Raises:
        HostError: it takes more; says which order would fit.
    """
    needed = _needed(asked.order, shape)
    if needed <= free:
        return
    left = max(0, free - shape.processes * _PROCESS_BYTES)
    largest = math.isqrt(int(left / _WORK_SPACE / _BYTES)) // _BLOCK * _BLOCK
    raise HostError(
        f"a matrix of order {asked.order} needs {needed / 1e9:.1f} GB of memory, and "
        f"{free / 1e9:.1f} GB are free",
        resolution=f"Ask for at most: --size {largest}"
        if largest
        else "End other programs, or ask for fewer processes.",
    )


def _needed(order: int, shape: Shape) -> int:
    return int(order**2 * _BYTES * _WORK_SPACE) + shape.processes * _PROCESS_BYTES


def _numbers(lines: Sequence[str], place: int, behind: int) -> list[int]:
    """The values, from 1 on, of a line behind the one that says how many there are."""
    count = int(_first(lines, place))
    if not 1 <= count <= _MOST_OF_A_KIND:
        raise ValueError(f"line {place}: {count} is not between 1 and {_MOST_OF_A_KIND}")
    number = place + behind
    words = lines[number - 1].split()[:count]
    if len(words) < count or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"line {number} does not begin with {count} whole numbers above 0")
    return [int(word) for word in words]


def _first(lines: Sequence[str], number: int) -> str:
    """The first word of a line, which is a number."""
    word = (lines[number - 1].split() or [""])[0]
    is_number = re.fullmatch(r"-?\d+(\.\d*)?" if number == _THRESHOLD else r"-?\d+", word)
    if not is_number:
        raise ValueError(f"line {number} begins with {word!r}, which is no number")
    return word


def _not_taken(file: Path, why: str) -> UsageError:
    return UsageError(
        f"{file} is no input of HPC Challenge",
        details=why,
        resolution="Leave it out, and it is written; docs/bench.md says what of.",
    )
