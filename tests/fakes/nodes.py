"""Nodes and address ranges for tests of a single module."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from sykube.host.host import Host
from sykube.network.subnets import Subnets
from sykube.node.local import LocalNode


def make_subnets(nodes: str = "10.11.11.0/24") -> Subnets:
    """The ranges of a cluster in tests."""
    return Subnets(IPv4Network(nodes), IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))


def make_node(engine: Any, folder: Path = Path("/nonexistent"), name: str = "master") -> LocalNode:
    """A node with a given engine."""
    names = (name, f"fake-{name}", "10.11.11.2", "10.244.0.0/24", name == "master")
    return LocalNode(*names, Host(), folder, engine)
