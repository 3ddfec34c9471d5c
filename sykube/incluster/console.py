"""The log lines of the programs in pods."""

from __future__ import annotations

import logging
import time


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
