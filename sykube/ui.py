"""What people see: steps on stderr, results on stdout, everything in the log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sykube.errors import SykubeError
from sykube.timings import Timings

log = logging.getLogger("sykube")
# Without a file, messages go nowhere: what people shall see is written here.
log.addHandler(logging.NullHandler())

_PLAIN_REMINDER_S = 30.0
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 3 min 07 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


class Ui:
    """Steps with a spinner on a terminal, or plain lines elsewhere.

    Args:
        verbose: show commands and tracebacks, too.
        quiet: show errors and results alone.
        reminder: seconds between two words of a step that goes on, where there is no terminal.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        quiet: bool = False,
        stream: TextIO | None = None,
        reminder: float = _PLAIN_REMINDER_S,
    ) -> None:
        self.verbose = verbose
        self.quiet = quiet
        self.timings = Timings()
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        # https://no-color.org: when it is there and not empty.
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self._reminder = reminder
        self._note = ""
        self._log_file: Path | None = None
        if verbose:
            to_stream = logging.StreamHandler(self._stream)
            to_stream.setFormatter(logging.Formatter("  %(message)s"))
            # What is said here is on the stream already.
            to_stream.addFilter(lambda record: record.name != log.name)
            log.addHandler(to_stream)
            log.setLevel(logging.DEBUG)

    def open_log(self, path: Path, size: int = 5_000_000) -> None:
        """Send everything to a log file from here on, bounded to two files of so many bytes.

        A folder that cannot be written is no reason to fail: then there is no log.
        """
        log.setLevel(logging.DEBUG)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            # Not above: not every command has a log.
            from sykube.logfile import PrivateLog

            to_file = PrivateLog(path, size)
            to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            log.addHandler(to_file)
            self._log_file = path
        # A proxy's password may be among them; what redacts takes a while to import.
        from sykube import redaction

        log.debug("sykube %s", redaction.text(" ".join(sys.argv[1:])))

    def say(self, text: str) -> None:
        """One line of progress."""
        log.info("%s", text)
        if not self.quiet:
            self._write_line(text)

    def warn(self, text: str) -> None:
        """Something that deserves attention but stops nothing."""
        log.warning("%s", text)
        self._write_line(f"{self._paint('33', 'warning:')} {text}")

    def note(self, text: str) -> None:
        """What the present step is doing, shown beside its spinner."""
        self._note = text.strip()[:100]

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step: a spinner with the time so far, then a tick or a cross with the time it took."""
        log.info("== %s", title)
        started = time.monotonic()
        self._note = ""
        stop = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(title, started, stop), daemon=True)
        if not self.quiet:
            ticker.start()
        mark = self._paint("31", "✗" if self._terminal else "failed:")
        try:
            with self.timings.step(title) as span:
                yield
            mark = self._paint("32", "✓" if self._terminal else "done:")
        finally:
            stop.set()
            if ticker.is_alive():
                ticker.join()
            took = duration(span.seconds)
            log.info("== %s: %s", title, took)
            if not self.quiet:
                self._write_line(f"{mark} {title} ({took})")

    def error(self, error: SykubeError) -> None:
        """What went wrong, why, what to do next, and where the whole log is."""
        log.error("%s\n%s\n%s", error.brief, error.details, error.resolution)
        self._write_line(f"{self._paint('1;31', 'error:')} {error.brief}")
        for line in error.details.splitlines():
            self._write_line(f"  {line}")
        if error.resolution:
            self._write_line(f"{self._paint('1', 'what to do:')} {error.resolution}")
        if self._log_file:
            self._write_line(f"log: {self._log_file}")
        if self.verbose:
            import traceback

            traceback.print_exception(error, file=self._stream)

    def _tick(self, title: str, started: float, stop: threading.Event) -> None:
        interval = 0.1 if self._terminal else self._reminder
        turn = 0
        if not self._terminal:
            self._write_line(f"... {title}")
        while not stop.wait(interval):
            so_far = duration(time.monotonic() - started)
            note = f": {self._note}" if self._note else ""
            if self._terminal:
                line = f"{_SPINNER[turn % len(_SPINNER)]} {title} ({so_far}){note}"
                self._draw(line)
                turn += 1
            else:
                self._write_line(f"... {title} ({so_far} so far){note}")

    def _draw(self, line: str) -> None:
        """Show a line in the place of the last one, cut to the terminal's width."""
        with contextlib.suppress(OSError):
            # A terminal that does not know its width says 0.
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            self._write(f"\r\033[K{line[: columns - 1]}")

    def _write_line(self, text: str) -> None:
        start = "\r\033[K" if self._terminal else ""
        self._write(f"{start}{text}\n")

    def _write(self, text: str) -> None:
        # A terminal that went away, or a full disk, takes no words, but changes no result.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text
