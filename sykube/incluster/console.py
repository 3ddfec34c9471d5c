"""What the programs in pods share: the form of their log lines, and how they end."""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class OneLine(logging.Formatter):
    """One line for each event: time, level, logger, message; a traceback is folded into it."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ"
        )

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(super().format(record).splitlines())


def log_to_stderr(level: str = "INFO") -> None:
    """Send this process' log lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level, handlers=[handler])


def until_terminated() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, for the loop that runs."""
    import asyncio  # Not above: it is 4 MB, and not all programs have a loop.

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
