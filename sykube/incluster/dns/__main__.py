"""`python3 -m incluster.dns`: answers for the names of the cluster, from the API."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..api import SERVICE_ACCOUNT, Api
from ..console import log_to_stderr, until_terminated
from ..watch import Watcher
from .arguments import add_zone_arguments
from .live import LiveZone
from .records import Zone
from .server import serving
from .transport import Address

log = logging.getLogger("incluster.dns")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="incluster.dns", description=__doc__)
    add_zone_arguments(parser)
    parser.add_argument(
        "--listen", default=Address("127.0.0.1", 5353), type=Address.parse, metavar="HOST:PORT",
        help="for DNS over UDP and TCP",
    )  # fmt: skip
    parser.add_argument(
        "--health", default=Address("0.0.0.0", 8181), type=Address.parse, metavar="HOST:PORT",
        help="for HTTP: /ready and /live",
    )  # fmt: skip
    parser.add_argument(
        "--api-server", metavar="URL",
        help="the Kubernetes API; default: from KUBERNETES_SERVICE_HOST and _PORT",
    )  # fmt: skip
    parser.add_argument(
        "--service-account", default=SERVICE_ACCOUNT, type=Path, metavar="DIR",
        help="folder with token and ca.crt",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="log malformed queries too")
    options = parser.parse_args(arguments)
    if not options.api_server and "KUBERNETES_SERVICE_HOST" not in os.environ:
        parser.error("no --api-server, and KUBERNETES_SERVICE_HOST is not set")
    return options


async def run(options: argparse.Namespace) -> None:
    stop = until_terminated()
    live = LiveZone(Zone.empty(options.zone, options.reverse_cidr, serial=int(time.time())))
    server = options.api_server or Api.in_cluster(os.environ).server
    api = Api(server, options.service_account)
    watchers = [Watcher(api, resource, live) for resource in ("services", "endpoints")]

    def is_alive() -> bool:
        return all(watcher.is_alive() for watcher in watchers)

    for watcher in watchers:
        watcher.start()
    try:
        async with serving(lambda: live.zone, is_alive, options.listen, options.health) as bound:
            log.info("serving zone=%s listen=%s:%d api=%s", options.zone, *bound.listen, server)
            await stop.wait()
            log.info("stopping")
    finally:
        for watcher in watchers:
            watcher.stop()
        for watcher in watchers:
            watcher.join(timeout=1)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr("DEBUG" if options.verbose else "INFO")
    try:
        asyncio.run(run(options))
    except OSError as error:
        log.error("cannot serve error=%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
