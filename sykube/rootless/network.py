"""The network of a host as it is asked from a user's namespaces: its ports are slirp4netns's."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from sykube.errors import HostError
from sykube.host import lock
from sykube.host.files import write_atomically
from sykube.host.network import LedAwayError, Network
from sykube.network.ports import ANY, refusal
from sykube.network.subnets import BRIDGE_PREFIX
from sykube.rootless.host_ports import HostPorts
from sykube.rootless.slirp import ADDRESS, Forward, Slirp

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# Ports of API servers on the host's loopback, of all clusters of all users.
_API_PORTS = range(16443, 17443)


def routes(file: Path) -> tuple[IPv4Network, ...]:
    """Destinations in /proc/net/route, but for default routes and those of root's clusters.

    These two are in networks that do not meet.
    """
    found = []
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines()[1:]:
            link, destination, *_ = fields = line.split()
            # Numbers as the kernel has them in memory: proc(5), fib_route_seq_show.
            address, mask = (
                int.from_bytes(bytes.fromhex(each), sys.byteorder)
                for each in (destination, fields[7])
            )
            network = IPv4Network((address, str(IPv4Address(mask))), strict=False)
            if network.prefixlen > 1 and not link.startswith(BRIDGE_PREFIX):
                found.append(network)
    return tuple(found)


class RootlessNetwork(Network):
    """See Network. What is bound and published is a port of the host, not of this namespace.

    Which ports are whose is in a file beside slirp4netns's socket: it knows only numbers.
    """

    arrival = ADDRESS

    def __init__(
        self,
        slirp: Slirp,
        beyond: tuple[IPv4Network, ...] = (),
        host_ports: HostPorts | None = None,
    ) -> None:
        """As it is asked by one command.

        Args:
            host_ports: the host's own way to its ports; without it, only who listens there counts.
        """
        self.beyond = beyond
        self._slirp = slirp
        self._host_ports = host_ports
        self._record = slirp.socket.with_name("ports.json")

    def bind(self, kind: socket.SocketKind, address: tuple[str, int]) -> None:
        protocol = next(name for name, each in _KINDS.items() if each == kind)
        self._try(Forward(protocol, *address))

    def _try(self, wanted: Forward) -> None:
        """Take a port and give it back; what is sent to it meanwhile has to arrive here.

        Raises:
            OSError: it is in use, or leads elsewhere.
        """
        if self._host_ports is None:
            self._slirp.add(wanted)
            self._slirp.remove(wanted)
            return
        addresses, own = [wanted.address], self._host_ports.addresses()
        if wanted.address == ANY:
            addresses = own
        elif wanted.address not in own and not IPv4Address(wanted.address).is_loopback:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        with socket.socket(socket.AF_INET, _KINDS[wanted.protocol]) as here:
            here.bind((self.arrival, 0))
            if wanted.protocol == "tcp":
                here.listen()
            # Not at its own number, which rules of a cluster may lead on from here.
            self._slirp.add(wanted, here.getsockname()[1])
            try:
                for address in addresses:
                    if not self._host_ports.reaches((address, wanted.port), here):
                        raise LedAwayError(f"what is sent to {address} does not arrive")
            finally:
                self._slirp.remove(wanted)

    def publish(self, cluster: str, ports: Collection[tuple[str, str, int]]) -> None:
        with lock.in_turn(self._record.parent):
            self._publish(cluster, {Forward(*port) for port in ports})

    def _publish(self, cluster: str, wanted: set[Forward]) -> None:
        owned = self._owned()
        there = self._slirp.forwards()
        for gone in owned.get(cluster, set()) - wanted:
            self._slirp.remove(gone)
        # Recorded before: what is there of it is closed with the cluster.
        owned[cluster] = wanted
        self._save(owned)
        for new in sorted(wanted - {*there}, key=str):
            try:
                self._try(new)
                self._slirp.add(new)
            except OSError as error:
                refused = refusal(error, new.address, new.port)
                # Looked at before, it was free: the cluster has been stopped meanwhile.
                refused.resolution += (
                    f"\n  Or let the cluster go on without it: sykube port delete {new.port} "
                    f"--name {cluster}"
                )
                raise refused from error

    def api_port(self, taken: Collection[int]) -> int:
        for port in _API_PORTS:
            if port not in taken:
                with contextlib.suppress(OSError):
                    self.bind(socket.SOCK_STREAM, ("127.0.0.1", port))
                    return port
        raise HostError(
            f"no port from {_API_PORTS[0]} to {_API_PORTS[-1]} of 127.0.0.1 is free",
            resolution="End what listens on them: ss -lntp",
        )

    def restore(self) -> None:
        """Publish again what a slirp4netns that has died had; one that is taken stays closed."""
        for cluster, ports in self._owned().items():
            with contextlib.suppress(HostError):
                self.publish(cluster, [(each.protocol, each.address, each.port) for each in ports])

    def forget(self) -> None:
        """Publish nothing of what there was: clusters do it when they start."""
        self._record.unlink(missing_ok=True)

    def _owned(self) -> dict[str, set[Forward]]:
        try:
            stored = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {name: {Forward(*each) for each in ports} for name, ports in stored.items()}

    def _save(self, owned: dict[str, set[Forward]]) -> None:
        stored = {
            name: sorted([each.protocol, each.address, each.port] for each in ports)
            for name, ports in owned.items()
            if ports
        }
        write_atomically(self._record, json.dumps(stored), mode=0o600)
        if not stored:
            self._record.unlink()
