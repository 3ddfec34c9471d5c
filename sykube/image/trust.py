"""Whose signatures of images a user trusts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# 40 digits: a PGP key's; 64: SHA-256 of a PEM key in DER, or a PGP key's of version 6.
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")


@dataclass(frozen=True)
class Trust:
    """Whose signature the user trusts.

    Attributes:
        fingerprint: of the key, as `read_fingerprint` gives it.
        public_key: a file with the key; the user's key ring where it is None.
    """

    fingerprint: str
    public_key: Path | None = None


def read_fingerprint(text: str) -> str:
    """A fingerprint as people write it, with spaces or colons, in upper case and without them.

    Raises:
        ValueError: it is none, or only the end of one: those can be forged.
    """
    found = re.sub(r"[\s:]", "", text).upper().removeprefix("SHA256").removeprefix("0X")
    if not _FINGERPRINT.fullmatch(found):
        raise ValueError(
            f"{text!r} is no whole fingerprint of a key: 40 hexadecimal digits (PGP) or 64 (PEM)"
        )
    return found
