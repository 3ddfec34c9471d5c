"""Names of addresses, as reverse lookups have them; of the standard library alone."""

from __future__ import annotations

import ipaddress


def reverse_zones(cidr: str) -> tuple[str, ...]:
    """The reverse zones of an address range, cut where names can be cut.

    That is at the next whole octet (IPv4) or nibble (IPv6): 10.96.0.0/12 is 96.10.in-addr.arpa to
    111.10.in-addr.arpa, and nothing outside the range is taken.
    """
    network = ipaddress.ip_network(cidr)
    bits = 8 if network.version == 4 else 4
    whole = -(-network.prefixlen // bits) * bits
    dropped = (network.max_prefixlen - whole) // bits
    return tuple(
        ".".join(part.network_address.reverse_pointer.split(".")[dropped:])
        for part in network.subnets(new_prefix=whole)
    )
