"""`python3 -m incluster.dns.unbound`: writes Unbound's configuration and becomes Unbound."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..console import log_to_stderr
from .arguments import add_zone_arguments
from .reverse import reverse_zones

log = logging.getLogger("incluster.dns.unbound")

_TEMPLATE = Path(__file__).with_name("unbound.conf")


def upstreams(resolv_conf: str) -> list[str]:
    """The resolvers in the text of a resolv.conf that a pod can reach.

    A loopback address is the node's own: inside a pod it would be Unbound asking itself.
    """
    found: list[str] = []
    for line in resolv_conf.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                try:
                    ip = ipaddress.ip_address(address)
                except ValueError:
                    log.warning("ignored nameserver=%s reason=not an address", address)
                    continue
                # Link-local is fine with IPv4: some clouds have their resolver there.
                scoped = ip.version == 6 and ip.is_link_local
                if ip.is_loopback or ip.is_unspecified or scoped:
                    log.warning("ignored nameserver=%s reason=out of reach of a pod", address)
                elif str(ip) not in found:
                    found.append(str(ip))
    return found


@dataclass(frozen=True)
class Configuration:
    """What Unbound is to do.

    Args:
        zone: the cluster domain.
        reverse_cidrs: ranges whose reverse lookups are the cluster's.
        forward_to: resolvers for everything else. Without any, `records` is asked, which refuses,
            so that clients get SERVFAIL at once instead of Unbound looking for the internet.
        records: where `python3 -m incluster.dns` answers, as ADDRESS@PORT.
        port: to listen on.
        interfaces: addresses to listen on; those of a pod by default, which has one.
        verbosity: Unbound's own.
    """

    zone: str
    reverse_cidrs: Sequence[str] = ()
    forward_to: Sequence[str] = ()
    records: str = "127.0.0.1@5353"
    port: int = 53
    interfaces: Sequence[str] = ("0.0.0.0",)
    verbosity: int = 1

    def render(self) -> str:
        reverse = [name for cidr in self.reverse_cidrs for name in reverse_zones(cidr)]
        zones = [self.zone.rstrip("."), *reverse]
        text = _TEMPLATE.read_text(encoding="utf-8").format(
            verbosity=self.verbosity,
            port=self.port,
            interfaces="\n".join(f"    interface: {address}" for address in self.interfaces),
            # Lifts what Unbound answers by itself for 10.in-addr.arpa, .test and the like.
            local_zones="".join(f'    local-zone: "{name}." transparent\n' for name in zones),
        )
        for name in zones:
            text += f'\nstub-zone:\n    name: "{name}."\n    stub-addr: {self.records}\n'
        text += '\nforward-zone:\n    name: "."\n'
        for address in self.forward_to or [self.records]:
            text += f"    forward-addr: {address}\n"
        return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the configuration and start Unbound in place of this process."""
    parser = argparse.ArgumentParser(prog="incluster.dns.unbound", description=__doc__)
    add_zone_arguments(parser)
    parser.add_argument(
        "--resolv-conf", default=Path("/etc/resolv.conf"), type=Path, metavar="FILE",
        help="whose nameserver lines say where to forward everything else",
    )  # fmt: skip
    parser.add_argument(
        "--upstream", action="append", metavar="ADDRESS[@PORT]",
        help="forward to this resolver instead; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--records", default="127.0.0.1@5353", metavar="ADDRESS@PORT",
        help="where incluster.dns listens",
    )  # fmt: skip
    parser.add_argument("--port", default=53, type=int, help="to listen on, UDP and TCP")
    parser.add_argument(
        "--interface", action="append", metavar="ADDRESS", help="to listen on; may be repeated"
    )
    parser.add_argument(
        "--config", default=Path("/run/unbound.conf"), type=Path, metavar="FILE",
        help="where to write the configuration",
    )  # fmt: skip
    parser.add_argument("--program", default="unbound", help="Unbound itself")
    parser.add_argument("--verbosity", default=1, type=int, help="Unbound's own")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    try:
        _start(options)
    except OSError as error:
        log.error("cannot start program=%s error=%s", options.program, error)
        sys.exit(1)


def _start(options: argparse.Namespace) -> None:
    forward_to = options.upstream or upstreams(options.resolv_conf.read_text(encoding="utf-8"))
    if not forward_to:
        log.warning("no nameserver in %s: only cluster names resolve", options.resolv_conf)
    configuration = Configuration(
        zone=options.zone,
        reverse_cidrs=options.reverse_cidr,
        forward_to=forward_to,
        records=options.records,
        port=options.port,
        interfaces=options.interface or Configuration.interfaces,
        verbosity=options.verbosity,
    )
    options.config.write_text(configuration.render(), encoding="utf-8")
    log.info("starting unbound port=%d upstream=%s", options.port, ",".join(forward_to))
    os.execvp(options.program, [options.program, "-d", "-c", str(options.config)])


if __name__ == "__main__":
    main()
