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
from .records import reverse_zones

log = logging.getLogger("incluster.dns.unbound")

_SERVER = """\
server:
    # One process in the foreground, as whoever starts it, with nothing but this file.
    username: ""
    chroot: ""
    directory: ""
    pidfile: ""
    do-daemonize: no
    use-syslog: no
    logfile: ""
    log-time-ascii: yes
    verbosity: {verbosity}
    num-threads: 1

{interfaces}
    port: {port}
    # Only the cluster network leads here, and it holds pods, nodes and what they let in.
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    do-udp: yes
    do-tcp: yes
    prefer-ip4: yes
    edns-buffer-size: 1232
    max-udp-size: 1232

    # Small: a cluster on one machine has few names.
    msg-cache-size: 8m
    msg-cache-slabs: 1
    rrset-cache-size: 8m
    rrset-cache-slabs: 1
    infra-cache-slabs: 1
    infra-cache-numhosts: 100
    outgoing-range: 512
    num-queries-per-thread: 512
    outgoing-num-tcp: 64
    incoming-num-tcp: 256

    # No validation: neither the cluster's names nor many a resolver upstream are signed.
    module-config: "iterator"
    qname-minimisation: no
    minimal-responses: no
    rrset-roundrobin: yes
    hide-identity: yes
    hide-version: yes

    # Answers live as long as their records say, 5 s in the cluster, and never longer.
    cache-min-ttl: 0
    serve-expired: no
    prefetch: no

    # Forget at once that a server did not answer: `records` may be back, started again. With the
    # default of 15 minutes it stays "down" for as long. A question waits for it meanwhile, some
    # seconds in attempts 0.2 to 3 s apart, before it gets a SERVFAIL that is remembered for 5 s,
    # and is answered however late. The price: a dead resolver upstream is tried every second.
    infra-host-ttl: 1
    infra-keep-probing: yes
    infra-cache-min-rtt: 200
    infra-cache-max-rtt: 3000
    discard-timeout: 0

    # The cluster's names come from this pod. Unbound itself knows nothing better than the
    # resolvers upstream, be it private addresses or the names of a home or test network.
    do-not-query-localhost: no
    unblock-lan-zones: yes
    local-zone: "home.arpa." nodefault
    local-zone: "test." nodefault
{local_zones}
remote-control:
    control-enable: no
"""


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
        """The text of unbound.conf."""
        reverse = [name for cidr in self.reverse_cidrs for name in reverse_zones(cidr)]
        zones = [self.zone.rstrip("."), *reverse]
        text = _SERVER.format(
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
        "--resolv-conf",
        default=Path("/etc/resolv.conf"),
        type=Path,
        metavar="FILE",
        help="whose nameserver lines say where to forward everything else",
    )
    parser.add_argument(
        "--upstream",
        action="append",
        metavar="ADDRESS[@PORT]",
        help="forward to this resolver instead; may be repeated",
    )
    parser.add_argument(
        "--records",
        default="127.0.0.1@5353",
        metavar="ADDRESS@PORT",
        help="where incluster.dns listens",
    )
    parser.add_argument("--port", default=53, type=int, help="to listen on, UDP and TCP")
    parser.add_argument(
        "--interface", action="append", metavar="ADDRESS", help="to listen on; may be repeated"
    )
    parser.add_argument(
        "--config",
        default=Path("/run/unbound.conf"),
        type=Path,
        metavar="FILE",
        help="where to write the configuration",
    )
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
