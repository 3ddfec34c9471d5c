"""What benchmarks.runtimes runs in a pod by `python3 -c`, of the standard library alone."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

_BLOCK = bytes(1 << 16)
# Of SHA-256, which is C, and of Python's own loop.
_HASHED, _COUNTED = 120_000_000, 6_000_000


def processor_s() -> float:
    """Seconds of the same work each time."""
    started = time.perf_counter()
    for _ in range(_HASHED // len(_BLOCK)):
        hashlib.sha256(_BLOCK).digest()
    for _ in range(_COUNTED):
        pass
    return time.perf_counter() - started


def program() -> str:
    """The text of this file, which prints its figure."""
    return Path(__file__).read_text(encoding="utf-8") + "\nprint(processor_s())\n"
