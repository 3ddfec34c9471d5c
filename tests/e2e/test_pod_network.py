"""A real cluster without a pod network, and a CNI plugin that is installed as users install theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import manifests
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.hostdiff import leaks_since

pytestmark = pytest.mark.long

NAME = "e2e-net"
MASTER, WORKER = f"{NAME}-master", f"{NAME}-node1"
CONFLIST = {
    "cniVersion": "0.4.0",
    "name": "e2e-net",
    "plugins": [
        {
            "type": "e2e-bridge",
            "bridge": "e2e-pods",
            "isDefaultGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "@SUBNET@"}]]},
        }
    ],
}
# Its routes are static ones, as those of sykube's own pod network, which node-network clears away.
INSTALL = r"""
printf '#!/bin/sh\nexec /opt/cni/bin/bridge\n' > /opt/cni/bin/e2e-bridge
chmod 755 /opt/cni/bin/e2e-bridge
echo "$NODES" | while read -r node subnet address; do
    if [ "$node" = "$NODE" ]; then
        echo "$CONFLIST" | sed "s|@SUBNET@|$subnet|" > /etc/cni/net.d/.e2e
    else
        ip route replace "$subnet" via "$address" proto static
    fi
done
mv /etc/cni/net.d/.e2e /etc/cni/net.d/50-e2e.conflist
exec sleep infinity
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Two nodes without a pod network."""
    cluster = TestCluster(NAME, tmp_path_factory.mktemp("net"))
    cluster.delete_quietly()
    cluster.before = host_before(NAME)
    arguments = ("--pod-network", "none", "--workers", "1", "--dns", "none", "--yes")
    done = cluster.sykube("init", "--name", NAME, *arguments, timeout=3000)
    assert "no CNI plugin is installed (--pod-network none)" in done.stderr
    assert "apply -f YOUR-CNI.yaml" in done.stderr
    yield cluster
    cluster.delete_quietly()


def conditions(cluster: TestCluster) -> dict[str, tuple[str, str]]:
    """Whether each node is Ready, and what its kubelet says."""
    return {
        node["metadata"]["name"]: (each["status"], each["message"])
        for node in cluster.get("nodes")["items"]
        for each in node["status"]["conditions"]
        if each["type"] == "Ready"
    }


def plugin(cluster: TestCluster) -> dict[str, Any]:
    """A DaemonSet that configures the node that each of its pods is on."""
    nodes = []
    for node in cluster.get("nodes")["items"]:
        addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
        words = (node["metadata"]["name"], node["spec"]["podCIDR"], addresses["InternalIP"])
        nodes.append(" ".join(words))
    container = {
        "name": "install",
        "image": cluster.image,
        "command": ["chroot", "/host", "sh", "-euc", INSTALL],
        "securityContext": {"privileged": True},
        "env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "NODES", "value": "\n".join(nodes)},
            {"name": "CONFLIST", "value": json.dumps(CONFLIST)},
        ],
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    labels = {"app": "e2e-cni"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "e2e-cni", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": True,
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                    "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
                },
            },
        },
    }


def test_nodes_wait_for_a_plugin_and_status_says_so(bare: TestCluster) -> None:
    found = conditions(bare)
    assert {*found} == {MASTER, WORKER}
    for ready, message in found.values():
        assert ready == "False"
        assert "NetworkPluginNotReady" in message
    status = bare.sykube("status", "--name", NAME, check=False)
    assert status.returncode == 4
    assert "network: no CNI plugin is installed" in status.stdout
    doctor = bare.sykube("doctor", "--name", NAME, check=False)
    assert doctor.returncode == 4
    assert "docs/pod-network.md" in doctor.stdout
    refused = bare.sykube("addons", "enable", "metrics", "--name", NAME, check=False)
    assert "metrics needs a pod network" in refused.stderr


def test_with_a_plugin_pods_reach_pods_on_every_node(bare: TestCluster) -> None:
    bare.apply(
        plugin(bare),
        manifests.deployment("web", bare.image, 2),
        manifests.service("web", "web"),
        manifests.pod("caller", bare.image, MASTER, ["sleep", "100000"]),
    )
    bare.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
    bare.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    bare.kubectl("wait", "--for=condition=Ready", "pod/caller", "--timeout=120s")
    web_answers(bare)
    eventually("the cluster is well", lambda: status_code(bare) == 0, timeout=120)
    doctor = bare.sykube("doctor", "--name", NAME, check=False)
    assert "pod network" not in doctor.stdout
    assert bare.lookup("caller", "web") == bare.get("service", "web")["spec"]["clusterIP"]


def web_answers(cluster: TestCluster) -> None:
    """Every pod of `web`, one of which is on the other node, sees the caller's own address."""
    caller = cluster.get("pod", "caller")["status"]["podIP"]
    pods = cluster.get("pods", "-l", "app=web")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {MASTER, WORKER}
    for pod in pods:
        answer = cluster.fetch("caller", f"http://{pod['status']['podIP']}:8080/")
        assert answer == f"{pod['metadata']['name']} {caller}"


def status_code(cluster: TestCluster) -> int:
    return cluster.sykube("status", "--name", cluster.name, check=False).returncode


def test_start_leaves_the_plugins_routes_and_its_configuration(bare: TestCluster) -> None:
    bare.sykube("start", "--name", NAME)
    for node in ("master", "node1"):
        listed = bare.sykube("exec", "--name", NAME, node, "ls", "/etc/cni/net.d").stdout
        assert listed.split() == ["50-e2e.conflist"]
    web_answers(bare)


def test_delete_leaves_nothing(bare: TestCluster) -> None:
    bare.sykube("delete", "--name", NAME, "--yes")
    assert bare.before is not None
    leaks = leaks_since(bare.before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
