"""A real cluster of two nodes: workloads, network, DNS, access, and its end."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.kubernetes import kubeconfig
from tests.e2e import manifests
from tests.e2e.cluster import UPSTREAM_NAME, TestCluster, eventually
from tests.e2e.resolver import Resolver
from tests.hostdiff import leaks_since
from tests.scalars import TEXTS

MASTER, WORKER = "e2e-master", "e2e-node1"
SURVIVAL_S = 180


@pytest.fixture(scope="module")
def workload(cluster: TestCluster) -> TestCluster:
    """The Deployment, StatefulSet, Services and callers that the tests below look at."""
    image = cluster.image
    sleep = ["sleep", "100000"]
    cluster.apply(
        manifests.deployment("web", image, 4),
        manifests.service("web", "web"),
        manifests.service("web-port", "web", type="NodePort"),
        manifests.service("web-sticky", "web", sessionAffinity="ClientIP"),
        manifests.stateful_set("db", image, 2),
        manifests.service("db", "db", clusterIP="None"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "elsewhere"},
            "spec": {"type": "ExternalName", "externalName": UPSTREAM_NAME},
        },
        manifests.pod("caller-master", image, MASTER, sleep),
        manifests.pod("caller-worker", image, WORKER, sleep),
    )
    for rollout in ("deployment/web", "statefulset/db"):
        cluster.kubectl("rollout", "status", rollout, "--timeout=120s")
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    return cluster


CALLERS = pytest.mark.parametrize("caller", ["caller-master", "caller-worker"])


def test_nodes_are_ready_and_system_pods_run(cluster: TestCluster) -> None:
    nodes = cluster.get("nodes")["items"]
    assert {node["metadata"]["name"] for node in nodes} == {MASTER, WORKER}
    for node in nodes:
        ready = [c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"]
        assert ready == ["True"]
    pods = cluster.get("pods", "-n", "kube-system")["items"]
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    names = " ".join(pod["metadata"]["name"] for pod in pods)
    for part in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert f"{part}-{MASTER}" in names
    assert names.count("kube-proxy-") == 2
    # Debian's Kubernetes has sykube's own DNS, as all of 1.20.
    assert ("cluster-dns-" if cluster.minor == 20 else "coredns-") in names


# What containerd says of passwords for registries: up to 2.3 it has no other place for them; of a
# kubelet of 1.20; and what a newer one says of the host.
KNOWN = ("`configs` is deprecated", "Registry.Configs", "CRI API v1alpha2", "cgroup v1 detected")


def test_no_program_is_given_what_it_calls_deprecated_or_does_not_know(
    cluster: TestCluster,
) -> None:
    """Neither in a node nor in kube-proxy, which sykube configures as well."""
    said = cluster.sykube("logs", "--name", cluster.name).stdout.splitlines()
    assert any("/kubelet]" in line for line in said)
    assert any("/containerd]" in line for line in said)
    for pod in cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-proxy")["items"]:
        name = pod["metadata"]["name"]
        said += cluster.kubectl("logs", "-n", "kube-system", name).splitlines()
    warning = re.compile(
        r"has been deprecated|is deprecated|DEPRECATION|unknown (?:field|flag|key|setting)"
        r"|Configuration migrated|strict decoding",
    )
    found = [line for line in said if warning.search(line)]
    assert not [line for line in found if not any(text in line for text in KNOWN)]


def test_pod_subnets_shown_are_the_ones_used(workload: TestCluster) -> None:
    subnets = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in workload.get("nodes")["items"]}
    assert len(set(subnets.values())) == 2
    for pod in workload.get("pods")["items"]:
        prefix = subnets[pod["spec"]["nodeName"]].rsplit(".", 1)[0]
        assert pod["status"]["podIP"].startswith(f"{prefix}.")


def test_deployment_spreads_over_both_nodes(workload: TestCluster) -> None:
    pods = workload.get("pods", "-l", "app=web")["items"]
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    assert sorted(nodes) == [MASTER, MASTER, WORKER, WORKER]


@CALLERS
def test_pods_reach_pods_on_every_node(workload: TestCluster, caller: str) -> None:
    own = workload.get("pod", caller)["status"]["podIP"]
    for pod in workload.get("pods", "-l", "app=web")["items"]:
        answer = workload.fetch(caller, f"http://{pod['status']['podIP']}:8080/")
        assert answer == f"{pod['metadata']['name']} {own}", "no address translation between pods"


@CALLERS
def test_cluster_ip_reaches_every_replica(workload: TestCluster, caller: str) -> None:
    address = workload.get("service", "web")["spec"]["clusterIP"]
    names = {pod["metadata"]["name"] for pod in workload.get("pods", "-l", "app=web")["items"]}
    seen: set[str] = set()

    def all_seen() -> bool:
        answers = workload.fetch_often(caller, f"http://{address}/", 16)
        assert all(answers), "a request to the Service was lost"
        seen.update(answer.split()[0] for answer in answers)
        return seen == names

    eventually("every replica has answered", all_seen)


def test_a_pod_reaches_itself_by_its_service(workload: TestCluster) -> None:
    """Hairpin: of four endpoints one is the caller itself and one runs beside it."""
    name = workload.get("pods", "-l", "app=web")["items"][0]["metadata"]["name"]
    seen: set[str] = set()

    def itself_seen() -> bool:
        answers = workload.fetch_often(name, "http://web/", 16)
        assert all(answers), "a request to the Service was lost"
        seen.update(answer.split()[0] for answer in answers)
        return name in seen and len(seen) == 4

    eventually("the pod has answered itself", itself_seen)


@CALLERS
def test_session_affinity(workload: TestCluster, caller: str) -> None:
    answers = {*workload.fetch_often(caller, "http://web-sticky/", 12)}
    assert len(answers) == 1 and "" not in answers


@CALLERS
def test_node_port_from_pods(workload: TestCluster, caller: str) -> None:
    port = workload.get("service", "web-port")["spec"]["ports"][0]["nodePort"]
    for node in workload.get("nodes")["items"]:
        address = node["status"]["addresses"][0]["address"]
        assert workload.fetch(caller, f"http://{address}:{port}/").startswith("web-")


def test_node_port_from_the_host(workload: TestCluster) -> None:
    port = workload.get("service", "web-port")["spec"]["ports"][0]["nodePort"]
    for node in workload.get("nodes")["items"]:
        address = node["status"]["addresses"][0]["address"]
        with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as answer:
            assert answer.read().startswith(b"web-")


@CALLERS
@pytest.mark.parametrize("name", ["web", "web.default", "web.default.svc.cluster.local"])
def test_service_names(workload: TestCluster, caller: str, name: str) -> None:
    address = workload.get("service", "web")["spec"]["clusterIP"]
    assert workload.lookup(caller, name) == address
    assert workload.fetch(caller, f"http://{name}/").startswith("web-")


@CALLERS
def test_headless_names(workload: TestCluster, caller: str) -> None:
    pods = workload.get("pods", "-l", "app=db")["items"]
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    assert set(workload.ask(caller, "db.default.svc.cluster.local.")) == set(addresses.values())
    for name, address in addresses.items():
        assert workload.lookup(caller, f"{name}.db") == address
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa."
        assert workload.ask(caller, reverse, "PTR") == [f"{name}.db.default.svc.cluster.local."]


@CALLERS
def test_srv_and_ptr_of_a_service(workload: TestCluster, caller: str) -> None:
    found = workload.ask(caller, "_http._tcp.web.default.svc.cluster.local.", "SRV")
    assert [record.split()[2:] for record in found] == [["80", "web.default.svc.cluster.local."]]
    headless = workload.ask(caller, "_http._tcp.db.default.svc.cluster.local.", "SRV")
    assert sorted(record.split()[3] for record in headless) == [
        "db-0.db.default.svc.cluster.local.",
        "db-1.db.default.svc.cluster.local.",
    ]
    address = workload.get("service", "web")["spec"]["clusterIP"]
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa."
    assert workload.ask(caller, reverse, "PTR") == ["web.default.svc.cluster.local."]


@CALLERS
def test_names_of_the_outside(workload: TestCluster, caller: str, resolver: Resolver) -> None:
    """By the host's resolver, which listens on the host's loopback alone."""
    assert workload.lookup(caller, UPSTREAM_NAME) == "192.0.2.80"
    assert workload.ask(caller, "elsewhere.default.svc.cluster.local.") == ["192.0.2.80"]
    assert workload.ask(caller, "nowhere.sykube.test.") == []
    assert (UPSTREAM_NAME, "127.0.0.1") in resolver.asked


@CALLERS
def test_addresses_of_the_cluster_are_asked_of_nobody_else(
    workload: TestCluster, caller: str, resolver: Resolver
) -> None:
    for node in workload.get("nodes")["items"]:
        # Its bridge's, which has no name: whom a pod sees that is called by a Service on its node.
        bridge = ipaddress.ip_network(node["spec"]["podCIDR"])[1].reverse_pointer
        assert workload.ask(caller, f"{bridge}.", "PTR") == []
        assert bridge not in {name for name, _ in resolver.asked}


def test_exec_passes_input_and_exit_code(workload: TestCluster) -> None:
    echoed = workload.kubectl("exec", "-i", "caller-worker", "--", "cat", stdin="through\n")
    assert echoed == "through\n"
    done = workload.sykube(
        "kubectl", "--name", "e2e", "exec", "caller-worker", "--", "sh", "-c", "exit 7", check=False
    )
    assert done.returncode == 7


def test_logs(workload: TestCluster) -> None:
    workload.fetch("caller-master", "http://web/")
    logs = workload.kubectl("logs", "-l", "app=web", "--tail=-1")
    assert '"GET / HTTP/1.1" 200' in logs


def test_port_forward(workload: TestCluster) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["kubectl", "--name", "e2e", "port-forward", "service/web", f"{port}:80"]
    with subprocess.Popen(
        [sys.executable, "-m", "sykube", *command],
        env=workload.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as forward:
        try:
            assert forward.stdout is not None
            assert "Forwarding from 127.0.0.1" in forward.stdout.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert answer.read().startswith(b"web-")
        finally:
            forward.terminate()


def test_cp_and_apply_in_the_callers_folder(workload: TestCluster, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("carried\n")
    workload.kubectl("cp", "note.txt", "caller-worker:/tmp/note.txt", cwd=tmp_path)
    assert workload.in_pod("caller-worker", "cat", "/tmp/note.txt") == "carried\n"
    workload.kubectl("cp", "caller-worker:/tmp/note.txt", "back.txt", cwd=tmp_path)
    assert (tmp_path / "back.txt").read_text() == "carried\n"
    map_ = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-file"}}
    (tmp_path / "map.json").write_text(json.dumps(map_))
    workload.kubectl("apply", "-f", "./map.json", cwd=tmp_path)
    assert workload.get("configmap", "from-file")["metadata"]["name"] == "from-file"


def test_memory_limit_kills(workload: TestCluster) -> None:
    hungry = manifests.pod(
        "hungry",
        workload.image,
        WORKER,
        ["python3", "-c", "b = bytearray(300_000_000); import time; time.sleep(600)"],
        resources={"limits": {"memory": "64Mi"}},
    )
    workload.apply(hungry)

    def ended() -> bool:
        return bool(workload.get("pod", "hungry")["status"]["phase"] == "Failed")

    eventually("the pod is killed", ended)
    state = workload.get("pod", "hungry")["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["reason"] == "OOMKilled"
    workload.kubectl("delete", "pod", "hungry")


def test_kubelets_never_see_each_others_pods(workload: TestCluster) -> None:
    """Each node's cgroup tree holds the containers of its own pods alone."""
    uids = {
        node: {
            pod["metadata"]["uid"].replace("-", "_")
            for pod in workload.get("pods", "-A")["items"]
            if pod["spec"].get("nodeName") == node
        }
        for node in (MASTER, WORKER)
    }
    for node in (MASTER, WORKER):
        roots = Path("/sys/fs/cgroup").glob(f"**/sykube/{node}")
        found = {
            match[1].replace("-", "_")
            for root in roots
            for folder in root.glob("**/*pod*")
            if (match := re.search(r"pod([0-9a-f][0-9a-f_-]{35})", folder.name))
        }
        other = WORKER if node == MASTER else MASTER
        assert found, f"no pod has a cgroup on {node}"
        assert not found & uids[other]


def test_commands_in_a_node(cluster: TestCluster) -> None:
    assert cluster.sykube("exec", "--name", "e2e", "node1", "hostname").stdout == f"{WORKER}\n"
    done = cluster.sykube(
        "exec",
        "--name",
        "e2e",
        "master",
        "--",
        "sh",
        "-c",
        "cat; exit 9",
        stdin="in\n",
        check=False,
    )
    assert (done.returncode, done.stdout) == (9, "in\n")
    absent = cluster.sykube("exec", "--name", "e2e", "node7", "true", check=False)
    assert absent.returncode == 2
    assert "master, node1" in absent.stderr


def test_supervisord_restarts_what_dies(cluster: TestCluster) -> None:
    def pid() -> str:
        return cluster.sykube(
            "exec", "--name", "e2e", "node1", "supervisorctl", "pid", "kubelet"
        ).stdout.strip()

    before = pid()
    cluster.sykube("exec", "--name", "e2e", "node1", "kill", "-9", before)
    eventually("the kubelet runs again", lambda: pid() not in (before, "0", ""))


def test_programs_in_go_keep_less_garbage_than_by_default(cluster: TestCluster) -> None:
    """Those of upstream's container images are as upstream has them."""
    programs = ["containerd", "kubelet", "containerd-shim"]
    if cluster.minor == 20:
        programs += ["kube-apiserver", "etcd", "kube-scheduler", "kube-proxy"]
    for program in programs:
        shown = f"tr '\\0' '\\n' < /proc/$(pgrep -o -x {program})/environ"
        done = cluster.sykube("exec", "--name", "e2e", "master", "--", "sh", "-c", shown)
        assert "GOGC=50" in done.stdout.splitlines(), program


def test_supervisord_has_only_what_it_needs(cluster: TestCluster) -> None:
    shown = "cat /proc/$(cat /run/supervisord.pid)/maps"
    maps = cluster.sykube("exec", "--name", "e2e", "node1", "--", "sh", "-c", shown).stdout
    assert "/python3" in maps
    assert "libssl" not in maps


def test_status(cluster: TestCluster) -> None:
    def status() -> dict[str, Any]:
        shown = cluster.sykube("status", "--name", "e2e", "--output", "json", check=False).stdout
        found: dict[str, Any] = json.loads(shown)
        return found

    # The test before ended a kubelet.
    eventually("all is well", lambda: status()["status"] == "healthy")
    found = status()
    assert [node["name"] for node in found["nodes"]] == ["master", "node1"]
    assert cluster.sykube("status", "--name", "absent", check=False).returncode == 5


def test_kubectl_reads_what_was_text_as_text(cluster: TestCluster, tmp_path: Path) -> None:
    """Its library takes scalars for numbers that YAML 1.1 does not: 433e40, 0o17, 1e3."""
    users = [{"name": text, "user": {"token": text}} for text in TEXTS if text]
    # JSON is YAML, but for pairs of surrogates, and every reader takes what stands in quotation
    # marks for text.
    content = json.dumps({"apiVersion": "v1", "kind": "Config", "users": users})
    content = content.replace(r"\ud83d\ude00", "😀")
    file = tmp_path / "others"
    file.write_text(content, encoding="utf-8")
    admin = cluster.sykube("config", "--name", "e2e").stdout
    kubeconfig.merge(Host(), file, admin, "433e41", Owner.of_caller())
    arguments = ("kubectl", "--name", "e2e", "--kubeconfig", str(file), "config", "view")
    seen = json.loads(cluster.sykube(*arguments, "--raw", "--output", "json").stdout)
    found = {each["name"]: each["user"].get("token") for each in seen["users"]}
    assert found == {text: text for text in TEXTS if text} | {"433e41": None}
    assert seen["current-context"] == "433e41"


def test_kubeconfig_is_private_and_works_with_plain_kubectl(cluster: TestCluster) -> None:
    assert stat.S_IMODE(cluster.kubeconfig.stat().st_mode) == 0o600
    state = json.loads(Path("/var/lib/sykube/e2e/state.json").read_text(encoding="utf-8"))
    nodes = subprocess.run(
        [f"{state['imageFolder']}/kubectl", "--context", "e2e", "get", "nodes", "-o", "name"],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert nodes.stdout.split() == [f"node/{MASTER}", f"node/{WORKER}"]


def test_no_secret_in_the_log(cluster: TestCluster) -> None:
    log = Path("/var/log/sykube/e2e.log")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    text = log.read_text(encoding="utf-8")
    assert "PRIVATE KEY" not in text
    assert "client-key-data" not in text
    assert not re.search(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", text), "a bootstrap token"


def test_init_again(cluster: TestCluster, resolver: Resolver) -> None:
    same = ("init", "--name", "e2e", *cluster.pod_options)
    again = cluster.sykube(*same, "--workers", "1")
    assert "is up" in again.stderr
    other = cluster.sykube(*same, "--workers", "2", check=False)
    assert other.returncode == 1
    assert "workers: 1 → 2" in other.stderr


@pytest.mark.long
def test_pods_survive_three_minutes(workload: TestCluster) -> None:
    """No pod of this cluster has restarted, but for those of the kubelet that a test killed."""
    started = {
        name: workload.get("pod", name)["status"]["startTime"]
        for name in ("caller-master", "caller-worker")
    }
    for name, text in started.items():
        began = time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        time.sleep(max(0.0, began + SURVIVAL_S - time.time()))
        status = workload.get("pod", name)["status"]
        assert status["phase"] == "Running"
        assert [c["restartCount"] for c in status["containerStatuses"]] == [0]
    for pod in workload.get("pods", "-A")["items"]:
        restarts = [c["restartCount"] for c in pod["status"]["containerStatuses"]]
        assert sum(restarts) == 0, pod["metadata"]["name"]


def test_delete_leaves_the_host_as_it_was(cluster: TestCluster) -> None:
    assert cluster.before is not None
    cluster.sykube("delete", "--name", "e2e", "--yes")
    leaks = leaks_since(cluster.before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
    assert not cluster.kubeconfig.exists()
    assert cluster.sykube("status", "--name", "e2e", check=False).returncode == 5
