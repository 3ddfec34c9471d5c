"""Names and places of a cluster's nodes.

A node is known by its name alone: master, master2 … for control planes, node1 … for workers. Its
place follows from it, so that addresses never change when others come and go.
"""

from __future__ import annotations

import re

# Each node takes a /24 of the pods' /16 and an address of the nodes' /24, some of which are for the
# bridge, the endpoint and further control planes.
MAX_WORKERS = 240
# etcd needs a majority of its members: an even number bears no more failures than one less.
CONTROL_PLANES = (1, 3, 5)
MASTER = "master"
_NAME = re.compile(r"master([2-9])?|node([1-9][0-9]*)")


def initial(control_planes: int, workers: int) -> list[str]:
    """The nodes that a cluster is made with, the first control plane first."""
    masters = [MASTER, *(f"{MASTER}{number}" for number in range(2, control_planes + 1))]
    return masters + [f"node{number}" for number in range(1, workers + 1)]


def is_node(name: str) -> bool:
    """Whether a node can have that name."""
    return _NAME.fullmatch(name) is not None


def is_control_plane(name: str) -> bool:
    """Whether the node of that name has a control plane."""
    return name.startswith(MASTER)


def place(name: str) -> int:
    """A node's place among the addresses and pod subnets: 0 for master, N for nodeN.

    Raises:
        ValueError: no node has such a name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(name)
    if match[2]:
        return int(match[2])
    return MAX_WORKERS + int(match[1]) if match[1] else 0


def next_workers(present: list[str], count: int) -> list[str]:
    """Names for further workers: the lowest that are free."""
    free = (f"node{number}" for number in range(1, MAX_WORKERS + 1))
    return [name for name in free if name not in present][:count]


def order(names: list[str]) -> list[str]:
    """Control planes, then workers, each by number."""
    return sorted(names, key=lambda name: (not is_control_plane(name), place(name)))
