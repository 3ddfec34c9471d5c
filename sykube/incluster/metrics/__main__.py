"""`python3 -m incluster.metrics`: serves metrics.k8s.io/v1beta1 from what the kubelets measure."""

from __future__ import annotations

import argparse
import base64
import http.client
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..api import Api, ApiError
from ..console import log_to_stderr
from ..watch import Watcher
from .answers import GROUP, VERSION, Metrics
from .certificate import DAYS, make
from .frontproxy import FrontProxy
from .kubelets import scrape_all
from .objects import Objects
from .samples import Meter
from .server import Identity, Server

log = logging.getLogger("incluster.metrics")

_INTERVAL_S = 10.0
# The certificate is renewed long before it expires.
_RENEW_S = DAYS * 86400 / 3
_CONFIGMAPS = "/api/v1/namespaces/kube-system/configmaps"
_APISERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{GROUP}"


class Program:
    """Keeps certificates, kubelets and the APIService up to date, turn by turn.

    Args:
        folder: in memory, for the certificate and its key.
        names: of the Service, which the API server looks for in the certificate.
    """

    def __init__(self, api: Api, folder: Path, names: tuple[str, ...]) -> None:
        self._api, self._folder, self._names = api, folder, names
        self.objects, self.meter = Objects(), Meter()
        self._made_at = time.monotonic()
        self._identity = Identity(make(folder, names), self._front_proxy())
        self._kubelets: dict[str, str] = {}

    def serve(self, port: int) -> Server:
        metrics = Metrics(self.objects, self.meter, time.time)
        server = Server(port, self._identity, metrics.answer, lambda: self.objects.complete)
        server.start()
        return server

    def turn(self, server: Server) -> None:
        """Look at everything once; what fails is tried again at the next turn."""
        try:
            self._refresh(server)
        except (ApiError, OSError, http.client.HTTPException, KeyError, ValueError) as error:
            log.warning("not refreshed error=%s: %s", type(error).__name__, error)
        nodes = self.objects.nodes()
        scrape_all(self._api, nodes, self._kubelets, self.meter)
        for gone in self.meter.usage(0).keys() - {node.name for node in nodes}:
            self.meter.forget(gone)

    def _refresh(self, server: Server) -> None:
        self._kubelets = self._data("kubelet-certificates")
        certificate = self._identity.certificate
        if time.monotonic() - self._made_at > _RENEW_S:
            certificate = make(self._folder, self._names)
            self._made_at = time.monotonic()
        identity = Identity(certificate, self._front_proxy())
        if identity != self._identity:
            server.use(identity)
            self._identity = identity
            log.info("another certificate, ours or of those whom we let in")
        self._publish(certificate.text)

    def _publish(self, text: str) -> None:
        """Let the API server know the certificate; the APIService may be another's, too, by now."""
        bundle = base64.b64encode(text.encode()).decode()
        found = self._api.send("GET", _APISERVICE)
        if found["spec"].get("caBundle") != bundle:
            change = {"spec": {"caBundle": bundle}}
            self._api.send("PATCH", _APISERVICE, change, "application/merge-patch+json")
            log.info("published our certificate in the APIService")

    def _front_proxy(self) -> FrontProxy:
        return FrontProxy.of(self._data("extension-apiserver-authentication"))

    def _data(self, name: str) -> dict[str, str]:
        found = self._api.send("GET", f"{_CONFIGMAPS}/{name}")
        return dict(found.get("data") or {})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="incluster.metrics", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="in memory, for the key")
    parser.add_argument("--name", action="append", required=True, help="of the Service; repeatable")
    parser.add_argument("--port", type=int, default=8443, help="for HTTPS")
    options = parser.parse_args(arguments)
    log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    api = Api.in_cluster(os.environ)
    program = Program(api, options.folder, tuple(options.name))
    watchers = [Watcher(api, resource, program.objects) for resource in ("nodes", "pods")]
    for watcher in watchers:
        watcher.start()
    server = program.serve(options.port)
    log.info("serving port=%d", options.port)
    while not program.objects.complete and all(watcher.is_alive() for watcher in watchers):
        time.sleep(0.1)
    while all(watcher.is_alive() for watcher in watchers):
        started = time.monotonic()
        program.turn(server)
        time.sleep(max(1.0, started + _INTERVAL_S - time.monotonic()))
    sys.exit(1)


if __name__ == "__main__":
    main()
