"""Pods of RuntimeClass apptainer while what started them is killed, and after a stop of the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import containers
from tests.e2e.cluster import TestCluster, eventually

Json = dict[str, Any]

pytestmark = pytest.mark.long

NAMESPACE = "runtime-faults"
COUNT = 20
NODES = ("master", "node1")
# It counts, and says in its node's folder when it is asked to end.
SAID = "/var/lib/runtime-faults"
PROGRAM = (
    "trap 'echo bye > /said/$HOSTNAME; exit 0' TERM; n=0;"
    " while :; do n=$((n + 1)); echo $n; sleep 0.5 & wait $!; done"
)


@dataclass(frozen=True)
class Steady:
    """Pods that go on for ever."""

    cluster: TestCluster

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, **options)

    def in_nodes(self, *command: str) -> list[str]:
        """What a command says in each node; it may fail."""
        name = self.cluster.name
        return [
            self.cluster.sykube("exec", "--name", name, node, *command, check=False).stdout
            for node in NODES
        ]

    def containers(self) -> dict[str, tuple[str, int]]:
        """The container of each pod, and how often it was started again."""
        found = {}
        for pod in self.cluster.get("-n", NAMESPACE, "pods", "-l", "app=steady")["items"]:
            (status,) = pod["status"]["containerStatuses"]
            found[pod["metadata"]["name"]] = (status["containerID"], status["restartCount"])
        return found

    def counted(self) -> dict[str, list[int]]:
        """What each pod has written."""
        text = self.kubectl(
            "logs", "-l", "app=steady", "--prefix", "--tail=-1", f"--max-log-requests={COUNT}"
        )
        found: dict[str, list[int]] = {}
        for name, number in re.findall(r"^\[pod/(\S+)/main\] (\d+)$", text, re.MULTILINE):
            found.setdefault(name, []).append(int(number))
        return found

    def answers(self, pod: str) -> bool:
        """Whether exec runs in the pod's container."""
        return self.kubectl("exec", pod, "--", "hostname", check=False) == f"{pod}\n"

    def start_another(self, name: str) -> None:
        """A pod on each node that starts now, runs and ends: the kubelet looks at its pods."""
        for node in NODES:
            self.cluster.apply(another(f"{name}-{node}", self.cluster, node))
            eventually(
                f"a pod starts on {node}",
                lambda node=node: (
                    self.kubectl(  # type: ignore[misc]
                        "get", "pod", f"{name}-{node}", "-o", "jsonpath={.status.phase}"
                    )
                    == "Succeeded"
                ),
            )


def container(cluster: TestCluster, script: str) -> Json:
    command = ["sh", "-c", script]
    return {"name": "main", "image": cluster.image, "command": command}


def another(name: str, cluster: TestCluster, node: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "runtimeClassName": "apptainer",
            "nodeName": f"{cluster.name}-{node}",
            "restartPolicy": "Never",
            "containers": [container(cluster, "true")],
        },
    }


def deployment(cluster: TestCluster) -> Json:
    labels = {"app": "steady"}
    mount = {"name": "said", "mountPath": "/said"}
    folder = {"path": SAID, "type": "DirectoryOrCreate"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "steady", "namespace": NAMESPACE},
        "spec": {
            "replicas": COUNT,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "runtimeClassName": "apptainer",
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container(cluster, PROGRAM) | {"volumeMounts": [mount]}],
                    "volumes": [{"name": "said", "hostPath": folder}],
                },
            },
        },
    }


@pytest.fixture(scope="module")
def steady(observed: TestCluster) -> Iterator[Steady]:
    made = Steady(observed)
    with_terminal = another("terminal", observed, "node1")
    template = deployment(observed)["spec"]["template"]["spec"]
    (program,) = template["containers"]
    with_terminal["spec"] = template | {"containers": [program | {"tty": True}]}
    observed.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        deployment(observed),
        with_terminal,
    )
    made.kubectl("wait", "--for=condition=Ready", "pod/terminal", "--timeout=90s", timeout=100)
    made.kubectl("rollout", "status", "deployment/steady", "--timeout=180s", timeout=200)
    yield made
    observed.kubectl("delete", "namespace", NAMESPACE, "--wait=true", timeout=180)
    made.in_nodes("rm", "-r", SAID)


@pytest.mark.parametrize("program", ["containerd", "kubelet"])
def test_none_ends_when_what_started_it_is_killed(steady: Steady, program: str) -> None:
    eventually("each has begun to count", lambda: len(steady.counted()) == COUNT)
    before, counted = steady.containers(), steady.counted()
    assert len(before) == COUNT
    running = steady.in_nodes("pgrep", "-x", program)
    assert all(running)
    steady.in_nodes("pkill", "-KILL", "-x", program)

    def runs_again() -> bool:
        now = steady.in_nodes("pgrep", "-x", program)
        return all(new and new != old for new, old in zip(now, running, strict=True))

    eventually(f"{program} runs again on both nodes", runs_again)
    steady.start_another(f"after-{program}")
    with ThreadPoolExecutor(4) as pool:
        works = pool.map(
            lambda pod: eventually(f"exec works in {pod}", lambda: steady.answers(pod)), before
        )
        assert len([*works]) == COUNT
    assert steady.containers() == before
    once_more = steady.counted()

    def count_on() -> bool:
        now = steady.counted()
        return all(len(now[pod]) > len(numbers) for pod, numbers in once_more.items())

    eventually("each counts on", count_on)
    for pod, numbers in steady.counted().items():
        # Not one line is lost, nor is there one twice.
        assert numbers == [*range(1, len(numbers) + 1)], pod
        assert len(once_more[pod]) > len(counted[pod]), pod


def test_all_are_told_when_the_cluster_stops_and_come_back_when_it_starts(steady: Steady) -> None:
    before = steady.containers()
    name = ("--name", steady.cluster.name)
    assert "".join(steady.in_nodes("ls", SAID)) == ""
    steady.cluster.sykube("stop", "--grace", "10", *name)
    steady.cluster.sykube("start", *name)
    steady.kubectl("rollout", "status", "deployment/steady", "--timeout=120s", timeout=150)
    after = steady.containers()
    assert {*after} == {*before}
    # On a busy machine some are started more than once.
    assert all(restarts > 0 for _, restarts in after.values()), after
    assert {*"".join(steady.in_nodes("ls", SAID)).split()} == {*before, "terminal"}
    found = containers.runtimes(steady.cluster, "-n", NAMESPACE, "-l", "app=steady")
    assert found == {f"{NAMESPACE}/{pod}": {"apptainer"} for pod in before}
    assert all(steady.answers(pod) for pod in [*before][:2])
    assert steady.containers() == after
