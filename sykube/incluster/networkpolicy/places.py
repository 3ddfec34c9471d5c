"""Which pod of this node has which address, by what CNI has left on the node.

The API says it seconds later, and after a restart of the node what was true before it. A plugin of
CNI could say it, too, but would cost every pod's start a process. Two programs leave files:

- host-local, a file per address that is taken, with the ID of the sandbox that it is for; in /run,
  so that nothing of before a restart is among them;
- libcni, a file per sandbox, as soon as it has its network and before its containers are started,
  with the arguments that it was called with (`cachedInfo` in libcni/api.go of
  containernetworking/cni).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from ..api import Json
from .objects import Pod

_TICK_NS = 100_000_000


@dataclass(frozen=True)
class Claim:
    """Whose an address is."""

    namespace: str
    name: str
    uid: str = ""

    def is_of(self, pod: Pod) -> bool:
        """Whether it is this pod's, and no earlier one's of its name."""
        same = (self.namespace, self.name) == (pod.namespace, pod.name)
        return same and (not self.uid or self.uid in pod.uids)


@dataclass
class Places:
    """What is known now; read again when something has changed.

    Args:
        addresses: folder of host-local's files.
        results: folder of libcni's files.
        network: the name of CNI's network.
    """

    addresses: Path
    results: Path
    network: str
    claims: Mapping[str, Claim] = field(default_factory=dict)
    _seen: int = -1
    _taken: dict[str, str] = field(default_factory=dict)
    _sandboxes: dict[str, Claim] = field(default_factory=dict)

    def refresh(self) -> bool:
        """Look again; whether anything is different."""
        with suppress(FileNotFoundError):
            changed = self.addresses.stat().st_mtime_ns
            if changed != self._seen:
                self._taken = dict(self._read())
                # The kernel's clock of files ticks some 250 times a second: within a tick there may
                # be another change. And a file is there before its content.
                settled = time.time_ns() - changed > _TICK_NS and all(self._taken.values())
                self._seen = changed if settled else -1
                left = {*self._taken.values()} & self._sandboxes.keys()
                self._sandboxes = {each: self._sandboxes[each] for each in left}
        before = self.claims
        for sandbox in {*self._taken.values()} - self._sandboxes.keys() - {""}:
            # Not there yet, or half written.
            with suppress(FileNotFoundError, ValueError, KeyError):
                file = self.results / f"{self.network}-{sandbox}-eth0"
                self._sandboxes[sandbox] = _claim(json.loads(file.read_text(encoding="utf-8")))
        self.claims = {
            address: self._sandboxes[sandbox]
            for address, sandbox in self._taken.items()
            if sandbox in self._sandboxes
        }
        return self.claims != before

    def local(self, pods: Iterable[Pod]) -> dict[str, Pod]:
        """The pods of this node by their addresses."""
        named = {(pod.namespace, pod.name): pod for pod in pods}
        return {
            address: pod
            for address, claim in self.claims.items()
            if (pod := named.get((claim.namespace, claim.name))) is not None and claim.is_of(pod)
        }

    def _read(self) -> Iterable[tuple[str, str]]:
        """Addresses that are taken, each with its sandbox."""
        for file in self.addresses.iterdir():
            # Others are a lock, and which address was the last.
            with suppress(ValueError, FileNotFoundError):
                address = str(IPv4Address(file.name))
                # An ID, then the name of the interface.
                yield address, next(iter(file.read_text(encoding="ascii").split()), "")


def _claim(result: Json) -> Claim:
    arguments = dict(result["cniArgs"])
    return Claim(
        arguments["K8S_POD_NAMESPACE"],
        arguments["K8S_POD_NAME"],
        arguments.get("K8S_POD_UID", ""),
    )
