"""A real cluster of `--source upstream`, made of what a mirror on loopback has, and of its bundle.

It is of the release in the folder that SYKUBE_TEST_RELEASE names, or of Debian's source.

The image is built in a cache folder of its own, or in that of TEST_UPSTREAM_CACHE, which stays: the
tests of clusters alone (-k "not built and not registry") then need no network of Debian's mirror.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import ExitCode
from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image import oci, versions
from sykube.image.choice import Choice
from sykube.image.upstream import Release
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.e2e.manifests import deployment, pod, service
from tests.e2e.offline import Offline
from tests.hostdiff import leaks_since
from tests.upstream import mirror
from tests.upstream.mirror import Mirror

pytestmark = pytest.mark.e2e

NAME = "e2e-upstream"
MASTER, WORKER = f"{NAME}-master", f"{NAME}-node1"
NODES = {MASTER, WORKER}
_BUILD_S = 2400
# Where the host has cgroup v2, the last one changes nothing.
_CLUSTER = ("--workers", "1", "--dns", "192.0.2.53", "--allow-cgroup-v1")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)
    with mirror.running(tmp_path_factory.mktemp("upstream"), mirror.folders()) as running:
        yield running


@pytest.fixture(scope="module")
def maker(upstream: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Whose caches are empty at first."""
    folder = tmp_path_factory.mktemp("here")
    cache = Path(os.environ.get("TEST_UPSTREAM_CACHE", folder / "cache"))
    with_engine(cache)
    made = TestCluster(NAME, folder, own=upstream.variables | {"SYKUBE_CACHE_DIR": str(cache)})
    made.delete_quietly()
    yield made
    made.delete_quietly()


@pytest.fixture(scope="module")
def cluster(upstream: Mirror, maker: TestCluster) -> TestCluster:
    maker.before = host_before(NAME)
    maker.init(*upstream.options(), *_CLUSTER, "--yes")
    return maker


@dataclass
class Air:
    """A machine without a network, and the bundle that was carried to it."""

    bundle: Path
    machine: Offline
    cluster: TestCluster


@pytest.fixture(scope="module")
def air(
    upstream: Mirror, maker: TestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Air]:
    folder = tmp_path_factory.mktemp("there")
    bundle = folder / "upstream.sif"
    upstream.asked()
    maker.sykube("bundle", "save", str(bundle), "--unsigned", *upstream.options(), "-o", "json")
    assert upstream.asked() == ([], [])
    with_engine(folder / "cache")
    machine = Offline(folder)
    variables = {"SYKUBE_CACHE_DIR": str(folder / "cache")}
    cluster = TestCluster(NAME, folder, prefix=machine.prefix, own=variables)
    yield Air(bundle, machine, cluster)
    cluster.delete_quietly()
    machine.close()


def with_engine(cache: Path) -> None:
    """A cache folder that has this machine's engine."""
    cache.mkdir(exist_ok=True)
    root = engines.private(Host()).root
    if root.exists() and not (cache / "apptainer").exists():
        (cache / "apptainer").symlink_to(root)


def test_the_image_is_built_of_what_the_mirror_has(upstream: Mirror, maker: TestCluster) -> None:
    maker.sykube("node-image", "prune", "--all")
    upstream.asked()
    ended = maker.sykube(
        "node-image", "build", *upstream.options(), "--yes", "-o", "json", timeout=_BUILD_S
    )
    choice = Choice("upstream", upstream.version, f"a release of {upstream.server.url}")
    assert choice.introduction in ended.stderr
    found = json.loads(ended.stdout)
    assert set(upstream.references.values()) == {
        name for name in found["containerImages"] if upstream.repository in name
    }
    assert found["versions"]["kubernetes"] == f"v{upstream.version}"
    assert found["source"] == "upstream"
    files, images = upstream.asked()
    kubelet = f"/release/v{upstream.version}/bin/linux/{oci.machine(Host())}/kubelet"
    assert {kubelet, f"{kubelet}.sha256"} <= set(files)
    assert any(Release.of(upstream.version).containerd in each for each in files)
    assert any(" 401 " in each for each in images), "a password was asked for"
    has_coredns = versions.minor(upstream.version).has_coredns
    assert any("coredns" in each for each in images) == has_coredns
    told = ended.stdout + ended.stderr + (Host().logs / "node-image.log").read_text()
    assert not [each for each in upstream.secrets if each in told]

    again = maker.sykube("node-image", "build", *upstream.options(), "-o", "json")
    assert json.loads(again.stdout)["fingerprint"] == found["fingerprint"]
    assert upstream.asked() == ([], [])


@pytest.mark.parametrize(
    ("how", "why", "cure"),
    [
        ({"auth": "wrong"}, "authentication required", "--registry-auth FILE"),
        ({"authorities": ("site",)}, "unknown authority", "--ca-certificate FILE"),
        ({}, "manifest unknown", "Does the registry have it"),
    ],
    ids=["password", "authority", "image"],
)
def test_a_registry_that_gives_no_image_is_one_error(
    upstream: Mirror, maker: TestCluster, how: dict[str, Any], why: str, cure: str
) -> None:
    options = upstream.options(repository=f"{upstream.host}/nothing", **how)
    ended = maker.sykube("node-image", "build", *options, "--yes", check=False, timeout=_BUILD_S)
    assert ended.returncode == ExitCode.FAILED, ended.stderr
    assert ended.stderr.count("error:") == 1
    assert (
        f"cannot pull the image {upstream.host}/nothing/kube-apiserver:v{upstream.version}"
        in ended.stderr
    )
    assert why in ended.stderr
    assert cure in ended.stderr
    assert not [each for each in upstream.secrets if each in ended.stderr]


def test_a_cluster_comes_up_from_it(upstream: Mirror, cluster: TestCluster) -> None:
    nodes = cluster.get("nodes")["items"]
    assert {node["metadata"]["name"] for node in nodes} == NODES
    containerd = f"containerd://{upstream.releases[0].versions['containerd']}"
    for node in nodes:
        conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        info = node["status"]["nodeInfo"]
        assert info["kubeletVersion"] == f"v{upstream.version}"
        # Kubernetes 1.31 has deprecated it, and later ones leave it empty.
        assert info.get("kubeProxyVersion", "") in ("", f"v{upstream.version}")
        assert info["containerRuntimeVersion"].replace("//v", "//").startswith(containerd)
    pods = cluster.get("pods", "--namespace", "kube-system")["items"]
    images = {each["image"] for one in pods for each in one["spec"]["containers"]}
    pulled = {name for name in images if name.startswith(upstream.repository)}
    assert pulled == {at for name, at in upstream.references.items() if name != "pause"}
    assert cluster.sykube("status", "--name", NAME).stdout.startswith(
        f"cluster {NAME}: healthy (Kubernetes v{upstream.version})"
    )


def test_pods_are_spread_and_names_are_resolved(cluster: TestCluster) -> None:
    image = cluster.image
    cluster.apply(deployment("web", image, 2), service("web", "web"))
    cluster.apply(pod("asker", image, WORKER, ["sleep", "3600"]))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout", "120s")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/asker", "--timeout", "120s")
    pods = cluster.get("pods", "--selector", "app=web")["items"]
    assert {each["spec"]["nodeName"] for each in pods} == NODES
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    assert cluster.ask("asker", "web.default.svc.cluster.local") == [address]
    names = {each["metadata"]["name"] for each in pods}
    answered: set[str] = set()

    def all_answer() -> bool:
        answered.update(cluster.fetch("asker", "http://web").split(" ")[:1])
        return names <= answered

    eventually("both pods answer by the Service's name", all_answer)


def test_init_again_asks_nobody(upstream: Mirror, cluster: TestCluster) -> None:
    upstream.asked()
    again = cluster.sykube("init", "--name", NAME, *upstream.options(), *_CLUSTER)
    assert f"The cluster {NAME} is up" in again.stderr
    assert upstream.asked() == ([], [])


def test_no_password_is_in_the_log(upstream: Mirror, cluster: TestCluster) -> None:
    text = (Host().logs / f"{NAME}.log").read_text()
    assert "Starting the control plane" in text
    assert not [each for each in upstream.secrets if each in text]


def test_delete_leaves_the_host_as_it_was(cluster: TestCluster) -> None:
    assert cluster.before is not None
    cluster.sykube("delete", "--name", NAME, "--yes")
    leaks = leaks_since(cluster.before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)


def test_a_cluster_comes_up_from_its_bundle_without_any_network(upstream: Mirror, air: Air) -> None:
    assert air.machine.output("ip", "route") == ""
    air.cluster.init("--local-image", str(air.bundle), "--no-verify", *_CLUSTER)
    nodes = air.cluster.get("nodes")["items"]
    assert {node["metadata"]["name"] for node in nodes} == NODES
    state = json.loads(air.machine.output("cat", f"/var/lib/sykube/{NAME}/state.json"))
    assert state["choice"]["source"] == "upstream"
    assert state["choice"]["kubernetes"] == upstream.version
    air.cluster.apply(pod("asker", air.cluster.image, WORKER, ["sleep", "3600"]))
    air.cluster.kubectl("wait", "--for=condition=Ready", "pod/asker", "--timeout", "120s")
    eventually("DNS answers", lambda: air.cluster.lookup("asker", "kubernetes.default"))
    air.cluster.sykube("status", "--name", NAME)
    air.cluster.sykube("delete", "--name", NAME, "--yes")
    assert air.machine.output("sh", "-c", "ls /sys/class/net; ip route") == "lo\n"
