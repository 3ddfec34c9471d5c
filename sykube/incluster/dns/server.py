"""Serves the zone over UDP and TCP, and health checks over HTTP."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
from dns.name import Name
from dns.rcode import Rcode
from dns.rdata import Rdata
from dns.rdataclass import RdataClass
from dns.rdataset import Rdataset
from dns.rdatatype import RdataType
from dns.rrset import RRset

from .records import RRsets, Zone
from .transport import UDP_PAYLOAD, Address, payload

_LARGEST_MESSAGE = 65535
_HEADER = 12
# What a record has beside its data, its owner's name being one that came before; the longest data
# of an SRV record; and what is left for records beside the question and an OPT record.
_RECORD = 12
_LONGEST_NAME = 6 + 255
_ROOM = _LARGEST_MESSAGE - _HEADER - (255 + 4) - 40
_RESPONSE = 0x80
_IDLE = 10.0
_CNAME_LIMIT = 8

log = logging.getLogger(__name__)

GetZone = Callable[[], Zone | None]


def respond(zone: Zone | None, wire: bytes, *, udp: bool) -> bytes | None:
    """The answer to one message; None if it deserves none.

    Args:
        zone: what to answer from; None if it is not known yet. Then silence is best: Unbound
            asks again soon, while it would remember a failure for 5 s.
        wire: the message as it came.
        udp: whether the answer has to fit into a datagram.
    """
    if zone is None or len(wire) < _HEADER or wire[2] & _RESPONSE:
        return None
    if wire[2] >> 3 & 0xF != dns.opcode.QUERY:
        return _bare(wire, dns.rcode.NOTIMP)
    try:
        query = dns.message.from_wire(wire)
        (question,) = query.question
    except Exception as error:
        log.debug("malformed query error=%r", error)
        return _bare(wire, dns.rcode.FORMERR)
    try:
        return _to_wire(_answer(zone, query, question), query, udp=udp)
    except Exception:
        log.exception("cannot answer query=%s", question)
        return _bare(wire, dns.rcode.SERVFAIL)


def _bare(wire: bytes, rcode: Rcode) -> bytes:
    """An answer that is only a header, with the query's id, opcode and RD bit."""
    return struct.pack("!2sBB8x", wire[:2], _RESPONSE | wire[2] & 0x79, rcode)


def _answer(zone: Zone, query: dns.message.Message, question: RRset) -> dns.message.Message:
    response = dns.message.make_response(query, our_payload=UDP_PAYLOAD)
    transfer = question.rdtype in (RdataType.AXFR, RdataType.IXFR)
    ours = question.rdclass == RdataClass.IN and zone.find(question.name) is not None
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
    elif transfer or not ours:
        response.set_rcode(dns.rcode.REFUSED)
    else:
        response.flags |= dns.flags.AA
        _fill(response, zone, question.name, question.rdtype)
    return response


def _fill(response: dns.message.Message, zone: Zone, name: Name, rdtype: RdataType) -> None:
    """Put the records in, and follow CNAMEs as long as they stay in the zones."""
    for _ in range(_CNAME_LIMIT):
        found = zone.find(name)
        if found is None:
            return
        rrsets = found.rrsets
        if rrsets and RdataType.CNAME in rrsets and rdtype not in (RdataType.CNAME, RdataType.ANY):
            cname = rrsets[RdataType.CNAME]
            response.answer.append(_rrset(name, cname))
            name = cname[0].target
            continue
        matching = _matching(rrsets or {}, rdtype)
        response.answer.extend(_rrset(name, rrset) for rrset in matching)
        response.additional.extend(_additional(zone, matching))
        if not matching:
            response.authority.append(_rrset(found.apex, zone.soa))
        if rrsets is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return


def _matching(rrsets: RRsets, rdtype: RdataType) -> list[Rdataset]:
    if rdtype == RdataType.ANY:
        return list(rrsets.values())
    return [rrsets[rdtype]] if rdtype in rrsets else []


def _additional(zone: Zone, rrsets: list[Rdataset]) -> Iterator[RRset]:
    """The addresses of the names in SRV and NS records."""
    targets = {
        rdata.target: None for rrset in rrsets for rdata in rrset if hasattr(rdata, "target")
    }
    for target in targets:
        found = zone.find(target)
        for rdtype in (RdataType.A, RdataType.AAAA):
            if found and found.rrsets and rdtype in found.rrsets:
                yield _rrset(target, found.rrsets[rdtype])


def _rrset(name: Name, rdataset: Rdataset) -> RRset:
    return dns.rrset.from_rdata_list(name, rdataset.ttl, _as_many_as_fit(rdataset))


def _as_many_as_fit(rdataset: Rdataset) -> list[Rdata]:
    """The records that fit into a message over TCP, others each time; mostly that is all of them.

    Unbound shortens no names within records, as RFC 3597 has it, and has no answer at all for its
    clients where that takes more than a message holds.
    """
    records = list(rdataset)
    if len(records) * (_RECORD + _LONGEST_NAME) < _ROOM:
        return records
    random.shuffle(records)
    room = _ROOM
    for count, record in enumerate(records):
        room -= _RECORD + len(record.to_wire() or b"")
        if room < 0:
            return records[:count]
    return records


def _to_wire(response: dns.message.Message, query: dns.message.Message, *, udp: bool) -> bytes:
    taken = query.payload if query.edns >= 0 else 0
    limit = payload(taken) if udp else _LARGEST_MESSAGE
    return response.to_wire(max_size=limit, prefer_truncation=True)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, get_zone: GetZone) -> None:
        self._get_zone = get_zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        response = respond(self._get_zone(), data, udp=True)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


async def _tcp(
    get_zone: GetZone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    # Cancelled is how a connection that Unbound keeps open ends when this program does.
    errors = (asyncio.IncompleteReadError, asyncio.CancelledError, OSError)
    with closing(writer), suppress(*errors):
        while True:
            async with asyncio.timeout(_IDLE):
                size = int.from_bytes(await reader.readexactly(2))
                wire = await reader.readexactly(size)
                response = respond(get_zone(), wire, udp=False)
                if response is None:
                    return
                writer.write(len(response).to_bytes(2) + response)
                await writer.drain()


async def _http(
    get_zone: GetZone,
    is_alive: Callable[[], bool],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    errors = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError)
    with closing(writer), suppress(*errors):
        async with asyncio.timeout(_IDLE):
            head = await reader.readuntil(b"\r\n\r\n")
            match head.split(b" ", 2)[:2]:
                case [b"GET", b"/ready"]:
                    status = HTTPStatus.OK if get_zone() else HTTPStatus.SERVICE_UNAVAILABLE
                case [b"GET", b"/live"]:
                    status = HTTPStatus.OK if is_alive() else HTTPStatus.SERVICE_UNAVAILABLE
                case _:
                    status = HTTPStatus.NOT_FOUND
            body = f"{status.phrase}\n"
            writer.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()


class Bound(NamedTuple):
    """Where a server really listens, if port 0 was asked for."""

    listen: Address
    health: Address


@asynccontextmanager
async def serving(
    get_zone: GetZone, is_alive: Callable[[], bool], listen: Address, health: Address
) -> AsyncIterator[Bound]:
    """Serve DNS and health as long as the context lasts.

    Args:
        get_zone: gives the zone of the moment, or None while it is not known.
        is_alive: whether this process can do its work; if not, it should be started again.
        listen: for DNS, UDP and TCP.
        health: for HTTP, /ready and /live.
    """
    with ExitStack() as stack:
        tcp = await asyncio.start_server(partial(_tcp, get_zone), *listen)
        stack.callback(tcp.close)
        listen = Address(*tcp.sockets[0].getsockname()[:2])
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Udp(get_zone), local_addr=listen
        )
        stack.callback(udp.close)
        http = await asyncio.start_server(partial(_http, get_zone, is_alive), *health)
        stack.callback(http.close)
        yield Bound(listen, Address(*http.sockets[0].getsockname()[:2]))
