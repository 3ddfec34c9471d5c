"""What clients of UDP get of an answer that does not fit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from sykube.incluster.dns.front import fitting, payload_of


def answer(count: int, **options: Any) -> bytes:
    """Unbound's whole answer: an alias, so many addresses, a name server and its address."""
    query = dns.message.make_query("www.shop.example", "A", **options)
    response = dns.message.make_response(query)
    addresses = [f"10.244.{each >> 8}.{each & 255}" for each in range(count)]
    response.answer = [
        dns.rrset.from_text("www.shop.example.", 5, "IN", "CNAME", "web.shop.example."),
        dns.rrset.from_text("web.shop.example.", 5, "IN", "A", *addresses),
    ]
    response.authority = [dns.rrset.from_text("example.", 5, "IN", "NS", "ns.example.")]
    response.additional = [dns.rrset.from_text("ns.example.", 5, "IN", "A", "192.0.2.53")]
    return response.to_wire(max_size=65535)


@pytest.mark.parametrize("limit", [100, 512, 1232])
@pytest.mark.parametrize("options", [{}, {"use_edns": 0, "payload": 1232}], ids=["plain", "edns"])
def test_as_many_records_as_fit_are_kept_whole(limit: int, options: dict[str, int]) -> None:
    whole = answer(200, **options)
    wire = fitting(whole, limit)
    # An address takes 16 bytes: one more would not have fitted.
    assert limit - 16 < len(wire) <= limit
    message = dns.message.from_wire(wire)
    assert message.id == int.from_bytes(whole[:2])
    assert message.flags & dns.flags.TC
    assert message.edns == (0 if options else -1)
    assert [rrset.name.to_text() for rrset in message.answer] == [
        "www.shop.example.",
        "web.shop.example.",
    ]
    assert (message.authority, message.additional) == ([], [])


def test_no_record_fits() -> None:
    message = dns.message.from_wire(fitting(answer(3), 20))
    assert message.answer == []
    assert message.flags & dns.flags.TC


@pytest.mark.parametrize("size", [0, 11, 12, 20, 60, 150])
def test_damaged_answers_are_an_error(size: int) -> None:
    with pytest.raises(ValueError):
        fitting(answer(20)[:size], 512)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 512),
        ({"use_edns": 0, "payload": 100}, 512),
        ({"use_edns": 0, "payload": 800}, 800),
        ({"use_edns": 0, "payload": 4096}, 1232),
    ],
)
def test_an_answer_has_as_many_bytes_as_the_client_takes(
    options: dict[str, Any], limit: int
) -> None:
    assert payload_of(dns.message.make_query("www.shop.example", "A", **options).to_wire()) == limit


def test_it_does_without_dnspython() -> None:
    code = "import sys, sykube.incluster.dns.front; sys.exit('dns' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
