"""Percentiles of delays, and what is no result."""

from __future__ import annotations

import json

import pytest

from sykube.bench import delays
from sykube.errors import SykubeError


@pytest.mark.parametrize(
    ("part", "known"), [(500, 500), (900, 900), (990, 990), (999, 999), (1000, 1000), (1, 1)]
)
def test_a_percentile_of_1_to_1000_is_known(part: int, known: int) -> None:
    assert delays.percentile([*range(1000, 0, -1)], part) == known


@pytest.mark.parametrize(
    ("values", "part", "known"),
    # Counted by hand.
    [
        ([15, 20, 35, 40, 50], 300, 20),
        ([15, 20, 35, 40, 50], 400, 20),
        ([15, 20, 35, 40, 50], 500, 35),
        ([7], 999, 7),
        ([3, 3, 3, 9], 750, 3),
        ([3, 3, 3, 9], 751, 9),
    ],
)
def test_a_percentile_is_one_of_the_delays(values: list[int], part: int, known: int) -> None:
    assert delays.percentile(values, part) == known


def test_what_comes_first_is_shown_apart() -> None:
    found = delays.figures([9_000_000, 7_000_000, 8_000_000, *range(1000, 1_001_000, 1000)], 3)
    assert found == {"warm_up": 8000, "p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
    assert {*found} == {*delays.MEASURES}


def test_a_line_shows_all_messages_of_a_run_and_the_median_of_runs() -> None:
    # Two hundred messages in a hundred slices of two, of which the smaller one is the median.
    runs = [[1000 * (number + more) for number in range(200)] for more in (1, 3, 11)]
    line = delays.curves({"host": runs}, 50)["course"].lines["host"]
    assert line.x[:3] == [1, 3, 5]
    assert line.y[:3] == [3, 5, 7]
    assert len(line.x) == len(line.y) == 100


def test_fewer_messages_have_a_point_each() -> None:
    line = delays.curves({"host": [[5000, 7000, 6000]]}, 1)["course"].lines["host"]
    assert (line.x, line.y) == ([1, 2, 3], [5, 7, 6])


def test_a_line_shows_how_many_have_at_most_which_delay() -> None:
    # What comes first would be the largest.
    runs = [[9_000_000, *range(1000, 501_000, 1000)], [9_000_000, *range(501_000, 1_001_000, 1000)]]
    line = delays.curves({"host": runs}, 1)["spread"].lines["host"]
    shown = dict(zip(line.y, line.x, strict=True))
    assert shown[0.1] == 1
    assert shown[50] == 500
    assert shown[99.9] == 999
    assert shown[100] == 1000


def test_other_lines_may_be_among_what_the_consumer_says() -> None:
    text = 'a warning\n{"delays": [1, 2, 3], "seconds": 0.1}\nanother\n'
    found = delays.parse(text, 3)
    assert found.delays == [1, 2, 3]
    # Two come after the first.
    assert found.rate == pytest.approx(20)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it names no delays"),
        ("consumer: the broker has ended the connection", "the broker has ended"),
        ('{"delays": [1, 2', "JSONDecodeError"),
        ('{"delays": null}', "TypeError"),
        ('{"delays": ["NaN", 1, 2]}', "ValueError"),
        (json.dumps({"delays": [1, 2, 3]}), "KeyError"),
        (json.dumps({"delays": [1, 2], "seconds": 1}), "it names 2 of 3 messages"),
        (json.dumps({"delays": [1, -2, 3], "seconds": 1}), "before it was made"),
        (json.dumps({"delays": [1, 2, 3], "seconds": 0}), "before it was made"),
        ('{"delays": [1, 2, 3], "seconds": NaN}', "before it was made"),
    ],
)
def test_what_is_no_result_is_one_error(text: str, why: str) -> None:
    with pytest.raises(SykubeError, match="is no result") as caught:
        delays.parse(text, 3)
    assert why in caught.value.details
