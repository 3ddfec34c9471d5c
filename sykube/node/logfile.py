"""A log file that another process writes and rotates."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

_BLOCK = 65536


@dataclass(frozen=True)
class LogFile:
    """The log of one program; supervisord keeps older parts as NAME.log.1, .2 …"""

    path: Path

    def parts(self) -> list[Path]:
        """Its files, the oldest first."""
        older = [
            path
            for path in self.path.parent.glob(f"{self.path.name}.*")
            if re.fullmatch(r"\.[0-9]+", path.suffix)
        ]
        older.sort(key=lambda path: -int(path.suffix[1:]))
        return [*older, *([self.path] if self.path.exists() else [])]

    def read(self, count: int | None = None) -> Iterator[str]:
        lines = (line for path in self.parts() for line in _lines(path))
        return lines if count is None else iter(deque(lines, maxlen=count))

    def follow(self, count: int) -> Callable[[], Iterator[str]]:
        """A log that is rotated is read to its end, then from the start of its new file."""
        follower = _Follower(self.path)
        last: deque[str] = deque(maxlen=count)
        for path in self.parts():
            # The newest is read by who goes on with it: nothing can come in between.
            last.extend(follower.lines() if path == self.path else _lines(path))

        def lines() -> Iterator[str]:
            while last:
                yield last.popleft()
            yield from follower.lines()

        return lines


class _Follower:
    """What is new in a file that another process writes, rotates or empties."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedReader | None = None
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """The finished lines since the last call."""
        yield from self._read()
        if self._replaced():
            # The last words may have come between the two looks.
            yield from self._read()
            if self._rest:
                yield self._rest.decode(errors="replace")
            if self._file:
                self._file.close()
            self._file, self._rest = None, b""
            yield from self._read()

    def _read(self) -> Iterator[str]:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except OSError:
                return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
        while block := self._file.read(_BLOCK):
            *whole, self._rest = (self._rest + block).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except OSError:
            return False


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\r\n").decode(errors="replace")
    except OSError:
        # Rotated away in this moment.
        return
