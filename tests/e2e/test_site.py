"""A real cluster behind a proxy with a password, with images from a registry of the site's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e import site
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.e2e.registry import Registry
from tests.e2e.site import ADDRESS, REGISTRY, STRANGER, Link, Proxy
from tests.hostdiff import leaks_since

NAME = "e2e-site"
MASTER, WORKER = f"{NAME}-master", f"{NAME}-node1"
USER, PASSWORD = "site", "e2e-Planted"
IMAGE = f"{REGISTRY}/site/pause:1"
_NOBODY = 65534


@dataclass
class BehindProxy(TestCluster):
    """A cluster whose commands are called by somebody who has set a proxy."""

    __test__ = False

    proxy: str = ""
    sudo: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {"https_proxy": self.proxy, "no_proxy": "deb.site.test"}
        others = {k: v for k, v in super().environment.items() if "proxy" not in k.lower()}
        return others | own | self.sudo

    def _running(self) -> None:
        """Not without sykube: that it tells kubectl what to reach without the proxy is shown here."""


@dataclass
class Site:
    cluster: BehindProxy
    proxy: Proxy
    registry: Registry


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node, made by a caller whose https_proxy has a password, and that trusts the site."""
    folder = tmp_path_factory.mktemp("site")
    authority = site.make_authority(folder / "ours", REGISTRY)
    site.make_authority(folder / "another", STRANGER)
    link = Link()
    places: dict[str, int] = {}
    proxy = Proxy(USER, PASSWORD, places)
    url = f"http://{USER}:{PASSWORD}@{ADDRESS}:{proxy.port}"
    cluster = BehindProxy(NAME, folder, proxy=url)
    registries: list[Registry] = []
    try:
        cluster.delete_quietly()
        cluster.before = host_before(NAME)
        cluster.init("--workers", "0", "--dns", "127.0.0.1", "--ca-certificate", str(authority))
        image = _pause_image(cluster)
        for name, kept in ((REGISTRY, "ours"), (STRANGER, "another")):
            context = site.secured(folder / kept)
            registries.append(Registry(("127.0.0.1", 0), *image, context=context))
            places[name] = registries[-1].port
        yield Site(cluster, proxy, registries[0])
    finally:
        cluster.delete_quietly()
        for server in (*registries, proxy):
            server.close()
        link.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _pause_image(cluster: TestCluster) -> tuple[dict[str, bytes], bytes]:
    """The smallest image that a node has, as one that no node has."""
    script = (
        "ctr images export /var/log/pause.tar $(grep /pause: /usr/share/sykube/container-images)"
    )
    cluster.sykube("exec", "--name", NAME, "master", "--", "sh", "-c", script)
    archive = Path(f"/var/lib/sykube/{NAME}/nodes/{MASTER}/log/pause.tar")
    found = site.new_image(archive)
    archive.unlink()
    return found


def run_pod(cluster: TestCluster, name: str, node: str, image: str = IMAGE) -> None:
    """Start a pod on a node that has to ask for its image."""
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": image, "imagePullPolicy": "Always"}],
            },
        }
    )


def pulled(behind: Site, name: str, node: str) -> None:
    """A pod's image comes to a node, by the proxy, from the registry."""
    del behind.proxy.wanted[:], behind.registry.asked[:]
    run_pod(behind.cluster, name, node)
    behind.cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    address = {MASTER: 2, WORKER: 3}[node]
    subnet = behind.cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    expected = f"{subnet.rpartition('.')[0]}.{address}"
    assert (expected, f"{REGISTRY}:443") in behind.proxy.wanted
    assert any("/manifests/" in path for path in behind.registry.asked)
    assert behind.proxy.refused == []


def environment(cluster: TestCluster, node: str, program: str) -> dict[str, str]:
    """What a program of a node was started with."""
    script = f"tr '\\0' '\\n' < /proc/$(pgrep -o -x {program})/environ"
    done = cluster.sykube("exec", "--name", NAME, node, "--", "sh", "-c", script)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_an_image_comes_by_the_proxy_from_a_registry_of_the_site(behind: Site) -> None:
    pulled(behind, "first", MASTER)
    assert any("/blobs/" in path for path in behind.registry.asked), "no part of it was there"


def test_who_is_not_of_the_sites_authority_is_not_trusted(behind: Site) -> None:
    run_pod(behind.cluster, "stranger", MASTER, f"{STRANGER}/site/pause:1")

    def refused() -> bool:
        statuses = behind.cluster.get("pod", "stranger")["status"].get("containerStatuses", [])
        waiting = [each["state"].get("waiting", {}).get("message", "") for each in statuses]
        return any("certificate signed by unknown authority" in each for each in waiting)

    eventually("its certificate is refused", refused)
    behind.cluster.kubectl("delete", "pod", "stranger", "--wait=false")


def test_nothing_of_a_node_but_containerd_knows_the_proxy(behind: Site) -> None:
    cluster = behind.cluster
    known = environment(cluster, "master", "containerd")
    assert known["https_proxy"] == known["HTTPS_PROXY"] == cluster.proxy
    without = known["no_proxy"].split(",")
    assert {"deb.site.test", "localhost", ".svc", ".cluster.local"} < set(without)
    assert "http_proxy" not in known
    for program in ("kubelet", "supervisord", "kube-apiserver", "kube-proxy"):
        found = environment(cluster, "master", program)
        assert not [name for name in found if "proxy" in name.lower()], program
    pods = cluster.kubectl("get", "pods", "-A", "-o", "json")
    assert PASSWORD not in pods
    assert "_proxy" not in pods.lower()
    # Not the API server, not the cluster's own Services, not a name of theirs.
    assert {target for _, target in behind.proxy.wanted} <= {f"{REGISTRY}:443", f"{STRANGER}:443"}


def test_a_worker_that_joins_later_has_the_same(behind: Site) -> None:
    behind.cluster.sykube("node", "add", "--name", NAME)
    pulled(behind, "added", WORKER)


def test_all_is_the_same_after_stop_and_start(behind: Site) -> None:
    cluster = behind.cluster
    cluster.kubectl("delete", "pod", "first", "added", "--wait=true")
    cluster.sykube("stop", "--name", NAME, "--grace", "0")
    cluster.sykube("start", "--name", NAME)
    for name, node in (("first-again", MASTER), ("added-again", WORKER)):
        pulled(behind, name, node)


def test_nobody_is_told_the_password(behind: Site, tmp_path: Path) -> None:
    cluster = behind.cluster
    root = Path(f"/var/lib/sykube/{NAME}")
    holders = {root / "state.json"} | set(root.glob("nodes/*/config/containerd.env"))
    for file in holders:
        assert PASSWORD in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
    logs = [*Path("/var/log/sykube").glob(f"{NAME}.log*"), *root.glob("nodes/*/log/sykube/*.log")]
    assert len(logs) > 3
    for log in logs:
        assert PASSWORD not in log.read_text(errors="replace"), log
    cluster.sykube("logs", "--name", NAME, "--export", str(tmp_path / "report"))
    for file in (tmp_path / "report").rglob("*"):
        assert file.is_dir() or PASSWORD not in file.read_text(errors="replace"), file


def test_env_leads_anybodys_kubectl_to_the_cluster(behind: Site, open_folder: Path) -> None:
    """As root, and as a user who calls it by sudo and then reads a copy of his own."""
    cluster = behind.cluster
    state = json.loads(Path(f"/var/lib/sykube/{NAME}/state.json").read_text(encoding="utf-8"))
    home = open_folder / "home"
    home.mkdir()
    kubectl = shutil.copy(f"{state['imageFolder']}/kubectl", open_folder)
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    for sudo, become in (
        ({}, []),
        ({"SUDO_UID": str(_NOBODY)}, ["setpriv", f"--reuid={_NOBODY}", "--clear-groups"]),
    ):
        cluster.sudo = sudo
        printed = cluster.sykube("env", "--name", NAME, "--shell", "bash").stdout
        cluster.sudo = {}
        script = f'eval "$1"; echo "$KUBECONFIG" >&2; exec {kubectl} get nodes -o name'
        done = subprocess.run(
            [*become, "bash", "-c", script, "bash", printed],
            env=plain | {"HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == [f"node/{MASTER}", f"node/{WORKER}"]


def test_delete_leaves_nothing(behind: Site) -> None:
    behind.cluster.sykube("delete", "--name", NAME, "--yes")
    before = behind.cluster.before
    assert before is not None
    leaks = leaks_since(before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
