"""What NetworkPolicies cost: seconds until a change is in force, microseconds of a connection.

On the worker of a cluster of two nodes, two pods connect to each other over the node's bridge, with
the policies and without any, in turn. These two, and all that enforces policies, are as in any
cluster. The other pods are objects of the API that no kubelet runs: the worker's is stopped
meanwhile; a tenth of them, at most 100, are on the worker, as CNI's files there have it, and the
others on no node. There are up to 50 pods in a namespace; each policy has selectors of namespaces
and of pods, a range with an exception, and ports.

In each round with the policies, something changes by which another port is let through, and back:
policy      one is created, and deleted
pod         the label of the pod that connects
namespace   the label of its namespace
Each time counts from the request until a connection of the pod, which tries every few hundredths of
a second, sees it.

Run it as root, with nothing else to do: python3 -m benchmarks.network_policy [--pods 1000]
    [--policies 200] [--pairs 5] [--connections 5000] [--name bench]
A cluster of that name is used, and has nothing of it afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import cluster_of_two, middle, processes_of, set_size_mb, shown
from sykube.addons.storage import VOLUMES
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.host.host import Host
from sykube.image import versions
from sykube.kubernetes import readiness
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node
from sykube.ui import Ui

Json = dict[str, Any]
PREFIX = "bench-policy"
GROUPS = 5
CHANGES = ("policy", "pod", "namespace")
# The labels of whom two policies let reach the port that is watched.
_LET = {"matchLabels": {"let": "in"}}
_MERGE = "application/merge-patch+json"
_POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"
_PROGRAM = (Path(__file__).parent / "policy_client.py").read_text(encoding="utf-8")
# Set aside for benchmarks: RFC 2544, appendix C.2.2.
_ELSEWHERE = IPv4Network("198.18.0.0/15")
# Of a node's pods: beyond those that it gives while this runs.
_FIRST_HERE, _MOST_HERE = 150, 100
_IN_A_NAMESPACE = 50
_AT_ONCE = 4
_TIMEOUT_S = 120.0
# Writes and removes the files of a node, which it is told as JSON: path → content, null for none.
_FILES = (
    "import json, pathlib, sys\n"
    "for path, text in json.load(sys.stdin).items():\n"
    "    file = pathlib.Path(path)\n"
    "    file.write_text(text) if text is not None else file.unlink(missing_ok=True)\n"
)


def namespace(number: int) -> str:
    return f"{PREFIX}-{number}"


def policy(number: int, namespaces: int) -> Json:
    """One of many, which lets pods of a group reach another one's first port."""
    own, other = number % namespaces, (number * 7 + 1) % namespaces
    # Those of the first namespace are all about the pods that are measured, too.
    group = {"group": str(number // namespaces % GROUPS)} if own else {}
    peers = [
        {
            "namespaceSelector": {"matchLabels": {"number": str(other)}},
            "podSelector": {"matchLabels": {"group": str((number + 1) % GROUPS)}},
        },
        {"ipBlock": {"cidr": "203.0.113.0/24", "except": [f"203.0.113.{number % 256}/32"]}},
    ]
    ports = [{"port": 80}, {"port": 8000 + number % 100, "protocol": "UDP"}]
    rules = {
        "ingress": [
            {"from": peers, "ports": ports},
            {"from": [{"podSelector": {}}], "ports": ports},
        ],
        "egress": [{"to": [{"namespaceSelector": {}}]}],
    }
    return _policy(namespace(own), f"many-{number}", group, rules)


def letting(name: str, peer: Json) -> Json:
    """One that lets somebody reach the port that is watched."""
    rules = {"ingress": [{"from": [peer], "ports": [{"port": 81}]}]}
    return _policy(namespace(0), name, {"name": "server"}, rules)


def _policy(where: str, name: str, pods: dict[str, str], rules: Json) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": where, "name": name},
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": [each.capitalize() for each in rules],
            **rules,
        },
    }


def pod(where: str, name: str, group: int, node: str, command: Sequence[str] = ()) -> Json:
    """A pod; on no node where that is empty, for which no scheduler looks."""
    container = {
        "name": "main",
        "image": versions.SYSTEM_IMAGE,
        "command": ["python3", "-u", "-c", _PROGRAM, *command],
        "ports": [{"name": "web", "containerPort": 80}],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": where,
            "name": name,
            "labels": {"name": name, "group": str(group)},
        },
        "spec": {
            **({"nodeName": node} if node else {"schedulerName": "nobody"}),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "shared", "hostPath": {"path": f"{VOLUMES}/{PREFIX}"}}],
        },
    }


@dataclass
class Bench:
    """The cluster and what was made in it.

    Args:
        folder: that the pods share with this host.
    """

    cluster: Cluster
    api: Api
    node: Node
    folder: Path
    pods: int
    policies: int
    files: dict[str, str] = field(default_factory=dict)

    @property
    def namespaces(self) -> int:
        return max(2, self.pods // _IN_A_NAMESPACE)

    def at_once(self, calls: Sequence[Callable[[Api], object]]) -> None:
        """Make requests over some connections."""

        def share(first: int) -> None:
            with self.cluster.api() as api:
                for call in calls[first::_AT_ONCE]:
                    call(api)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(share, range(_AT_ONCE)))

    def make(self) -> None:
        """Namespaces, two pods that run, and all the others."""
        for number in range(self.namespaces):
            metadata = {"name": namespace(number), "labels": {"number": str(number)}}
            self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for number in range(self.namespaces):
            account = f"/api/v1/namespaces/{namespace(number)}/serviceaccounts/default"
            until(f"the account of {namespace(number)}", partial(self._exists, account))
        where, node = namespace(0), self.node.instance
        self.api.apply(pod(where, "server", 0, node, ("serve",)))
        until("the server's address", lambda: self._address("server"))
        command = ("try", self._address("server"), "/shared")
        self.api.apply(pod(where, "client", 0, node, command))
        until("the first connection", lambda: self.passes)
        self.node.stop_service("kubelet")
        here = min(_MOST_HERE, self.pods // 10)
        subnet = IPv4Network(self.node.pod_subnet)
        addresses = [str(subnet[_FIRST_HERE + n]) for n in range(here)]
        self.files = dict(each for address in addresses for each in self._taken(address))
        self.node.run(["python3", "-c", _FILES], stdin=json.dumps(self.files))
        addresses += [str(_ELSEWHERE[256 + n]) for n in range(self.pods - here)]
        self.at_once([partial(self._make_pod, n, each) for n, each in enumerate(addresses)])

    def _taken(self, address: str) -> Iterator[tuple[str, str]]:
        """What CNI leaves of a pod: see sykube/incluster/networkpolicy/places.py."""
        sandbox = f"{PREFIX}-{address}"
        number = int(address.rpartition(".")[2]) - _FIRST_HERE
        words = [
            ["K8S_POD_NAMESPACE", namespace(number % self.namespaces)],
            ["K8S_POD_NAME", f"pod-{number}"],
        ]
        yield (
            f"/var/lib/cni/results/sykube-pods-{sandbox}-eth0",
            json.dumps({"kind": "cniCacheV1", "cniArgs": words}),
        )
        yield f"/run/cni/networks/sykube-pods/{address}", f"{sandbox}\r\neth0"

    def _make_pod(self, number: int, address: str, api: Api) -> None:
        where = namespace(number % self.namespaces)
        node = "" if IPv4Address(address) in _ELSEWHERE else self.node.instance
        path = f"/api/v1/namespaces/{where}/pods"
        group = number // self.namespaces % GROUPS
        api.request("POST", path, pod(where, f"pod-{number}", group, node, ("serve",)))
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        body = {"status": status}
        api.request("PATCH", f"{path}/pod-{number}/status", body, content_type=_MERGE)

    def _exists(self, path: str) -> bool:
        try:
            self.api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _is_gone(self, path: str) -> bool:
        return not self._exists(path)

    def _address(self, name: str) -> str:
        found = self.api.get(f"/api/v1/namespaces/{namespace(0)}/pods/{name}")
        return str(found["status"].get("podIP", ""))

    def _last_seen(self) -> tuple[float, bool]:
        lines = (self.folder / "seen").read_text(encoding="ascii").split("\n")[:-1]
        moment, passes = lines[-1].split() if lines else ("0", "0")
        return float(moment), passes == "1"

    @property
    def passes(self) -> bool:
        """Whether the watched port is reached now."""
        return (self.folder / "seen").exists() and self._last_seen()[1]

    def seconds(self, change: Callable[[], object], passes: bool) -> float:
        """Seconds from a request until the watched port is reached, or no longer."""
        started = time.monotonic()
        change()
        until("the change", lambda: self.passes is passes)
        return self._last_seen()[0] - started

    def enforce(self) -> float:
        """Create all policies; seconds until they are in force."""
        peers = {"pod": {"podSelector": _LET}, "namespace": {"namespaceSelector": _LET}}
        made = [policy(number, self.namespaces) for number in range(self.policies)]
        made += [letting(f"by-{what}", peer) for what, peer in peers.items()]
        calls = [partial(_create_policy, each) for each in made]
        return self.seconds(lambda: self.at_once(calls), passes=False)

    def release(self) -> None:
        """Delete all policies, and wait until nothing is in force."""
        spaces = range(self.namespaces)
        paths = [_POLICIES.format(namespace(number)) for number in spaces]
        self.at_once([partial(_delete, path) for path in paths])
        until("the end of the policies", lambda: self.passes)

    def change(self, what: str) -> list[float]:
        """Seconds of a change of CHANGES, and of taking it back."""
        where = f"/api/v1/namespaces/{namespace(0)}"
        if what == "policy":
            path = _POLICIES.format(namespace(0))
            extra = letting("extra", {"podSelector": {}})
            return [
                self.seconds(lambda: self.api.request("POST", path, extra), passes=True),
                self.seconds(lambda: self.api.delete(f"{path}/extra"), passes=False),
            ]
        path = f"{where}/pods/client" if what == "pod" else where

        def label(value: str | None) -> None:
            body = {"metadata": {"labels": {"let": value}}}
            self.api.request("PATCH", path, body, content_type=_MERGE)

        return [
            self.seconds(partial(label, value), passes=value is not None) for value in ("in", None)
        ]

    def connect(self, count: int) -> float:
        """The median of so many connections, in microseconds."""
        answer = self.folder / "answer"
        (self.folder / ".order").write_text(str(count), encoding="ascii")
        (self.folder / ".order").rename(self.folder / "order")
        until("the connections", answer.exists)
        found = json.loads(answer.read_text(encoding="ascii"))
        answer.unlink()
        return float(median(found))

    def program_mb(self) -> float:
        """Proportional set size of the program that enforces policies on the node."""
        found = [
            each
            for each in processes_of(self.node.instance)
            if b"incluster.networkpolicy" in (each / "cmdline").read_bytes()
        ]
        return sum(map(set_size_mb, found))

    def remove(self) -> None:
        """All that `make` and `enforce` made, also half of it."""
        places = [namespace(number) for number in range(self.namespaces)]
        for kind in map(_POLICIES.format, places), (f"/api/v1/namespaces/{p}/pods" for p in places):
            self.at_once([partial(_delete, path) for path in kind])
        self.node.run(["python3", "-c", _FILES], stdin=json.dumps(dict.fromkeys(self.files)))
        self.node.start_service("kubelet")
        self.at_once([partial(_delete, f"/api/v1/namespaces/{each}") for each in places])
        for each in places:
            until(f"the end of {each}", partial(self._is_gone, f"/api/v1/namespaces/{each}"))
        until("the node", lambda: not readiness.nodes(self.api, [self.node.instance]))


def _create_policy(made: Json, api: Api) -> None:
    api.request("POST", _POLICIES.format(made["metadata"]["namespace"]), made)


def _delete(path: str, api: Api) -> None:
    """Delete an object or all of a collection at once; what is not there is no error."""
    try:
        api.request("DELETE", path, {"gracePeriodSeconds": 0})
    except ApiError as error:
        if error.status != 404:
            raise


def until(what: str, check: Callable[[], object]) -> None:
    """Look a hundred times a second.

    Raises:
        TimeoutError: it is not so within two minutes.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_TIMEOUT_S:.0f} s: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Bench]:
    """The cluster with all pods, and without any policy; afterwards as it was."""
    cluster = lookup.load(Host(), options.name, Ui(quiet=True))
    folder = cluster.paths.volumes / PREFIX
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with cluster.api() as api:
        bench = Bench(cluster, api, cluster.workers[0], folder, options.pods, options.policies)
        try:
            bench.make()
            yield bench
        finally:
            bench.remove()
            shutil.rmtree(folder)


def measure(bench: Bench, pairs: int, connections: int) -> Json:
    """The figures by their names; None for what was left out."""
    without: list[float] = []
    within: list[float] = []
    all_s: list[float] = []
    memory: list[float] = []
    changes: dict[str, list[float]] = {what: [] for what in CHANGES}
    for number in range(pairs):
        # Which one goes first changes, so that neither has the warmer host.
        for enforced in (False, True)[:: -1 if number % 2 else 1]:
            if not enforced:
                without.append(bench.connect(connections))
                continue
            all_s.append(bench.enforce())
            within.append(bench.connect(connections))
            for what, seconds in changes.items():
                seconds += bench.change(what)
            memory.append(bench.program_mb())
            bench.release()
        took = ", ".join(f"{what} {max(found[-2:]):.2f} s" for what, found in changes.items())
        print(f"{number + 1}: {without[-1]:.1f} and {within[-1]:.1f} us, {took}", flush=True)
    more = [with_them - free for with_them, free in zip(within, without, strict=True)]
    every = [each for found in changes.values() for each in found]
    return {
        **{f"{what}_s": middle(found, 3) for what, found in changes.items()},
        "slowest_change_s": round(max(every), 3) if every else None,
        "all_policies_s": middle(all_s),
        "connection_us": middle(without, 1),
        "connection_with_policies_us": middle(within, 1),
        "connection_more_us": middle(more, 1),
        "program_mb": middle(memory, 1),
    }


def show(found: Json) -> None:
    """The table."""
    rows = {
        **{f"a change of a {what}": shown(found[f"{what}_s"], "7.2", " s") for what in CHANGES},
        "the slowest of these": shown(found["slowest_change_s"], "7.2", " s"),
        "all policies created at once": shown(found["all_policies_s"], "7.1", " s"),
        "a connection without policies": shown(found["connection_us"], "7.1", " us"),
        "a connection with them": shown(found["connection_with_policies_us"], "7.1", " us"),
        "more, median of the pairs": shown(found["connection_more_us"], "7.1", " us"),
        "memory of the program": shown(found["program_mb"], "7.1", " MB"),
    }
    print(f"\n{found['pods']} pods, {found['policies']} policies, {found['pairs']} pairs")
    for title, figure in rows.items():
        print(f"  {title:35} {figure}")


def main() -> None:
    """Measure, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--policies", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    with cluster_of_two(options.name), prepared(options) as bench:
        found = measure(bench, options.pairs, options.connections) | vars(options)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
