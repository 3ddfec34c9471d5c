"""`python3 -m incluster.dns.front`: clients ask it over UDP, and it asks Unbound.

Unbound answers what does not fit into a datagram with no record at all, for the client to ask again
over TCP. Many clients never do, musl's before 1.2.4 among them (Alpine up to 3.17). From here they
get as many records as fit, marked as truncated, which RFC 2181, section 9, leaves to the server.

It reads messages by itself: dnspython would be half of its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import struct
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple, cast

from ..console import log_to_stderr, until_terminated
from .transport import Address, payload

log = logging.getLogger("incluster.dns.front")

_HEADER = 12
_TRUNCATED = 0x02
_OPT = 41
_RESPONSE = 0x80
_RR_HEADER = struct.Struct("!HHIH")
_TCP_TIMEOUT_S = 5.0


def fitting(wire: bytes, limit: int) -> bytes:
    """The start of an answer that fits into so many bytes, marked as truncated.

    Its records are whole ones of the answer section, as many as there is room for. Names in it
    only refer to what comes before them, so it can be cut after any record.

    Raises:
        ValueError: it is no answer.
    """
    asked, records = _parse(wire)
    answers = int.from_bytes(wire[6:8])
    ends = [asked, *(each.end for each in records[:answers])]
    opts = (wire[each.start : each.end] for each in records[answers:] if each.kind == _OPT)
    opt = next(opts, b"")
    kept = max(n for n, each in enumerate(ends) if n == 0 or each + len(opt) <= limit)
    head = bytes((*wire[:2], wire[2] | _TRUNCATED, wire[3]))
    head += struct.pack("!4H", 1, kept, 0, 1 if opt else 0)
    return head + wire[_HEADER : ends[kept]] + opt


def payload_of(question: bytes) -> int:
    """How many bytes of UDP the answer to a question may have.

    Raises:
        ValueError: it is no question.
    """
    _, records = _parse(question)
    return payload(next((each.taken for each in records if each.kind == _OPT), 0))


class _Record(NamedTuple):
    """Where a record begins and ends, its type, and its class: of an OPT record, a payload."""

    start: int
    end: int
    kind: int
    taken: int


def _parse(wire: bytes) -> tuple[int, list[_Record]]:
    """Where the one question of a message ends, and its records."""
    counts = struct.unpack_from("!4H", wire, 4) if len(wire) > _HEADER else ()
    records = []
    try:
        if counts[0] != 1:
            raise ValueError("not one question")
        asked = end = _after_name(wire, _HEADER) + 4
        for _ in range(sum(counts[1:])):
            start, end = end, _after_name(wire, end)
            kind, taken, _, size = _RR_HEADER.unpack_from(wire, end)
            end += _RR_HEADER.size + size
            records.append(_Record(start, end, kind, taken))
    except (IndexError, struct.error) as error:
        raise ValueError("damaged message") from error
    return asked, records


def _after_name(wire: bytes, place: int) -> int:
    """Where a name ends that begins at a place."""
    while (length := wire[place]) and length < 0xC0:
        place += 1 + length
    return place + (2 if length else 1)


class Question(NamedTuple):
    """A question on its way, and who asked it."""

    wire: bytes
    client: tuple[str | Any, int]


class Front(asyncio.DatagramProtocol):
    """Takes questions of clients.

    Args:
        unbound: where it answers, over UDP and TCP.
    """

    def __init__(self, unbound: Address) -> None:
        self._address = unbound
        self._unbound: asyncio.DatagramTransport | None = None
        self._clients: asyncio.DatagramTransport | None = None
        # By the number that Unbound knows it under. One that nobody ever answers is overwritten.
        self._asked: dict[int, Question] = {}
        self._last = 0
        self._again: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._unbound, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Answers(self), remote_addr=self._address
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._clients = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if len(data) <= _HEADER or data[2] & _RESPONSE or self._unbound is None:
            return
        self._last = number = (self._last + 1) & 0xFFFF
        self._asked[number] = Question(data, addr)
        self._unbound.sendto(number.to_bytes(2) + data[2:])

    def answered(self, wire: bytes) -> None:
        """Take an answer of Unbound's."""
        question = self._asked.pop(int.from_bytes(wire[:2]), None)
        if question is None or len(wire) < _HEADER:
            return
        if wire[2] & _TRUNCATED:
            task = asyncio.ensure_future(self._ask_again(question, wire))
            self._again.add(task)
            task.add_done_callback(self._again.discard)
        else:
            self._send(question, wire)

    def _send(self, question: Question, wire: bytes) -> None:
        if self._clients is not None:
            self._clients.sendto(question.wire[:2] + wire[2:], question.client)

    async def _ask_again(self, question: Question, truncated: bytes) -> None:
        try:
            async with asyncio.timeout(_TCP_TIMEOUT_S):
                whole = await _over_tcp(self._address, question.wire)
            self._send(question, fitting(whole, payload_of(question.wire)))
        except (OSError, EOFError, ValueError) as error:
            log.warning("cannot ask again over TCP error=%r", error)
            self._send(question, truncated)


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, front: Front) -> None:
        self._front = front

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._front.answered(data)


async def _over_tcp(address: Address, wire: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    with closing(writer):
        writer.write(len(wire).to_bytes(2) + wire)
        size = int.from_bytes(await reader.readexactly(2))
        return await reader.readexactly(size)


async def run(listen: Address, unbound: Address) -> None:
    stop = until_terminated()
    front = Front(unbound)
    await front.open()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: front, local_addr=listen
    )
    with closing(transport):
        log.info("serving listen=%s:%d unbound=%s:%d", *listen, *unbound)
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="incluster.dns.front", description=__doc__)
    parser.add_argument(
        "--listen", required=True, type=Address.parse, metavar="HOST:PORT", help="for clients, UDP"
    )
    parser.add_argument(
        "--unbound", required=True, type=Address.parse, metavar="HOST:PORT",
        help="where Unbound listens, UDP and TCP",
    )  # fmt: skip
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    try:
        asyncio.run(run(options.listen, options.unbound))
    except OSError as error:
        log.error("cannot serve error=%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
