"""The zones on the command lines of both programs."""

from __future__ import annotations

import argparse

from .reverse import reverse_zones


def add_zone_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zone", default="cluster.local", help="the cluster domain")
    parser.add_argument(
        "--reverse-cidr", action="append", default=[], type=_cidr, metavar="CIDR",
        help="a range whose reverse lookups are the cluster's; may be repeated",
    )  # fmt: skip


def _cidr(text: str) -> str:
    reverse_zones(text)
    return text
