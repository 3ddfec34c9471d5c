"""What a certificate says of itself.

Three fields are all that is asked of it. A library that knows all of X.509 takes longer to load
than `sykube status` may take, and would be compiled code that sykube needs for nothing else.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_EMBEDDED = re.compile(r"^\s*client-certificate-data:\s*([A-Za-z0-9+/=]+)\s*$", re.MULTILINE)
# Tags of DER: ITU-T X.690; the fields: RFC 5280, section 4.1.
_INTEGER, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x02, 0x17, 0x18, 0xA0


@dataclass(frozen=True)
class Certificate:
    """When a certificate is valid, and its serial number."""

    serial: int
    not_before: datetime
    not_after: datetime

    def left(self, now: datetime) -> timedelta:
        """How long it is still valid; negative if it has expired."""
        return self.not_after - now


def split(text: str) -> list[str]:
    """Each certificate of a PEM file by itself, without what else is in the file."""
    return [f"{found[0].strip()}\n" for found in _PEM.finditer(text)]


def parse(text: str) -> Certificate:
    """Read the first certificate of a PEM file, or the one that a kubeconfig embeds.

    Raises:
        ValueError: there is none.
    """
    embedded = _EMBEDDED.search(text)
    if embedded:
        text = base64.b64decode(embedded[1]).decode(errors="replace")
    found = _PEM.search(text)
    if not found:
        raise ValueError("there is no certificate in it")
    try:
        return _parse_der(base64.b64decode(found[1]))
    except (IndexError, StopIteration) as error:
        raise ValueError("its certificate is damaged") from error


def _parse_der(data: bytes) -> Certificate:
    _, certificate = next(_fields(data))
    _, signed = next(_fields(certificate))
    fields = list(_fields(signed))
    if fields[0][0] == _VERSION:
        del fields[0]
    (tag, serial), _algorithm, _issuer, (_, validity) = fields[:4]
    before, after = _fields(validity)
    if tag != _INTEGER:
        raise ValueError("its certificate has no serial number")
    return Certificate(int.from_bytes(serial, "big"), _time(*before), _time(*after))


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The values that follow each other, with their tags."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise IndexError
        yield tag, data[at : at + length]
        at += length


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        # Two digits of the year: RFC 5280, section 4.1.2.5.1.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("its certificate has no end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
