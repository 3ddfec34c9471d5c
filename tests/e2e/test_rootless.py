"""Clusters of an ordinary user: with all that an administrator can grant, with IDs, with nothing."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from sykube.host.host import Host
from sykube.image.build import list_images
from tests import containers
from tests.e2e import release
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

    def sykube(self, command: str, *arguments: str, **options: Any) -> CompletedProcess[str]:
        return self.cluster.sykube(*command.split(), "--name", NAME, *arguments, **options)

    def host_changes(self) -> list[str]:
        return host_changes(self.before)

    def files(self) -> list[str]:
        """Files of the user's but for caches and logs, which stay as root's do."""
        found = self.user.run("find", str(self.user.home), "-type", "f", check=False).stdout
        kept = ("/.cache/", "/.local/state/", "/.kube/", "/.bash", "/.profile")
        return [each for each in found.splitlines() if not any(word in each for word in kept)]


@pytest.fixture(
    scope="module", params=["granted", pytest.param("ids", marks=pytest.mark.long), "nothing"]
)
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


def test_what_kubectl_listens_on_is_reached(rootless: Rootless) -> None:
    words = ("kubectl", "--name", NAME, "port-forward", "deployment/web", ":8080")
    with subprocess.Popen(
        [*rootless.user.prefix, *release.command(words, users.PYTHON)],
        env=rootless.cluster.environment, stdout=subprocess.PIPE, text=True,
    ) as forward:  # fmt: skip
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()
            assert line.startswith("Forwarding from 127.0.0.1:"), line
            with urllib.request.urlopen(f"http://{line.split()[2]}/", timeout=10) as answer:
                assert answer.read().startswith(b"web-")
        finally:
            forward.terminate()


def test_images_come_from_files_and_from_the_clusters_own_registry(rootless: Rootless) -> None:
    if rootless.tier.ids:
        # Where it is hardest: files of other users become the user's.
        return
    cluster, archive = rootless.cluster, rootless.user.home / "system.tar"
    # Of the node image's own all layers are unpacked already.
    other = containers.Image([containers.tar({"etc/gshadow": b"x"}, group=42)], {})
    containers.oci_archive(archive, other, "docker.io/library/other:1")
    rootless.sykube("image load", str(archive))
    rootless.sykube("image delete", "other:1")
    with archive.open("wb") as file:
        words = ("exec", "--name", NAME, "master", "ctr", "images", "export", "-", cluster.image)
        command = [*rootless.user.prefix, *release.command(words, users.PYTHON)]
        subprocess.run(command, env=cluster.environment, stdout=file, check=True, timeout=60)
    rootless.sykube("image load", str(archive), "--as", "tools:1")
    archive.unlink()
    said = rootless.sykube("addons enable", "registry", timeout=400).stderr
    match = re.search(r"The registry is at (127\.0\.0\.1:\d+)", said)
    assert match, said
    name = f"{match[1]}/tools:1"
    in_master = ("master", "ctr", "images")
    rootless.sykube("exec", *in_master, "tag", "docker.io/library/tools:1", name)
    rootless.sykube("exec", *in_master, "push", "--hosts-dir", "/etc/sykube/certs.d", name)
    with urllib.request.urlopen(f"http://{match[1]}/v2/_catalog", timeout=5) as answer:
        assert json.load(answer) == {"repositories": ["tools"]}
    for image in (name, "tools:1"):
        rootless.sykube("image delete", image)
    pulled = pod("pulled", name, f"{NAME}-node1", ["sleep", "600"])
    pulled["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    cluster.apply(pulled)
    cluster.kubectl("wait", "pod/pulled", "--for=condition=Ready", "--timeout=60s")
    cluster.kubectl("delete", "pod/pulled", "--grace-period=1")
    rootless.sykube("addons disable", "registry")


def test_workers_come_and_go_and_certificates_are_renewed(rootless: Rootless) -> None:
    if rootless.tier.ids:
        return
    rootless.sykube("node add")
    rootless.sykube("certs renew")
    assert "node2 left" in rootless.sykube("node delete", "node2").stderr
    assert json.loads(rootless.sykube("status", "-o", "json").stdout)["status"] == "healthy"


def test_a_bundle_is_the_users_and_signed(rootless: Rootless) -> None:
    if not rootless.tier.ids or rootless.tier.cgroups:
        # Where there is a user that root, whose image it is, could be taken for.
        return
    home, cluster = rootless.user.home, rootless.cluster
    key, public, bundle = (str(home / name) for name in ("site.pem", "site.pub", "bundle.sif"))
    rootless.user.run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    rootless.user.run("chmod", "600", key)
    words = ("bundle", "save", bundle, "--key", key, "--export-key", public, "-o", "json")
    fingerprint = json.loads(cluster.sykube(*words).stdout)["fingerprint"]
    assert Path(bundle).stat().st_uid == rootless.user.uid
    trust = ("--fingerprint", fingerprint, "--public-key", public)
    cluster.sykube("node-image", "verify", bundle, *trust)
    for file in (key, public, bundle):
        Path(file).unlink()


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
    elif not rootless.tier.cgroups:
        _make_one_of_three_control_planes(rootless.cluster)
        _restore(rootless)
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


def _make_one_of_three_control_planes(cluster: TestCluster) -> None:
    other = f"{NAME}-3"
    words = ("--control-planes", "3", "--workers", "0", "--dns", "192.0.2.53")
    try:
        cluster.sykube("init", "--name", other, *words, timeout=600)
        found = json.loads(cluster.sykube("status", "--name", other, "-o", "json").stdout)
        assert [node["name"] for node in found["nodes"]] == ["master", "master2", "master3"]
    finally:
        cluster.sykube("delete", "--name", other, check=False)


def _restore(rootless: Rootless) -> None:
    """A snapshot in the place of the cluster that it is of."""
    rootless.sykube("snapshot save", "e2e-user")
    try:
        rootless.cluster.sykube("snapshot", "restore", "e2e-user", "--yes")
    finally:
        rootless.cluster.sykube("snapshot", "delete", "e2e-user")


def test_delete_leaves_nothing(rootless: Rootless) -> None:
    """The last test of each cluster."""
    rootless.sykube("delete", "--yes")
    eventually("all processes have ended", lambda: not rootless.user.processes(), timeout=10)
    assert rootless.host_changes() == []
    assert rootless.files() == []
    assert not Path(f"/tmp/sykube-{rootless.user.uid}").exists()
    rootless.cluster.sykube("uninstall", "--yes")
    left = rootless.user.run("find", str(rootless.user.home), "-name", "sykube*").stdout
    assert left == ""
    eventually("all processes have ended", lambda: not rootless.user.processes(), timeout=10)
