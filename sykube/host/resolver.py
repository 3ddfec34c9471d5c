"""The resolvers that the host itself uses."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from sykube.errors import HostError
from sykube.host.host import Host

NONE = "none"
"""In the place of an address: names of the cluster's own are enough."""


@dataclass(frozen=True)
class Resolvers:
    """What nodes forward names to.

    Attributes:
        direct: IPv4 addresses that nodes reach by themselves.
        loopback: the host's resolver on 127.0.0.0/8, reached by way of the gateway; or empty.
    """

    direct: tuple[str, ...]
    loopback: str = ""

    def as_seen_by_nodes(self, gateway: str) -> tuple[str, ...]:
        """Addresses for a node's resolv.conf, which takes three at most (resolv.conf(5))."""
        return ((gateway,) if self.loopback else ())[:1] + self.direct[:2]


def host_resolvers(host: Host, wanted: tuple[str, ...] = ()) -> Resolvers:
    """The resolvers given by --dns, else those of the host's resolv.conf.

    Args:
        wanted: addresses, or only NONE.

    Raises:
        HostError: there is none that a node can reach over IPv4.
    """
    if wanted == (NONE,):
        return Resolvers(())
    resolv_conf = host.etc / "resolv.conf"
    addresses = list(wanted) or _nameservers(resolv_conf)
    found = [address for text in addresses if (address := _address(text))]
    loopback = [str(address) for address in found if address.version == 4 and address.is_loopback]
    direct = [
        str(address)
        for address in found
        if isinstance(address, IPv4Address) and not address.is_loopback
    ]
    if not loopback and not direct:
        source = "--dns" if wanted else str(resolv_conf)
        details = f"{source}: {', '.join(addresses) or 'no nameserver line'}"
        raise HostError(
            "the host names no resolver that nodes can reach over IPv4",
            details=details,
            resolution="Name your site's: sykube init --dns ADDRESS (`resolvectl status`, `nmcli "
            "device show` or your administrator may know it). Where there is none, or none is to "
            "be asked: sykube init --dns none, for a cluster that resolves only its own names.",
        )
    return Resolvers(tuple(direct), loopback[0] if loopback else "")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without its zone; None for what is none, which glibc ignores, too."""
    try:
        return ip_address(text.split("%")[0])
    except ValueError:
        return None


def _nameservers(resolv_conf: Path) -> list[str]:
    try:
        lines = resolv_conf.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
