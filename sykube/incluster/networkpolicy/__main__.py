"""`python3 -m incluster.networkpolicy`: enforces NetworkPolicies on the pods of its node.

While the cluster has no policy, it follows policies alone and the kernel has no rules. What it has
told the kernel stays when it ends, however it ends: the next one replaces it, in one transaction.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..api import Api
from ..console import log_to_stderr
from ..watch import Watcher
from . import nft, policies
from .objects import Objects
from .places import Places
from .rules import Compiler, Ruleset

log = logging.getLogger("incluster.networkpolicy")

_GROUP = "/apis/networking.k8s.io/v1"
# Several changes at once are one.
_PAUSE_S = 0.02
# A pod has its address some tenths of a second before its first container starts. In this time it
# is looked for often; what takes longer than _SOON_S waits for something else.
_SOON_S, _OFTEN_S, _SELDOM_S = 10.0, 0.02, 0.5
# So that a watcher that has died is noticed.
_IDLE_S = 30.0


class Runs(Protocol):
    """As nft.run."""

    def __call__(self, script: str) -> None: ...


@dataclass
class Enforcer:
    """Keeps the kernel's rules as the policies want them.

    Args:
        node: the name of the node that this is on.
        bridge: the link that its pods are on.
        run: what tells the kernel.
    """

    node: str
    bridge: str
    objects: Objects
    places: Places
    run: Runs = nft.run
    clock: Callable[[], float] = time.monotonic
    _rules: Ruleset | None = None
    _started: bool = False
    _told: set[str] = field(default_factory=set)
    _waiting: set[tuple[str, str]] = field(default_factory=set)
    _expected_since: float = 0.0

    @property
    def is_needed(self) -> bool:
        """Whether there is any policy."""
        return bool(self.objects.policies())

    def act(self) -> None:
        """Let the kernel hold what the policies want now.

        Raises:
            NftError: it did not take it, and holds what it held before.
        """
        if not self.is_needed:
            if self._rules is not None or not self._started:
                self.run(nft.nothing())
                log.info("there is no policy: everything passes")
            self._rules, self._started = None, True
            return
        if not self.objects.has("pods", "namespaces"):
            return
        self.places.refresh()
        pods, found = self.objects.pods(), self.objects.policies()
        local = self.places.local(pods)
        compiled = Compiler(pods, self.objects.namespaces(), local, self.node).compile(found)
        self._tell(compiled)
        self._report(found, {name for pod in pods for _, name, _ in pod.ports})
        here = {(pod.namespace, pod.name) for pod in pods if pod.awaits and pod.node == self.node}
        waiting = here - {(pod.namespace, pod.name) for pod in local.values()}
        if waiting - self._waiting:
            self._expected_since = self.clock()
        self._waiting = waiting

    def wait(self) -> None:
        """Return when there may be something to do."""
        while True:
            expected = self._waiting and self.clock() - self._expected_since < _SOON_S
            pause = _OFTEN_S if expected else _SELDOM_S
            if self._rules is None:
                pause = _IDLE_S
            if self.objects.changed.wait(pause):
                time.sleep(_PAUSE_S)
                return
            if self._rules is None or self.places.refresh():
                return

    def _tell(self, wanted: Ruleset) -> None:
        if self._rules is None:
            self.run(nft.whole(wanted, self.bridge))
            log.info("all rules pods=%d chains=%d", len(wanted.maps["ingress"]), len(wanted.chains))
        elif script := nft.change(self._rules, wanted):
            try:
                self.run(script)
            except nft.NftError as error:
                # Somebody has flushed the tables, say.
                log.warning("again as a whole, since a change was refused: %s", error)
                self.run(nft.whole(wanted, self.bridge))
        self._rules, self._started = wanted, True

    def _report(self, found: Sequence[policies.Policy], names: set[str]) -> None:
        """Log what cannot be enforced, once."""
        said = {f"policy={p.namespace}/{p.name} {problem}" for p in found for problem in p.problems}
        for (namespace, name), unused in policies.unused_names(found, names).items():
            said |= {f"policy={namespace}/{name} {policies.unused(each)}" for each in unused}
        for each in sorted(said - self._told):
            log.warning("lets nothing through: %s", each)
        self._told = said


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="incluster.networkpolicy", description=__doc__)
    parser.add_argument("--api-server", required=True, help="its URL")
    parser.add_argument("--node", required=True, help="that this is on")
    parser.add_argument("--bridge", required=True, help="that its pods are on")
    parser.add_argument("--network", default="sykube-pods", help="its name for CNI")
    parser.add_argument("--addresses", type=Path, default=Path("/run/cni/networks"))
    parser.add_argument("--results", type=Path, default=Path("/var/lib/cni/results"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    api, objects = Api(options.api_server), Objects()
    places = Places(options.addresses / options.network, options.results, options.network)
    code = nft.UNSUPPORTED
    try:
        nft.run(nft.probe())
        code = 1
        serve(api, Enforcer(options.node, options.bridge, objects, places))
    except nft.NftError as error:
        # The kubelet shows it in the pod's status, and starts this again.
        log.error("NetworkPolicies are not enforced on this node: %s", error)
    sys.exit(code)


def serve(api: Api, enforcer: Enforcer) -> None:
    """Follow the API until a watcher has died.

    Raises:
        NftError: the kernel does not take the rules.
    """
    objects = enforcer.objects
    watchers = [Watcher(api, "networkpolicies", objects, _GROUP)]
    watchers[0].start()
    try:
        while all(watcher.is_alive() for watcher in watchers):
            enforcer.wait()
            objects.changed.clear()
            if not objects.has("networkpolicies"):
                continue
            if enforcer.is_needed and len(watchers) == 1:
                watchers += [Watcher(api, each, objects) for each in ("namespaces", "pods")]
                for watcher in watchers[1:]:
                    watcher.start()
            enforcer.act()
    finally:
        for watcher in watchers:
            watcher.stop()


if __name__ == "__main__":
    main()
