"""What both programs of the package share: log lines, and the zones on their command lines."""

from __future__ import annotations

import argparse
import logging
import time

from .records import reverse_zones


class OneLine(logging.Formatter):
    """One line for each event: time, level, logger, message; a traceback is folded into it."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ"
        )

    def format(self, record: logging.LogRecord) -> str:
        """The event as one line."""
        return " | ".join(super().format(record).splitlines())


def log_to_stderr(level: str = "INFO") -> None:
    """Send this process' log lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level, handlers=[handler])


def add_zone_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which zones are the cluster's."""
    parser.add_argument("--zone", default="cluster.local", help="the cluster domain")
    parser.add_argument(
        "--reverse-cidr",
        action="append",
        default=[],
        type=_cidr,
        metavar="CIDR",
        help="a range whose reverse lookups are the cluster's; may be repeated",
    )


def _cidr(text: str) -> str:
    reverse_zones(text)
    return text
