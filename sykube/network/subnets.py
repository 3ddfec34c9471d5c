"""Subnets that are free on this host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from sykube.errors import HostError
from sykube.host.host import Host

# As text: each command imports this module, and 800 networks take 3 ms to make. The first of each
# is what people know: old sykube's nodes, flannel's pods, kubeadm's Services.
_NODES = tuple(f"{net}.{n}.0/24" for net in ("10.11", "172.27", "192.168") for n in range(11, 251))
_PODS = ("10.244.0.0/16", "10.245.0.0/16", "172.26.0.0/16", "100.66.0.0/16")
_SERVICES = (
    *("10.96.0.0/12", "10.112.0.0/12", "172.28.0.0/16"),
    *(f"100.{n}.0.0/16" for n in range(67, 100)),
)
# What the names of clusters' bridges begin with.
BRIDGE_PREFIX = "sk-"


@dataclass(frozen=True)
class Subnets:
    """The three ranges of a cluster; each is free of the host's routes and of the others."""

    nodes: IPv4Network
    pods: IPv4Network
    services: IPv4Network

    @property
    def gateway(self) -> str:
        """The bridge's address: the first of the nodes' subnet."""
        return str(self.nodes[1])

    def node_address(self, place: int) -> str:
        """Address of the node at a place, 0 for the master."""
        return str(self.nodes[2 + place])

    def pod_subnet(self, place: int) -> str:
        """The /24 of the pods of the node at a place."""
        return f"{self.pods[256 * place]}/24"

    @property
    def load_balancers(self) -> tuple[str, str]:
        """The first and last address for Services of type LoadBalancer.

        They are on the nodes' bridge, whatever else the host has, and those of workers that hardly
        any cluster has: 141 to 240. A node that comes all the same takes its address from them.
        """
        return str(self.nodes[143]), str(self.nodes[242])

    @property
    def dns(self) -> str:
        """The cluster DNS: the tenth address of the Services' range, as kubeadm has it."""
        return str(self.services[10])


def host_routes(host: Host) -> list[IPv4Network]:
    """Destinations of the host's IPv4 routes, but for the default ones and sykube's to Services.

    Those beyond a network of the user's own are among them: pods reach them that way.
    """
    routes = json.loads(
        host.run(["ip", "-j", "-4", "route", "show", "table", "all"]).stdout or "[]"
    )
    found = [*host.network.beyond]
    for route in routes:
        if route["dst"] == "default" or route.get("type") in ("local", "broadcast"):
            continue
        if route.get("dev", "").startswith(BRIDGE_PREFIX) and "gateway" in route:
            continue
        network = IPv4Network(route["dst"], strict=False)
        # A VPN writes the default route as two halves.
        if network.prefixlen > 1:
            found.append(network)
    return found


def choose(
    taken: Iterable[IPv4Network],
    *,
    avoid: Sequence[IPv4Network] = (),
    nodes: IPv4Network | None = None,
    pods: IPv4Network | None = None,
    services: IPv4Network | None = None,
) -> Subnets:
    """Pick the ranges that are not given.

    Args:
        taken: ranges that the host's routes and other clusters use.
        avoid: ranges that can be used again, but are picked last.
        nodes, pods, services: the user's own choice.

    Raises:
        HostError: a given range collides, or no candidate is free.
    """
    used = list(taken)

    def pick(what: str, wanted: IPv4Network | None, candidates: tuple[str, ...]) -> IPv4Network:
        for candidate in [wanted] if wanted else _in_order(candidates, avoid):
            clash = next((net for net in used if net.overlaps(candidate)), None)
            if clash is None:
                used.append(candidate)
                return candidate
            if wanted:
                raise HostError(
                    f"the {what} subnet {wanted} overlaps {clash}, which is in use on this host",
                    resolution=f"Leave --{what}-subnet out, so that a free one is picked, "
                    "or give one that is not among `ip route show table all`.",
                )
        raise HostError(
            f"no {what} subnet is free of this host's routes",
            resolution=f"Name one that is: --{what}-subnet CIDR",
        )

    ranges = (
        ("nodes", "node", nodes, _NODES),
        ("pods", "pod", pods, _PODS),
        ("services", "service", services, _SERVICES),
    )
    # What the user chose is set aside first, so that nothing picked here takes it.
    picked = {
        name: pick(label, wanted, candidates)
        for name, label, wanted, candidates in sorted(ranges, key=lambda row: row[2] is None)
    }
    return Subnets(**picked)


def _in_order(candidates: Iterable[str], avoid: Sequence[IPv4Network]) -> Iterator[IPv4Network]:
    last = []
    for candidate in map(IPv4Network, candidates):
        if any(candidate.overlaps(other) for other in avoid):
            last.append(candidate)
        else:
            yield candidate
    yield from last


def parse(text: str) -> IPv4Network | None:
    """A network, or None for an empty text."""
    return IPv4Network(text) if text else None
