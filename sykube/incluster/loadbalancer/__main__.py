"""`python3 -m incluster.loadbalancer`: gives Services their addresses, and answers for these."""

from __future__ import annotations

import argparse
import http.client
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .. import events
from ..api import Api, ApiError
from ..console import log_to_stderr
from ..reconcile import Objects, serve
from . import places
from .addresses import Decision, Pool, decide, status_of
from .arp import Announcer

log = logging.getLogger("incluster.loadbalancer")

RESOURCES = ("services", "endpoints", "nodes")
_MERGE = "application/merge-patch+json"
_FAILURES = (ApiError, OSError, http.client.HTTPException)


class Announces(Protocol):
    """As Announcer."""

    def update(self, address: str, nodes: Sequence[str], places: dict[str, str]) -> None:
        """Take in where addresses lead to."""

    def is_alive(self) -> bool:
        """Whether it still answers."""


@dataclass
class Controller:
    """Acts on what the API has.

    Args:
        node: the name of the node that this is on.
    """

    node: str
    pool: Pool
    announcer: Announces
    _where: dict[str, str] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    def act(self, api: Api, objects: Objects) -> None:
        """Give and take addresses, and say where they lead to; what fails is tried again later."""
        if not self.announcer.is_alive():
            log.error("nobody answers on the interface any more")
            sys.exit(1)
        nodes = [places.node_of(each) for each in objects.all("nodes")]
        addresses = {node.name: node.address for node in nodes if node.address}
        decisions = decide(objects.all("services"), set(addresses.values()), self.pool)
        for decision in decisions:
            self._record(api, decision)
        endpoints = places.by_service(objects.all("endpoints"))
        where: dict[str, str] = {}
        for each in decisions:
            if not each.address:
                continue
            metadata = each.service["metadata"]
            pods = endpoints.get((metadata["namespace"], metadata["name"]))
            now = self._where.get(each.address, "")
            if node := places.choose(each.service, each.address, pods, nodes, now):
                where[each.address] = node
        for address, node in where.items():
            if self._where.get(address) != node:
                log.info("address=%s node=%s", address, node)
        self._where = where
        self.announcer.update(
            addresses.get(self.node, ""),
            sorted(addresses.values()),
            {address: addresses[node] for address, node in where.items()},
        )

    def _record(self, api: Api, decision: Decision) -> None:
        metadata = decision.service["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        try:
            if status := status_of(decision):
                place = f"/api/v1/namespaces/{metadata['namespace']}/services/{metadata['name']}"
                # So that nothing is written over what somebody else has written since.
                version = {"resourceVersion": metadata["resourceVersion"]}
                patch = {"metadata": version, "status": status}
                api.send("PATCH", f"{place}/status", patch, _MERGE)
                log.info("service=%s address=%s", name, decision.address or "none")
            # Once for each reason.
            if (why := decision.problem) and self._told.get(metadata["uid"]) != why:
                service = decision.service
                events.warn(api, "Service", service, "NoAddress", why, "sykube-loadbalancer")
                self._told[metadata["uid"]] = why
                log.warning("service=%s problem=%s", name, why)
        except _FAILURES as error:
            log.warning("service=%s error=%s", name, error)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="incluster.loadbalancer", description=__doc__)
    parser.add_argument(
        "--pool", required=True, type=Pool.parse, metavar="FIRST-LAST", help="addresses to give"
    )
    parser.add_argument("--node", required=True, help="that this is on")
    parser.add_argument("--interface", default="eth0", help="of the node, in the nodes' subnet")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    try:
        announcer = Announcer(options.interface)
    except OSError as error:
        log.error("cannot answer on interface=%s error=%s", options.interface, error)
        sys.exit(1)
    announcer.start()
    serve(RESOURCES, Controller(options.node, options.pool, announcer).act)


if __name__ == "__main__":
    main()
