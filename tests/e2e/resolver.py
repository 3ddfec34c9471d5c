"""A DNS server on the host's loopback, as systemd-resolved or dnsmasq would be one."""

from __future__ import annotations

import socket
import threading
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class Resolver:
    """Answers A questions for given names, NXDOMAIN otherwise, and notes what it was asked.

    Its address is its own, so that a resolver of the host can keep 127.0.0.1:53.
    """

    address = "127.0.0.153"

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.address, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text(omit_final_dot=True).lower()
            self.asked.append((name, peer[0]))
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.RA
            if name in self.names:
                if query.question[0].rdtype == 1:
                    answer.answer.append(
                        dns.rrset.from_text(f"{name}.", 5, "IN", "A", self.names[name])
                    )
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self._socket.sendto(answer.to_wire(), peer)
