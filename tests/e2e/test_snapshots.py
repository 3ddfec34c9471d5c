"""A real cluster is saved, changed and restored, and becomes a second, new one."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import containers as archives
from tests.e2e import containers, manifests, roots
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.hostdiff import leaks_since

SNAPSHOT = "e2e-snap-saved"
# Of the node image, and not needed by anything: its removal is a whiteout in the overlay.
REMOVED = "/usr/share/common-licenses/GPL-1"
IMAGE = "example.test/mine:1"
SIF = "docker.io/library/tool:1"
RUNSCRIPT = """
%runscript
    echo I am a SIF
    exec sleep 100000
"""


@dataclass(frozen=True)
class Identity:
    """What tells a cluster from another."""

    authority: str
    signing_key: str
    certificate: str
    kubeconfig: str
    token: str
    nodes: dict[str, str]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """A cluster with work in it, which Apptainer runs where nothing else is asked for."""
    cluster = TestCluster("e2e-snap", tmp_path_factory.mktemp("e2e-snap"))
    _clean(cluster)
    cluster.before = host_before(cluster.name)
    cluster.init("--workers", "1", "--addon", "registry", "--runtime", "apptainer")
    image = cluster.image
    file = cluster.folder / "tool_1.sif"
    roots.build(file, archives.tar(roots.files()), RUNSCRIPT)
    cluster.sykube("image", "load", str(file), "--name", cluster.name)
    cluster.apply(
        manifests.deployment("web", image, 2),
        tool(),
        manifests.stateful_set("db", image, 1),
        manifests.service("web", "web"),
        manifests.service("db", "db", clusterIP="None"),
        config("before"),
        # A token that a user asked for by name.
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "mine",
                "annotations": {"kubernetes.io/service-account.name": "default"},
            },
            "type": "kubernetes.io/service-account-token",
        },
    )
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=90s")
    for node in ("master", "node1"):
        pause = in_node(cluster, node, "ctr images ls -q | grep /pause:").strip()
        in_node(cluster, node, f"ctr images tag {pause} {IMAGE}; rm {REMOVED}; echo x > /opt/kept")
    pushed = f"{registry(cluster)}/mine:1"
    push = f"ctr images push --hosts-dir /etc/sykube/certs.d {pushed}"
    in_node(cluster, "master", f"ctr images tag {IMAGE} {pushed}; {push}")
    yield cluster
    _clean(cluster)


def _clean(cluster: TestCluster) -> None:
    for name in ("e2e-reborn", cluster.name):
        cluster.sykube("delete", "--name", name, "--yes", check=False)
    cluster.sykube("snapshot", "delete", SNAPSHOT, check=False)


def config(value: str) -> dict[str, object]:
    metadata = {"name": "kept"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"is": value}}


def tool() -> dict[str, Any]:
    """A Deployment of the SIF."""
    made = manifests.deployment("tool", SIF, 1)
    container = {"name": "tool", "image": SIF, "imagePullPolicy": "Never"}
    made["spec"]["template"]["spec"]["containers"] = [container]
    return made


def in_node(cluster: TestCluster, node: str, script: str) -> str:
    return cluster.sykube("exec", "--name", cluster.name, node, "sh", "-ec", script).stdout


def registry(cluster: TestCluster) -> str:
    """Where its registry is on the host."""
    state = json.loads(
        Path(f"/var/lib/sykube/{cluster.name}/state.json").read_text(encoding="utf-8")
    )
    return str(state["registry"]).rpartition(":")[0]


def identity(cluster: TestCluster) -> Identity:
    (name,) = accounts_secrets(cluster) or ["mine"]
    digest = "openssl x509 -noout -fingerprint -sha256 -in /etc/kubernetes/pki/apiserver.crt"
    return Identity(
        authority=in_node(cluster, "master", "cat /etc/kubernetes/pki/ca.crt"),
        signing_key=in_node(cluster, "master", "cat /etc/kubernetes/pki/sa.pub"),
        certificate=in_node(cluster, "master", digest),
        kubeconfig=cluster.sykube("config", "--name", cluster.name).stdout,
        token=cluster.get("secret", name)["data"]["token"],
        nodes={
            node["metadata"]["name"]: node["status"]["addresses"][0]["address"]
            for node in cluster.get("nodes")["items"]
        },
    )


def accounts_secrets(cluster: TestCluster) -> list[str]:
    """The Secrets of the default account."""
    listed = cluster.get("serviceaccount", "default").get("secrets", [])
    # Up to 1.23 every account had one with its token; later ones exist where they are asked for.
    assert len(listed) == (1 if cluster.minor < 24 else 0)
    return [each["name"] for each in listed]


def assert_works(cluster: TestCluster) -> None:
    """Everything that a user put into it is there and works."""
    assert cluster.sykube("status", "--name", cluster.name).returncode == 0
    assert cluster.get("configmap", "kept")["data"] == {"is": "before"}
    for workload in ("deployment/web", "deployment/tool", "statefulset/db"):
        cluster.kubectl("rollout", "status", workload, "--timeout=90s")
    assert cluster.kubectl("logs", "deployment/tool") == "I am a SIF\n"
    assert len([*Path(f"/var/lib/sykube/{cluster.name}/sifs").glob("*.sif")]) == 1
    found = containers.runtimes(cluster, "--all-namespaces")
    system = {pod for pod in found if pod.startswith("kube-system/")}
    assert {f"kube-system/etcd-{cluster.name}-master"} < system
    assert {pod: found[pod] for pod in system} == {pod: {"runc"} for pod in system}
    assert "default/db-0" in found
    assert all(found[pod] == {"apptainer"} for pod in found if pod not in system), found
    eventually("the Service answers", lambda: "web-" in cluster.fetch("db-0", "http://web"))
    with urllib.request.urlopen(f"http://{registry(cluster)}/v2/_catalog", timeout=5) as answer:
        assert json.load(answer) == {"repositories": ["mine"]}
    for node in ("master", "node1"):
        assert in_node(cluster, node, "cat /opt/kept") == "x\n"
        assert in_node(cluster, node, f"test ! -e {REMOVED}; ctr images ls -q").count(IMAGE) == 1
        whiteout = Path(f"/var/lib/sykube/{cluster.name}/nodes/{cluster.name}-{node}/overlay/upper")
        assert (whiteout / REMOVED[1:]).is_char_device()


def test_save_change_restore(old: TestCluster) -> None:
    before = identity(old)
    name = ("--name", old.name)
    running = old.sykube("snapshot", "save", SNAPSHOT, *name, check=False)
    assert running.returncode == 1
    assert "what to do: sykube stop --name e2e-snap" in running.stderr
    old.sykube("stop", "--grace", "1", *name)
    assert old.sykube("snapshot", "save", SNAPSHOT, *name).stdout == f"{SNAPSHOT}\n"
    listed = json.loads(old.sykube("snapshot", "list", "--output", "json").stdout)
    assert [each["cluster"] for each in listed if each["name"] == SNAPSHOT] == [old.name]

    old.sykube("start", *name)
    old.apply(config("after"))
    old.kubectl("delete", "deployment/web", "service/web", "--wait=false")
    in_node(old, "master", "rm /opt/kept")
    running = old.sykube("snapshot", "restore", SNAPSHOT, "--yes", check=False)
    assert running.returncode == 1
    old.sykube("stop", "--grace", "1", *name)
    asked = old.sykube("snapshot", "restore", SNAPSHOT, check=False, stdin="")
    assert asked.returncode == 2
    old.sykube("snapshot", "restore", SNAPSHOT, "--yes")

    # And once more, after all of it is gone.
    context = yaml.safe_load(old.kubeconfig.read_text())
    old.sykube("delete", *name, "--yes")
    old.sykube("snapshot", "restore", SNAPSHOT)
    assert yaml.safe_load(old.kubeconfig.read_text()) == context
    old.sykube("start", *name)
    assert_works(old)
    assert identity(old) == before


def test_a_new_cluster_of_a_snapshot(old: TestCluster, tmp_path: Path) -> None:
    """Both run at once, and know nothing of each other."""
    new = TestCluster("e2e-reborn", tmp_path)
    new.init("--from", SNAPSHOT)
    assert_works(new)
    assert_works(old)
    was, is_now = identity(old), identity(new)
    assert list(is_now.nodes) == ["e2e-reborn-master", "e2e-reborn-node1"]
    assert not set(was.nodes.values()) & set(is_now.nodes.values())
    assert registry(old) != registry(new)
    for what in ("authority", "signing_key", "certificate", "kubeconfig", "token"):
        assert getattr(was, what) != getattr(is_now, what), what
    # A token that a user asked for is there again, signed anew.
    mine = [each.get("secret", "mine")["data"]["token"] for each in (old, new)]
    assert mine[0] != mine[1]
    accounts_secrets(new)

    assert_no_entry(new, was)
    assert_no_trace(new, base64.b64decode(was.token).decode())


def assert_no_entry(new: TestCluster, was: Identity) -> None:
    """What opens the old cluster does not open the new one."""
    config = yaml.safe_load(was.kubeconfig)
    server = yaml.safe_load(new.sykube("config", "--name", new.name).stdout)["clusters"][0]
    config["clusters"][0]["cluster"]["server"] = server["cluster"]["server"]
    file = new.folder / "old-kubeconfig"
    file.write_text(yaml.safe_dump(config))
    arguments = ("kubectl", "--name", new.name, "--kubeconfig", str(file), "get", "nodes")
    refused = new.sykube(*arguments, check=False)
    assert refused.returncode == 1
    assert "x509" in refused.stderr
    refused = new.sykube(*arguments, "--insecure-skip-tls-verify", check=False)
    assert refused.returncode == 1
    assert "Unauthorized" in refused.stderr
    nobody = ssl._create_unverified_context()
    token = base64.b64decode(was.token).decode()
    request = urllib.request.Request(
        f"{server['cluster']['server']}/api/v1/namespaces",
        headers={"Authorization": f"Bearer {token}"},
    )
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=10, context=nobody)
    assert raised.value.code == 401


def assert_no_trace(new: TestCluster, token: str) -> None:
    """No key, token or name of the old cluster is in a file of the new one, etcd's among them."""
    root = Path("/var/lib/sykube")
    unpacked = new.folder / "unpacked"
    unpacked.mkdir()
    archive = next((root / "snapshots" / SNAPSHOT).glob("data.tar.*"))
    subprocess.run(
        ["tar", "--extract", f"--file={archive}", f"--directory={unpacked}"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    pki = unpacked / "nodes/e2e-snap-master/overlay/upper/etc/kubernetes/pki"
    # A line of random numbers is enough to know a key and a certificate by.
    files = [*pki.rglob("*.key"), *pki.rglob("*.crt")]
    lines = [file.read_text().splitlines()[-3] for file in files]
    assert len(lines) >= 15
    assert traces(unpacked, [*lines, token]), "they are in what was saved"
    assert traces(root / new.name, [*lines, token]) == []
    # containerd's notes of old containers have their pods' names, until the kubelet removes them.
    found = traces(root / new.name, ["e2e-snap-master", "e2e-snap-node1"])
    assert [file for file in found if not {"containerd", "log"} & set(Path(file).parts)] == []


def traces(folder: Path, texts: list[str]) -> list[str]:
    """Files that hold one of some texts."""
    found = subprocess.run(
        ["grep", "-rlaF", "-f", "-", str(folder)],
        input="\n".join(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.splitlines()


def test_delete_leaves_nothing(old: TestCluster) -> None:
    for name in ("e2e-reborn", old.name):
        old.sykube("delete", "--name", name, "--yes")
    old.sykube("snapshot", "delete", SNAPSHOT)
    assert old.before is not None
    leaks = leaks_since(old.before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
