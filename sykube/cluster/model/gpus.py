"""How a host's GPUs are shared among nodes: each belongs to one node of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ALL = "all"


def problem(value: str) -> str:
    """What is wrong with the number of GPUs that is asked for, or nothing."""
    ok = value in ("", ALL) or (value.isascii() and value.isdigit())
    return "" if ok else f"the number of GPUs can be {ALL} or a whole number, not {value!r}"


def is_asked(value: str) -> bool:
    """Whether it asks for any."""
    return value == ALL or bool(value and int(value))


def shares(free: Sequence[str], asked: Mapping[str, str]) -> dict[str, list[str]]:
    """Which GPUs each node gets, by its name: first those that ask for a number, each so many.

    What is left is shared evenly among those that ask for all; neighbours stay together.

    Args:
        free: the GPUs that no node has.
        asked: by the nodes' names, a number or all.

    Raises:
        ValueError: there are too few.
    """
    left, found = [*free], {}
    numbers = {node: int(value) for node, value in asked.items() if value.isdigit()}
    rest = [node for node, value in asked.items() if value == ALL]
    if sum(numbers.values()) + bool(rest) > len(left):
        raise ValueError
    for node, number in numbers.items():
        found[node], left = left[:number], left[number:]
    for place, node in enumerate(rest):
        size = -(-len(left) // (len(rest) - place))
        found[node], left = left[:size], left[size:]
    return {node: gpus for node, gpus in found.items() if gpus}
