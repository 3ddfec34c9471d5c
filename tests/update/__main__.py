"""Updates real clusters: python3 -m tests.update [--parts newer three broken earlier users]

newer    Debian's Kubernetes with a later version written into its programs replaces the first one
         node by node, while a Service of two pods is asked all the time: no request is lost, nor
         anything that the API server has taken meanwhile
three    the same with three control planes and a worker; sykube is killed on the way, and goes on
broken   a node image whose API server ends at once: everything is put back, and works
earlier  a cluster that an earlier sykube made (tests/update/earlier.py) goes on under this one
users    clusters of ordinary users: three control planes of one with subordinate IDs, and a control
         plane and a worker of one who has nothing

Each on a cluster of its own; after it the host must be as before. As the last line it prints one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from sykube.cluster.model import lookup
from sykube.cluster.model.state import clusters
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.image import versions
from sykube.image.node_image import NodeImage
from sykube.ui import Ui
from tests.e2e import manifests
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.e2e.of_users import cluster_of, host_changes
from tests.hostdiff import HostSnapshot, leaks_since
from tests.machine import users
from tests.update import earlier, images
from tests.update.load import Load

_NAME = "update"
_TIMEOUT_S = 3000
_APP = "web"
# The first of a user's subordinate IDs, and the cluster's nodes.
_USERS = {
    "ids": (440_000, ("--control-planes", "3", "--workers", "0")),
    "nothing": (0, ("--workers", "1")),
}
# It takes a node about a minute and a half, half of it for the pods to end.
_INTO_THE_SECOND_S = 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.update", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parts = parser.parse_args().parts
    if os.geteuid() != 0:
        print("it needs root, as sykube does", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, terminated)
    os.environ["SYKUBE_SOURCE"] = versions.DEBIAN.name
    found: dict[str, Any] = {}
    problems = []
    with tempfile.TemporaryDirectory(prefix="sykube-update-") as folder:
        for part in parts:
            cluster = TestCluster(_NAME, Path(folder))
            cluster.delete_quietly()
            shutil.rmtree(Path("/var/log/sykube") / _NAME, ignore_errors=True)
            before = host_before(_NAME)
            try:
                found[part] = PARTS[part](cluster)
                # Users' have been deleted by them.
                if _NAME in clusters(Host()):
                    cluster.sykube("delete", "--name", _NAME, "--yes")
                leaks = [str(leak) for leak in leaks_since(before)]
                assert not leaks, f"left behind: {'; '.join(leaks[:5])}"
            except AssertionError as error:
                problems.append(f"{part}: {error}")
                print(f"FAILED {part}: {error}", flush=True)
            finally:
                cluster.delete_quietly()
    print(json.dumps({**found, "problems": problems}))
    return 1 if problems else 0


def newer(cluster: TestCluster) -> dict[str, Any]:
    return _update(cluster, "--workers", "2")


def three(cluster: TestCluster) -> dict[str, Any]:
    return _update(cluster, "--control-planes", "3", "--workers", "1", kill=True)


def _update(cluster: TestCluster, *members: str, kill: bool = False) -> dict[str, Any]:
    """An update that goes well, under load.

    Args:
        kill: end sykube with SIGKILL while the second node is at work.
    """
    image = images.newer()
    port = _make(cluster, *members)
    known = lookup.load(Host(), _NAME, Ui(quiet=True))
    with Load(known, port) as load:
        time.sleep(5)
        started = time.monotonic()
        if kill:
            _kill_on_the_way(cluster, image)
        done = cluster.sykube(
            "update", "--name", _NAME, "--local-image", str(image.sif), "--output", "json",
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        took = time.monotonic() - started
        print(done.stderr, flush=True)
        assert done.returncode == 0, f"update ended with {done.returncode}: {done.stderr[-2000:]}"
        time.sleep(5)
    result = json.loads(done.stdout)
    assert {*result["nodes"].values()} == {f"v{images.NEWER}"}, result
    _assert_all_is(cluster, images.NEWER)
    _assert_data_is_there(cluster)
    again = cluster.sykube("update", "--name", _NAME, "--local-image", str(image.sif))
    assert "is up to date" in again.stdout + again.stderr, again
    assert not load.lost, f"{len(load.lost)} of {load.answered} lost: {load.lost[:10]}"
    there = {each["metadata"]["name"] for each in cluster.get("configmaps")["items"]}
    assert load.written, "nothing was written"
    assert load.written <= there, f"written, but gone: {sorted(load.written - there)[:10]}"
    return {
        "seconds": round(took, 1), "answered": load.answered, "lost": len(load.lost),
        "slowest": round(load.slowest, 2), "pods": len(load.pods), "steps": result["seconds"],
        "written": len(load.written), "unwritable_s": round(load.unwritable_s, 1),
    }  # fmt: skip


def _kill_on_the_way(cluster: TestCluster, image: NodeImage) -> None:
    """Begin an update and end it without a word in the middle of its second node."""

    def finished() -> list[str]:
        update = json.loads(ClusterPaths(Host(), _NAME).state.read_text())["update"]
        return update["finished"] if update else []

    command = [sys.executable, "-m", "sykube", "update", "--name", _NAME]
    with subprocess.Popen(
        [*command, "--local-image", str(image.sif)],
        env=cluster.environment, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as running:  # fmt: skip
        try:
            eventually("the first node is up to date", lambda: len(finished()) == 1, _TIMEOUT_S)
            time.sleep(_INTO_THE_SECOND_S)
            assert running.poll() is None, "it ended by itself"
        finally:
            running.kill()
    assert len(finished()) == 1, "it was too late"
    done = cluster.sykube("update", "--name", _NAME, "--kubernetes-version", "1.21", check=False)
    assert done.returncode == 2, done.stderr
    assert "is on its way to" in done.stderr, done.stderr


def broken(cluster: TestCluster) -> dict[str, Any]:
    """An update whose control plane does not come up."""
    image = images.broken()
    port = _make(cluster, "--workers", "2")
    known = lookup.load(Host(), _NAME, Ui(quiet=True))
    with Load(known, port) as load:
        started = time.monotonic()
        done = cluster.sykube(
            "update", "--name", _NAME, "--local-image", str(image.sif),
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        took = time.monotonic() - started
    print(done.stderr, flush=True)
    assert done.returncode == 1, f"update ended with {done.returncode}"
    assert f"is back on v{images.OLDER} and works as before" in done.stderr, done.stderr
    _assert_all_is(cluster, images.OLDER)
    _assert_data_is_there(cluster)
    cluster.kubectl("create", "configmap", "afterwards")
    cluster.kubectl("rollout", "restart", f"deployment/{_APP}")
    cluster.kubectl("rollout", "status", f"deployment/{_APP}", "--timeout=180s", timeout=240)
    left = [*known.paths.root.glob("*update*"), *known.paths.root.glob("nodes/*/before")]
    assert not left, f"left behind: {left}"
    return {"seconds": round(took, 1), "answered": load.answered, "lost": len(load.lost)}


def of_an_earlier_sykube(cluster: TestCluster) -> dict[str, Any]:
    """Everything that changes a cluster, on one that knows nothing of what came since."""

    def run(command: str, *arguments: str) -> None:
        cluster.sykube(*command.split(), "--name", _NAME, *arguments, timeout=_TIMEOUT_S)

    options = ("--workers", "1", "--dns", "192.0.2.53", "--yes")
    with earlier.checkout(cluster.folder) as tree:
        earlier.sykube(
            tree, cluster.environment, "init", "--name", _NAME, *options, timeout=_TIMEOUT_S
        )
    cluster.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    run("status")
    run("stop")
    run("start")
    run("status")
    run("node add")
    run("certs renew")
    run("stop")
    run("snapshot save", "update-earlier")
    try:
        run("start")
        cluster.kubectl("delete", "configmap", "kept")
        run("stop")
        cluster.sykube("snapshot", "restore", "update-earlier", "--yes", timeout=_TIMEOUT_S)
        run("start")
    finally:
        cluster.sykube("snapshot", "delete", "update-earlier", check=False)
    assert cluster.get("configmap", "kept")["data"] == {"key": "value"}
    assert len(cluster.get("nodes")["items"]) == 3
    # Its nodes have no Apptainer for pods: one that asks for it waits for the update.
    cluster.apply(_of_apptainer(cluster.image))
    refused = 'pod rejected: RuntimeClass "apptainer" not found'
    eventually(
        "an event names the class that is not there",
        lambda: refused in cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].message}"),
    )
    started = time.monotonic()
    run("update", "--yes")
    took = time.monotonic() - started
    _assert_all_is(cluster, images.OLDER)
    assert cluster.get("configmap", "kept")["data"] == {"key": "value"}
    cluster.kubectl("rollout", "status", "deployment/of-apptainer", "--timeout=180s", timeout=240)
    return {"update_s": round(took, 1)}


def _of_apptainer(image: str) -> dict[str, Any]:
    made = manifests.deployment("of-apptainer", image, 1)
    made["spec"]["template"]["spec"]["runtimeClassName"] = "apptainer"
    return made


def of_users(_: TestCluster) -> dict[str, Any]:
    """Clusters of users, each by itself."""
    found = {}
    for name, (ids, members) in _USERS.items():
        with users.made(f"update-{name}", ids=ids) as user:
            before = HostSnapshot.take([user.home])
            cluster = cluster_of(user, _NAME)
            try:
                found[name] = _update_of_user(cluster, *members)
                print(f"{name}: {found[name]}", flush=True)
                cluster.sykube("delete", "--name", _NAME, "--yes")
                eventually("all processes have ended", lambda: not user.processes(), timeout=10)
                assert host_changes(before) == []
            finally:
                cluster.delete_quietly()
    return found


def _update_of_user(cluster: TestCluster, *members: str) -> dict[str, Any]:
    image = images.newer()
    # Of what is built here, a user would get the newest.
    cluster.init(*members, "--dns", "192.0.2.53", "--kubernetes-version", images.OLDER)
    cluster.apply(manifests.deployment(_APP, cluster.image, 2))
    cluster.kubectl("rollout", "status", f"deployment/{_APP}", "--timeout=180s", timeout=240)
    cluster.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    started = time.monotonic()
    done = cluster.sykube(
        "update", "--name", _NAME, "--local-image", str(image.sif), "--output", "json",
        timeout=_TIMEOUT_S,
    )  # fmt: skip
    took = time.monotonic() - started
    _assert_all_is(cluster, images.NEWER)
    assert cluster.get("configmap", "kept")["data"] == {"key": "value"}
    cluster.kubectl("rollout", "status", f"deployment/{_APP}", "--timeout=180s", timeout=240)
    return {"seconds": round(took, 1), "steps": json.loads(done.stdout)["seconds"]}


PARTS: dict[str, Callable[[TestCluster], dict[str, Any]]] = {
    "newer": newer,
    "three": three,
    "broken": broken,
    "earlier": of_an_earlier_sykube,
    "users": of_users,
}


def _make(cluster: TestCluster, *members: str) -> int:
    """A cluster with a Service of two pods and some data; the nodes' port of the Service."""
    cluster.init(*members, "--dns", "192.0.2.53", "--yes")
    web = manifests.deployment(_APP, cluster.image, 2)
    pod = web["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 30
    del pod["topologySpreadConstraints"]
    labels = {"matchLabels": {"app": _APP}}
    apart = {"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"}
    pod["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    }
    # Until every node has heard that the pod is no longer an endpoint.
    pod["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "10"]}}}
    budget = {
        "apiVersion": "policy/v1beta1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": _APP},
        "spec": {"minAvailable": 1, "selector": labels},
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    writer = manifests.pod("writer", cluster.image, "", ["sh", "-c", "echo kept > /data/file"])
    del writer["spec"]["nodeName"]
    writer["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    writer["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    service = manifests.service(_APP, _APP, type="NodePort")
    cluster.apply(web, budget, service, claim, writer)
    cluster.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    cluster.kubectl("rollout", "status", f"deployment/{_APP}", "--timeout=180s", timeout=240)
    eventually(
        "the data is written",
        lambda: cluster.get("pod", "writer")["status"]["phase"] == "Succeeded",
    )
    # A pod without a controller would not be evicted.
    cluster.kubectl("delete", "pod", "writer")
    return int(cluster.get("service", _APP)["spec"]["ports"][0]["nodePort"])


def _assert_all_is(cluster: TestCluster, version: str) -> None:
    kubelets = {
        node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"]
        for node in cluster.get("nodes")["items"]
    }
    assert {*kubelets.values()} == {f"v{version}"}, kubelets
    server = json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"]
    assert server == f"v{version}", server
    pods = cluster.get("pods", "--namespace", "kube-system")["items"]
    tags = {
        each["image"]
        for pod in pods
        for each in pod["spec"]["containers"]
        if "/kube-" in each["image"]
    }
    assert {tag.rpartition(":")[2] for tag in tags} == {f"v{version}"}, tags
    eventually(
        "all is well",
        lambda: cluster.sykube("status", "--name", _NAME, check=False).returncode == 0,
    )
    shown = json.loads(cluster.sykube("status", "--name", _NAME, "--output", "json").stdout)
    assert {node["version"] for node in shown["nodes"]} == {f"v{version}"}
    assert not shown["update"]


def _assert_data_is_there(cluster: TestCluster) -> None:
    assert cluster.get("configmap", "kept")["data"] == {"key": "value"}
    (file,) = (Path("/var/lib/sykube") / _NAME / "volumes").rglob("file")
    assert file.read_text() == "kept\n"


def terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
