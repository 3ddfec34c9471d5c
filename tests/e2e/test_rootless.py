"""Clusters of an ordinary user: with all that an administrator can grant, with IDs, with nothing."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sykube.host.host import Host
from sykube.image.build import list_images
from tests.e2e.cluster import TestCluster, eventually, free_port
from tests.e2e.manifests import deployment, pod, service
from tests.e2e.of_users import cluster_of, give_cgroups, host_changes
from tests.hostdiff import HostSnapshot
from tests.machine import users
from tests.machine.users import User

NAME = "e2e-user"
NODE_PORT = 30080


@dataclass(frozen=True)
class Tier:
    """What a user has.

    Attributes:
        ids: the first of the subordinate IDs; 0 for none.
    """

    ids: int
    cgroups: bool


TIERS = {"granted": Tier(400_000, True), "ids": Tier(700_000, False), "nothing": Tier(0, False)}


@dataclass
class Rootless:
    """A user's cluster.

    Attributes:
        before: the host without it.
        port: of the host's loopback, which leads to NODE_PORT.
    """

    cluster: TestCluster
    user: User
    before: HostSnapshot
    port: int
    tier: Tier

    def sykube(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.cluster.sykube(arguments[0], "--name", NAME, *arguments[1:], **options)

    def host_changes(self) -> list[str]:
        return host_changes(self.before)

    def files(self) -> list[str]:
        """Files of the user's but for caches and logs, which stay as root's do."""
        found = self.user.run("find", str(self.user.home), "-type", "f", check=False).stdout
        kept = ("/.cache/", "/.local/state/", "/.kube/", "/.bash", "/.profile")
        return [each for each in found.splitlines() if not any(word in each for word in kept)]


@pytest.fixture(scope="module", params=TIERS)
def rootless(request: pytest.FixtureRequest) -> Iterator[Rootless]:
    tier = TIERS[request.param]
    with users.made(f"e2e-{request.param}", ids=tier.ids) as user:
        if tier.cgroups:
            give_cgroups(user)
        before = HostSnapshot.take([user.home])
        cluster = cluster_of(user, NAME)
        made = Rootless(cluster, user, before, free_port(), tier)
        port = f"{made.port}:{NODE_PORT}"
        cluster.init("--workers", "1", "--dns", "192.0.2.53", "--port", port)
        yield made
        cluster.delete_quietly()


def test_nodes_pods_and_dns_are_healthy_and_the_host_is_as_before(rootless: Rootless) -> None:
    found = json.loads(rootless.sykube("status", "-o", "json").stdout)
    assert found["status"] == "healthy", found
    assert [node["name"] for node in found["nodes"]] == ["master", "node1"]
    assert rootless.host_changes() == []


def test_a_deployment_is_reached_by_a_port_of_the_hosts_loopback(rootless: Rootless) -> None:
    cluster = rootless.cluster
    cluster.apply(
        deployment("web", cluster.image, 2),
        service(
            "web", "web", type="NodePort",
            ports=[{"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        ),
    )  # fmt: skip
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s", timeout=150)

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{rootless.port}/", timeout=5) as answer:
                return bool(answer.read().startswith(b"web-"))
        except OSError:
            return False

    eventually("the port answers", answers)


def test_the_users_own_kubectl_reaches_the_api_server(rootless: Rootless) -> None:
    """By the kubeconfig that init wrote, from outside of the cluster's namespaces."""
    kubectl = list_images(Host())[0].kubectl
    done = rootless.user.run(
        str(kubectl), "--kubeconfig", str(rootless.cluster.kubeconfig), "get", "nodes", "-o", "name"
    )
    assert done.stdout.split() == [f"node/{NAME}-master", f"node/{NAME}-node1"]


def test_a_node_says_what_it_uses(rootless: Rootless) -> None:
    """Which without cgroups is what the host uses, and nothing where the kubelet refuses v1."""
    summary = f"/api/v1/nodes/{NAME}-node1/proxy/stats/summary"

    def says() -> bool:
        found = json.loads(rootless.cluster.kubectl("get", "--raw", summary))["node"]
        return bool(found["cpu"].get("usageNanoCores") and found["memory"].get("workingSetBytes"))

    if rootless.cluster.minor >= 35 and not rootless.tier.cgroups:
        assert not says()
    else:
        eventually("node1 says what it uses", says)


def test_containers_have_the_users_that_the_host_grants(rootless: Rootless) -> None:
    cluster = rootless.cluster
    wanted = pod("who", cluster.image, f"{NAME}-node1", ["sh", "-c", "id -u; sleep 600"])
    wanted["spec"]["containers"][0]["securityContext"] = {"runAsUser": 1000}
    cluster.apply(wanted)
    cluster.kubectl("wait", "pod/who", "--for=condition=Ready", "--timeout=60s")
    expected = "1000" if rootless.tier.ids else "0"
    assert cluster.kubectl("logs", "who").strip() == expected
    assert cluster.in_pod("who", "id", "-u").strip() == expected


def test_it_is_paused_only_where_it_has_cgroups(rootless: Rootless) -> None:
    done = rootless.sykube("pause", check=False)
    if rootless.tier.cgroups:
        assert done.returncode == 0, done.stderr
        assert json.loads(rootless.sykube("status", "-o", "json", check=False).stdout)[
            "status"
        ] == ("paused")
        rootless.sykube("unpause")
    else:
        assert done.returncode == 6
        assert "pausing needs cgroups" in done.stderr


def test_it_stops_and_starts_and_another_is_made_of_it(rootless: Rootless) -> None:
    rootless.sykube("stop")
    assert rootless.sykube("status", check=False).returncode == 3
    # Where it is hardest, since what it takes is the same for both.
    if not rootless.tier.ids:
        _make_another(rootless.cluster)
    rootless.sykube("start")
    assert rootless.sykube("status").returncode == 0
    assert rootless.sykube("exec", "node1", "hostname").stdout.strip() == f"{NAME}-node1"


def _make_another(cluster: TestCluster) -> None:
    other = f"{NAME}-2"
    cluster.sykube("snapshot", "save", "e2e-user", "--name", NAME)
    try:
        cluster.sykube("init", "--name", other, "--from", "e2e-user")
        assert cluster.sykube("status", "--name", other).returncode == 0
    finally:
        cluster.sykube("delete", "--name", other, check=False)
        cluster.sykube("snapshot", "delete", "e2e-user")


def test_delete_leaves_nothing(rootless: Rootless) -> None:
    """The last test of each cluster."""
    rootless.sykube("delete", "--yes")
    eventually("all processes have ended", lambda: not rootless.user.processes(), timeout=10)
    assert rootless.host_changes() == []
    assert rootless.files() == []
    assert not Path(f"/tmp/sykube-{rootless.user.uid}").exists()
