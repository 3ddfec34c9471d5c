"""Partial downloads, which are resumed where they were cut off.

The checksum shows whether all pieces are of one version of the file, better than If-Range could.

Source: RFC 9110, section 14
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Progress = Callable[[int, int], None]
# As much of a file as makes a try worth while, so that it does not count as one of the few.
_PROGRESS = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class TransientError(Exception):
    """A try that failed; the next one may not.

    Attributes:
        wait_s: how long the server asks to wait, in seconds.
        progressed: whether more of the file is there than ever before, by at least 1 MiB.
    """

    def __init__(
        self, why: str, *, wait_s: float | None = None, status: int = 0, progressed: bool = False
    ) -> None:
        super().__init__(why)
        self.wait_s, self.status, self.progressed = wait_s, status, progressed


class Partial:
    """A file on its way: what is there of it.

    Attributes:
        pieced: whether it came by more than one answer, and so may be of more than one file.
    """

    def __init__(self, target: Path, progress: Progress) -> None:
        self._target, self._progress = target, progress
        self.part = target.with_name(f".{target.name}.part")
        self.pieced = False
        self._most = 0

    def begin(self) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._most = self._size

    @property
    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def headers(self) -> dict[str, str]:
        """Ask for the rest of what is there."""
        return {"Range": f"bytes={self._size}-"} if self._size else {}

    def take(self, status: int, headers: Mapping[str, str], pieces: Iterable[bytes]) -> None:
        """Write what comes.

        Args:
            status: 200, 206 or 416.

        Raises:
            TransientError: it ended before its end, or is not what was asked for.
        """
        start, total = _range(headers)
        if status == 416:
            if total and total == self._size:
                self.pieced = True
                return
            self.discard()
            raise TransientError("the file has become another one", status=status)
        if status != 206:
            start, total = 0, _length(headers)
            self.discard()
        elif start != self._size:
            self.discard()
            raise TransientError("another part came than was asked for", status=status)
        done, self.pieced = start, start > 0
        try:
            with self.part.open("ab") as file:
                for piece in pieces:
                    file.write(piece)
                    done += len(piece)
                    self._progress(done, total)
        except TransientError as failure:
            failure.progressed = done >= self._most + _PROGRESS
            raise
        finally:
            self._most = max(self._most, done)

    def finish(self) -> None:
        """Put it at its place, for good also when the power fails."""
        with self.part.open("rb") as file:
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        self.part.replace(self._target)

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)


def _range(headers: Mapping[str, str]) -> tuple[int, int]:
    """Where what comes begins, and the size of the whole file; 0 where it is not said."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if not found:
        return 0, 0
    return int(found[1] or 0), 0 if found[2] == "*" else int(found[2])


def _length(headers: Mapping[str, str]) -> int:
    length = headers.get("Content-Length", "")
    return int(length) if length.isdigit() else 0
