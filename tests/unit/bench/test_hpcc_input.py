"""What HPC Challenge is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sykube.bench import hpcc_input
from sykube.bench.hpcc_input import Shape
from sykube.errors import HostError, UsageError

GIB = 1024**3


@pytest.mark.parametrize(
    ("processes", "grid"), [(1, (1, 1)), (2, (1, 2)), (7, (1, 7)), (12, (3, 4)), (16, (4, 4))]
)
def test_grids_are_as_square_as_can_be(processes: int, grid: tuple[int, int]) -> None:
    assert Shape(processes, 1).grid == grid


@pytest.mark.parametrize(
    ("shape", "usable", "cores"),
    [
        ("2x1", [0, 1], ["0", "1"]),
        ("2x2", [0, 1, 4, 5], ["0,1", "4,5"]),
        # More than there are: each has its turn.
        ("3x1", [0, 1], ["0", "1", "0"]),
        ("2x2", [0, 1], ["0,1", "0,1"]),
        ("2x3", [0, 1], ["0,1", "0,1"]),
        ("2x3", [0, 1, 2, 3], ["0,1,2", "0,1,3"]),
    ],
)
def test_each_process_has_cores_for_its_threads(
    shape: str, usable: list[int], cores: list[str]
) -> None:
    assert Shape.parse(shape).cores(usable) == cores


@pytest.mark.parametrize(
    "text", ["", "2", "0x1", "2x0", "2x", "x2", "2x2x2", "-1x2", "2 x 2", "²x1"]
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Shape.parse(text)


@pytest.mark.parametrize(
    ("cores", "shapes"),
    [(1, ["2x1"]), (2, ["2x1"]), (3, ["3x1"]), (4, ["4x1", "2x2"]), (64, ["64x1", "2x32"])],
)
def test_shapes_are_of_the_cores(cores: int, shapes: list[str]) -> None:
    assert [str(each) for each in hpcc_input.shapes(cores)] == shapes


def test_a_fifth_of_the_memory_is_in_the_matrix() -> None:
    order = hpcc_input.order_for(40 * GIB)
    assert order % 128 == 0
    assert 0.19 < order**2 * 8 / (40 * GIB) <= 0.2
    # However little there is, there is a matrix.
    assert hpcc_input.order_for(0) == 128


def test_what_does_not_fit_is_refused_and_what_would_fit_is_said() -> None:
    shape = Shape(2, 1)
    hpcc_input.require_memory(hpcc_input.written(shape, 10_000), shape, 2 * GIB)
    with pytest.raises(HostError, match="order 20000 needs 3.7 GB of memory") as caught:
        hpcc_input.require_memory(hpcc_input.written(shape, 20_000), shape, 2 * GIB)
    largest = int(caught.value.resolution.rsplit(" ", 1)[1])
    assert 10_000 < largest < 20_000
    hpcc_input.require_memory(hpcc_input.written(shape, largest), shape, 2 * GIB)
    with pytest.raises(HostError) as caught:
        hpcc_input.require_memory(hpcc_input.written(shape, 200), shape, 1000)
    assert "fewer processes" in caught.value.resolution


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "hpccinf.txt"
    asked = hpcc_input.written(Shape(6, 2), 3000)
    file.write_text(asked.text)
    assert hpcc_input.read(file) == asked
    lines = asked.text.splitlines()
    # By the numbers of its lines: HPL's TUNING.
    assert [lines[number - 1].split()[0] for number in (5, 6, 7, 8, 10, 11, 12)] == [
        "1", "3000", "1", "128", "1", "2", "3",
    ]  # fmt: skip
    assert len(lines) == 36


def changed(number: int, line: str) -> str:
    lines = hpcc_input.written(Shape(2, 1), 2000).text.splitlines()
    lines[number - 1] = line
    return "\n".join(lines)


def test_the_largest_of_several_counts(tmp_path: Path) -> None:
    file = tmp_path / "hpccinf.txt"
    text = changed(5, "3 sizes").replace("2000 ", "2000 5000 300 ")
    file.write_text(text.replace("1            # of process grids", "2 grids"))
    with pytest.raises(UsageError):
        hpcc_input.read(file)
    lines = text.splitlines()
    lines[9:12] = ["2 grids", "1 2 Ps", "6 4 Qs"]
    file.write_text("\n".join(lines))
    asked = hpcc_input.read(file)
    assert (asked.order, asked.processes) == (5000, 8)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0 lines"),
        ("garbage\n", "it has 1 lines"),
        ("\n".join(hpcc_input.written(Shape(2, 1), 2000).text.splitlines()[:20]), "20 lines"),
        (changed(5, "0"), "line 5: 0 is not between 1 and 20"),
        (changed(5, "21"), "line 5: 21 is not between 1 and 20"),
        (changed(5, "2"), "line 6 does not begin with 2 whole numbers"),
        (changed(6, "abc"), "line 6"),
        (changed(6, "-5"), "line 6"),
        (changed(8, "0"), "line 8"),
        (changed(11, "1.5"), "line 11"),
        (changed(13, ""), "line 13 begins with ''"),
        (changed(20, "two"), "line 20 begins with 'two'"),
    ],
)
def test_what_hpcc_would_crash_or_hang_on_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "hpccinf.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match="is no input of HPC Challenge") as caught:
        hpcc_input.read(file)
    assert why in caught.value.details


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        hpcc_input.read(tmp_path / "none")
    with pytest.raises(UsageError):
        hpcc_input.read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no input"):
        hpcc_input.read(tmp_path / "binary")
