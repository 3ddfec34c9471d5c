"""Limits of nodes as people write them."""

from __future__ import annotations

import pytest

from sykube.node.limits import parse_cpus, parse_memory


@pytest.mark.parametrize(
    ("text", "millicores"),
    [("", 0), ("2", 2000), ("1.5", 1500), ("0.5", 500), ("1500m", 1500), ("0.1", 100)],
)
def test_processors_are_counted_in_thousandths(text: str, millicores: int) -> None:
    assert parse_cpus(text) == millicores


@pytest.mark.parametrize("text", ["-1", "1,5", "two", "2 ", "1k", "2Gi", ".5", "1.", "1e3", "inf"])
def test_what_is_no_number_of_processors(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ("1073741824", 1024**3),
        ("2Gi", 2 * 1024**3),
        ("1500M", 1_500_000_000),
        ("1.5Gi", 1_610_612_736),
        ("0.1k", 100),
        ("1Ti", 1024**4),
        ("3T", 3 * 10**12),
        ("1Mi", 1024**2),
        ("1Ki", 1024),
        ("1G", 10**9),
    ],
)
def test_memory_is_a_quantity_as_kubernetes_writes_it(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["-1Gi", "2gb", "2GB", "2 Gi", "lots", "2m", "Gi", "2GiB", "1e9"])
def test_what_is_no_quantity_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_memory(text)
