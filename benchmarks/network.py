"""How fast an ordinary user's pods send, against root's, in turn.

Out of the cluster is to a program in a network namespace of this machine: from a user's by
slirp4netns, from root's by the bridge. To each other is from a pod of one node to one of another.
Both clusters have two nodes and are there at the same time; one connection at a time.

Run it as root: python3 -m benchmarks.network [--seconds 3] [--rounds 10] [--name bench]
--rounds 0 only looks whether the user could make such a cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import network_peer
from benchmarks.measure import middle
from tests.e2e.cluster import TestCluster
from tests.e2e.manifests import pod
from tests.e2e.of_users import cluster_of
from tests.machine import users

_USER, _FIRST_ID = "sykube-bench", 500_000
_INIT_S = 900
_NAMESPACE, _LINK, _PEER = "sykube-bench", "sykbench0", "sykbench1"
# RFC 5737: for documentation, and so nobody's.
_HERE, _THERE = "198.51.100.1", "198.51.100.2"
_PORT = 5201


@contextlib.contextmanager
def outside(connections: int) -> Iterator[None]:
    """Another host that takes what is sent to it, at _THERE."""
    commands = [
        f"ip netns add {_NAMESPACE}",
        f"ip link add {_LINK} type veth peer name {_PEER} netns {_NAMESPACE}",
        f"ip address add {_HERE}/30 dev {_LINK}",
        f"ip link set {_LINK} up",
        f"ip -n {_NAMESPACE} address add {_THERE}/30 dev {_PEER}",
        f"ip -n {_NAMESPACE} link set {_PEER} up",
    ]
    _forget()
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        entered = ["ip", "netns", "exec", _NAMESPACE]
        server = subprocess.Popen([*entered, sys.executable, "-c", _taking(_THERE, connections)])
        try:
            yield
        finally:
            server.kill()
            server.wait()
    finally:
        _forget()


def _forget() -> None:
    for command in (f"ip netns delete {_NAMESPACE}", f"ip link delete {_LINK}"):
        subprocess.run(command.split(), check=False, stderr=subprocess.DEVNULL)


def _taking(address: str, connections: int) -> str:
    return f"{inspect.getsource(network_peer)}\ntake({address!r}, {_PORT}, {connections})"


def _prepare(cluster: TestCluster, connections: int) -> str:
    """A cluster of two nodes with both pods; the address of the one that takes."""
    cluster.sykube("init", "--name", cluster.name, "--workers", "1", timeout=_INIT_S)
    idle = ["python3", "-c", "import time; time.sleep(1e6)"]
    cluster.apply(
        pod("sender", cluster.image, "master", idle),
        pod("taker", cluster.image, "node1", ["python3", "-c", _taking("", connections)]),
    )
    ready = ("wait", "--for=condition=Ready", "pod/sender", "pod/taker", "--timeout=120s")
    cluster.kubectl(*ready)
    return str(cluster.get("pod", "taker")["status"]["podIP"])


def _speed(cluster: TestCluster, address: str, seconds: float) -> float:
    """MB a second from the sending pod."""
    call = f"print(send({address!r}, {_PORT}, {seconds}))"
    return float(
        cluster.in_pod("sender", "python3", "-c", f"{inspect.getsource(network_peer)}\n{call}")
    )


def _ratio(ours: list[float], theirs: list[float]) -> float | None:
    return round(median(ours) / median(theirs), 3) if ours and theirs else None


def main() -> None:
    """Run the rounds, print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--name", default="bench")
    options = parser.parse_args()
    found: dict[str, list[float]] = {
        f"{whose}_{way}": [] for whose in ("root", "user") for way in ("out", "pods")
    }
    with users.made(_USER, ids=_FIRST_ID) as user, tempfile.TemporaryDirectory() as folder:
        clusters = {
            "root": TestCluster(options.name, Path(folder)),
            "user": cluster_of(user, options.name),
        }
        if options.rounds:
            _measure(clusters, options.rounds, options.seconds, found)
        else:
            clusters["user"].sykube("init", "--name", options.name, "--dry-run")
    medians = {name: middle(values, 1) for name, values in found.items()}
    ratios = {way: _ratio(found[f"user_{way}"], found[f"root_{way}"]) for way in ("out", "pods")}
    print(json.dumps({"ratio": ratios, "mb_s": medians, **vars(options)}))


def _measure(
    clusters: dict[str, TestCluster], rounds: int, seconds: float, found: dict[str, list[float]]
) -> None:
    try:
        with outside(rounds * len(clusters)):
            takers = {whose: _prepare(each, rounds) for whose, each in clusters.items()}
            for number in range(rounds):
                # Which one goes first changes.
                for whose in sorted(clusters, reverse=bool(number % 2)):
                    for way, address in (("out", _THERE), ("pods", takers[whose])):
                        found[f"{whose}_{way}"].append(_speed(clusters[whose], address, seconds))
                        print(f"{whose} {way}: {found[f'{whose}_{way}'][-1]:.0f} MB/s", flush=True)
    finally:
        for each in clusters.values():
            each.delete_quietly()


if __name__ == "__main__":
    main()
