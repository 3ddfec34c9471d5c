"""The program ip of a fake host."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Interface

from tests.fakes.answers import Answer
from tests.fakes.kernel import Kernel

_HAIRPIN = ["type", "bridge_slave", "hairpin", "on"]


@dataclass
class Ip:
    """`ip`: links, addresses and routes of a kernel."""

    kernel: Kernel

    def __call__(self, words: list[str]) -> Answer:
        links = self.kernel.links
        match words:
            case ["link", "show", "dev", name]:
                if name not in links:
                    return 1, "", f'Device "{name}" does not exist.'
                return 0, f"2: {name}: <BROADCAST>", ""
            case ["link", "add", "name", name, "type", "bridge"]:
                assert len(name) <= 15, f"the kernel takes no interface name {name!r}"
                if name in links:
                    return 2, "", "RTNETLINK answers: File exists"
                self.kernel.add_link(name)
                for key in ("forwarding", "route_localnet"):
                    self.kernel.define(f"net/ipv4/conf/{name}/{key}", "0")
                return 0, "", ""
            case ["address", "replace", address, "dev", name]:
                if name not in links:
                    return 1, "", f'Cannot find device "{name}"'
                if address not in links[name]:
                    links[name].append(address)
                    network = str(IPv4Interface(address).network)
                    self.kernel.routes.append({"dst": network, "dev": name})
                return 0, "", ""
            case ["link", "set", "dev", name, *what] if what in (["up"], _HAIRPIN):
                return (0, "", "") if name in links else (1, "", f'Cannot find device "{name}"')
            case ["link", "set", "dev", name, "master", master, "up"]:
                if not {name, master} <= set(links):
                    return 1, "", f'Cannot find device "{name}"'
                self.kernel.attach(name, master)
                return 0, "", ""
            case ["link", "delete", "dev", name]:
                if name not in links:
                    return 1, "", f'Cannot find device "{name}"'
                self.kernel.remove_link(name)
                return 0, "", ""
            case ["route", "show", network]:
                found = [route for route in self.kernel.routes if route["dst"] == network]
                return 0, "".join(f"{network} dev {route['dev']}\n" for route in found), ""
            case ["route", "add", network, "via", gateway, "dev", name]:
                route = {"dst": network, "gateway": gateway, "dev": name}
                if name not in links:
                    return 1, "", f'Cannot find device "{name}"'
                if any(each["dst"] == network for each in self.kernel.routes):
                    return 2, "", "RTNETLINK answers: File exists"
                self.kernel.routes.append(route)
                return 0, "", ""
            case ["-j", "-4", "route", "show", "table", "all"]:
                return 0, json.dumps(self.kernel.routes), ""
            case ["-j", "-4", "address", "show", "dev", name]:
                if name not in links:
                    return 1, "", f'Device "{name}" does not exist.'
                pairs = [address.split("/") for address in links[name]]
                shown = [{"local": local, "prefixlen": int(prefix)} for local, prefix in pairs]
                return 0, json.dumps([{"ifname": name, "addr_info": shown}]), ""
        raise AssertionError(f"the fake ip does not know: {words}")
