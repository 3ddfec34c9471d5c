"""Checksums as release sites publish them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_HEXADECIMAL = re.compile(r"[0-9a-f]+")
_ALGORITHMS = {64: "sha256", 128: "sha512"}
# What `sha256sum` writes: its manual page; the asterisk is for binary mode.
_LINE = re.compile(r"^([0-9A-Fa-f]+) [ *](.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Checksum:
    """What a file must be: an algorithm of hashlib, and its result in hexadecimal digits."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Tell SHA-256 and SHA-512 by their length.

        Raises:
            ValueError: it is neither.
        """
        value = text.strip().lower()
        if len(value) not in _ALGORITHMS or not _HEXADECIMAL.fullmatch(value):
            raise ValueError("it is neither a SHA-256 nor a SHA-512 checksum")
        return cls(_ALGORITHMS[len(value)], value)

    @classmethod
    def listed(cls, text: str, name: str) -> Checksum:
        """The one of a file in a list as `sha256sum` writes it, signed in clear text or not.

        Raises:
            ValueError: the file is not in it, or twice with different ones.
        """
        found = {line[1].lower() for line in _LINE.finditer(text) if line[2].strip() == name}
        if len(found) != 1:
            raise ValueError(f"it has {len(found) or 'no'} checksums of {name}")
        return cls.parse(found.pop())

    def of(self, file: Path) -> str:
        """What the algorithm makes of a file.

        Raises:
            OSError: it cannot be read.
        """
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, self.algorithm).hexdigest()

    def matches(self, file: Path) -> bool:
        """Whether a file is there, whole and unchanged."""
        try:
            return self.of(file) == self.value
        except OSError:
            return False
