"""The add-on metrics on a real cluster: kubectl top, autoscaling, and who may ask whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.cluster import TestCluster, eventually

NODES = {"e2e-dash-master", "e2e-dash-node1"}
METRICS = "/apis/metrics.k8s.io/v1beta1"
# Uses a tenth of a processor, twice what it asks for, while /tmp/busy is there.
BUSY = """
import os, time
while True:
    until = time.monotonic() + 0.01 * os.path.exists('/tmp/busy')
    while time.monotonic() < until: pass
    time.sleep(0.09)
"""


def measured(observed: TestCluster, namespace: str = "") -> dict[str, Any]:
    """The metrics of nodes, or of the pods of a namespace, by name."""
    path = f"{METRICS}/namespaces/{namespace}/pods" if namespace else f"{METRICS}/nodes"
    said = observed.kubectl("get", "--raw", path, check=False)
    items = json.loads(said)["items"] if said else []
    return {item["metadata"]["name"]: item for item in items}


@pytest.fixture(scope="module", autouse=True)
def ready(observed: TestCluster) -> None:
    eventually("every node is measured", lambda: measured(observed).keys() == NODES)


def test_top_shows_nodes_and_pods(observed: TestCluster) -> None:
    lines = observed.kubectl("top", "nodes", "--no-headers").splitlines()
    assert {line.split()[0] for line in lines} == NODES
    server = "kube-apiserver-e2e-dash-master"
    # Tests before have started it anew: it may not have been measured twice yet.
    eventually("the API server is measured", lambda: server in measured(observed, "kube-system"))
    pods = observed.kubectl("top", "pods", "-n", "kube-system", "--no-headers").splitlines()
    memory = {line.split()[0]: line.split()[2] for line in pods}
    # An API server without memory is a mistake of ours.
    used = memory[server]
    assert used.endswith("Mi") and int(used.removesuffix("Mi")) > 50
    selected = ("top", "pods", "-n", "kube-system", "-l", "k8s-app=metrics")
    # Its own pod is the newest, and may not have been measured twice yet.
    eventually(
        "the pod of the add-on is measured",
        lambda: len(observed.kubectl(*selected, check=False).splitlines()) == 2,
    )


def test_discovery_shows_no_error_and_the_certificate_is_verified(observed: TestCluster) -> None:
    # Ends with an error where any group cannot be discovered.
    listed = observed.kubectl("api-resources", "--api-group=metrics.k8s.io")
    assert {line.split()[0] for line in listed.splitlines()[1:]} == {"nodes", "pods"}
    service = observed.get("apiservice", "v1beta1.metrics.k8s.io")
    assert service["spec"]["caBundle"]
    assert not service["spec"].get("insecureSkipTLSVerify")
    assert {c["type"]: c["status"] for c in service["status"]["conditions"]}["Available"] == "True"


def allowed(observed: TestCluster, verb: str, resource: str, part: str = "") -> bool:
    """Whether the program may do something to a resource, or to a part of it (subresource)."""
    user = "--as=system:serviceaccount:kube-system:metrics"
    words = (verb, resource, f"--subresource={part}", user)
    return observed.kubectl("auth", "can-i", *words, check=False).strip() == "yes"


def test_it_may_do_little_and_others_need_leave_to_ask_it(observed: TestCluster) -> None:
    assert allowed(observed, "get", "nodes", "metrics")
    for what in (
        ("get", "nodes", "proxy"), ("create", "pods", "exec"), ("get", "secrets"),
        ("get", "configmaps"), ("patch", "apiservices"),
        ("create", "subjectaccessreviews.authorization.k8s.io"),
    ):  # fmt: skip
        assert not allowed(observed, *what), what
    refused = observed.kubectl(
        "get",
        "--raw",
        f"{METRICS}/nodes",
        "--as=system:serviceaccount:default:default",
        check=False,
    )
    assert refused == ""


def test_a_pod_that_asks_it_directly_is_refused(observed: TestCluster) -> None:
    program = (
        "import http.client, ssl\n"
        "c = http.client.HTTPSConnection('metrics.kube-system.svc', timeout=10,\n"
        "    context=ssl._create_unverified_context())\n"
        "token = open('/var/run/secrets/kubernetes.io/serviceaccount/token').read()\n"
        f"c.request('GET', '{METRICS}/nodes', headers={{'X-Remote-User': 'system:admin',\n"
        "    'X-Remote-Group': 'system:masters', 'Authorization': 'Bearer ' + token})\n"
        "print(c.getresponse().status)\n"
    )
    observed.kubectl(
        *("run", "stranger", f"--image={observed.image}", "--restart=Never", "--command", "--"),
        *("python3", "-c", program),
    )

    def ended() -> bool:
        return bool(observed.get("pod", "stranger")["status"]["phase"] in ("Succeeded", "Failed"))

    eventually("the pod has ended", ended)
    assert observed.kubectl("logs", "stranger").strip() == "401"
    observed.kubectl("delete", "pod", "stranger", "--wait=false")


def busy_deployment(image: str) -> dict[str, Any]:
    labels = {"app": "busy"}
    container = {
        "name": "busy",
        "image": image,
        "command": ["python3", "-c", BUSY],
        "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "500m"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "busy"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


def autoscaler(version: str, spec: dict[str, Any]) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"}
    return {
        "apiVersion": f"autoscaling/{version}",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy"},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2} | spec,
    }


def replicas(observed: TestCluster) -> int:
    return int(observed.get("deployment", "busy")["spec"]["replicas"])


@pytest.mark.long
def test_autoscalers_of_both_versions_scale_a_deployment(observed: TestCluster) -> None:
    observed.apply(busy_deployment(observed.image))
    observed.kubectl("rollout", "status", "deployment/busy", "--timeout=60s")
    (pod,) = observed.get("pods", "-l", "app=busy")["items"]
    first = pod["metadata"]["name"]
    observed.apply(autoscaler("v1", {"targetCPUUtilizationPercentage": 80}))
    observed.in_pod(first, "touch", "/tmp/busy")
    eventually("it has two pods", lambda: replicas(observed) == 2, timeout=180)
    # Down again, without the 5 minutes that version 1 waits for.
    observed.kubectl("delete", "hpa", "busy")
    cpu = {"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}  # fmt: skip
    policy = {"stabilizationWindowSeconds": 0}
    # v2 came with 1.23, and v2beta2 went with 1.26.
    version = "v2" if observed.minor >= 23 else "v2beta2"
    observed.apply(autoscaler(version, {"metrics": [cpu], "behavior": {"scaleDown": policy}}))
    observed.in_pod(first, "rm", "/tmp/busy")
    eventually("it has one pod", lambda: replicas(observed) == 1, timeout=180)
    observed.kubectl("delete", "hpa,deployment", "busy")


def test_it_goes_on_after_certificates_were_renewed(observed: TestCluster) -> None:
    certificates = observed.get("configmap", "-n", "kube-system", "kubelet-certificates")["data"]
    observed.sykube("certs", "renew", "--name", observed.name, timeout=600)
    renewed = observed.get("configmap", "-n", "kube-system", "kubelet-certificates")["data"]
    assert all(renewed[name] != certificates[name] for name in NODES)
    since = max(each["timestamp"] for each in measured(observed).values() or [{"timestamp": ""}])

    def fresh() -> bool:
        found = measured(observed)
        return found.keys() == NODES and all(each["timestamp"] > since for each in found.values())

    eventually("every node is measured anew", fresh)


def test_it_goes_without_a_trace_and_comes_back(observed: TestCluster) -> None:
    observed.sykube("addons", "disable", "metrics", "--name", observed.name)
    assert "metrics" not in observed.kubectl("api-resources", "--api-group=metrics.k8s.io")
    kinds = "apiservices,clusterroles,clusterrolebindings,roles,rolebindings,configmaps,services"
    left = observed.kubectl("get", f"{kinds},deployments,serviceaccounts", "-A", "-o", "name")
    assert [line for line in left.splitlines() if "metrics" in line] == []
    assert "kubelet-certificates" not in left
    # Returns when all nodes are measured.
    observed.sykube("addons", "enable", "metrics", "--name", observed.name)
    assert measured(observed).keys() == NODES
