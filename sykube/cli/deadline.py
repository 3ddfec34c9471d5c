"""The options by which a cluster ends before its batch job does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--stop-before and --snapshot."""
    for option in (
        click.option(
            "--snapshot", "snapshot_name", default="", metavar="SNAPSHOT",
            help="Save it, once it has stopped, as this snapshot.",
        ),
        click.option(
            "--stop-before", default="", metavar="TIME",
            help="Stop it so long before the end of the batch job, such as 5m.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command
