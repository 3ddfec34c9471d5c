"""A real cluster that is stopped, started, paused, limited, grown and shrunk."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.host.host import Host
from sykube.node import launch
from sykube.node.limits import parse_memory
from tests.e2e import manifests
from tests.e2e.cluster import TestCluster, eventually, free_port, host_before
from tests.hostdiff import leaks_since

NAME = "e2e-life"
MASTER, WORKER = f"{NAME}-master", f"{NAME}-node1"
LIMITS = ("--cpus", "1.5", "--memory", "3Gi", "--pids", "3000")
MEMORY = 3 * 1024**3
# Both nodes are tainted alike, so that pods go where they would go without.
TAINT = {"key": "life", "value": "yes", "effect": "PreferNoSchedule"}
CONFIG = """\
apiVersion: sykube/v1alpha1
kind: Cluster
featureGates: {HPAScaleToZero: true}
runtimeConfig: {api/alpha: "false"}
kubeletConfigPatches:
- maxPods: 77
# Else the kubelet may be sooner than the kernel, and evict pods that later tests look for.
- evictionHard: {memory.available: 1Mi}
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  controllerManager:
    extraArgs:
      terminated-pod-gc-threshold: "777"
- kind: JoinConfiguration
  nodeRegistration: {kubeletExtraArgs: {node-labels: of-patch=yes}}
kubeadmConfigPatchesJSON6902:
- kind: ClusterConfiguration
  patch: |
    - {op: add, path: /apiServer/certSANs/-, value: life.example}
containerdConfigPatches:
- |
  version = 2
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.patched]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.patched.options]
    BinaryName = "/usr/bin/runc"
nodes:
- role: control-plane
  labels: {tier: front}
  taints: [life=yes:PreferNoSchedule]
- role: worker
  labels: {tier: back, node-role.kubernetes.io/life: ""}
  taints: [life=yes:PreferNoSchedule]
  pids: 3100
  mounts: ["FOLDER:/srv/of-the-worker:ro"]
  ports: ["PORT:30081"]
"""
# Counts in a volume of its own; each number is written before the next one.
COUNTER = (
    "n=$(cat /data/count 2>/dev/null || echo 0); "
    "while :; do n=$((n+1)); echo $n > /data/new; mv /data/new /data/count; sleep 0.2; done"
)

# Says after its end whether the API server was still there, a while after it was told to end.
LAST_WORD = """
import os, signal, socket, sys, time
def end(*_):
    time.sleep(3)
    try:
        socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), 2).close()
        word = "it was there"
    except OSError as error:
        word = repr(error)
    with open("/data/word", "w") as file:
        file.write(word)
    sys.exit()
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(1)
"""

# kind's file, with audit logs as in kind's guide to them.
KIND_FILE = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  apiServerPort: {api_port}
  dnsSearch: [corp.example]
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer:
    extraArgs:
      audit-log-path: /var/log/kubernetes/audit.log
      audit-policy-file: /etc/kubernetes/policies/policy.yaml
    extraVolumes:
    - name: audit-policies
      hostPath: /etc/kubernetes/policies
      mountPath: /etc/kubernetes/policies
      readOnly: true
      pathType: DirectoryOrCreate
    - name: audit-logs
      hostPath: /var/log/kubernetes
      mountPath: /var/log/kubernetes
      pathType: DirectoryOrCreate
containerdConfigPatchesJSON6902:
- |
  - {{op: add, path: /metrics, value: {{address: "127.0.0.1:1338"}}}}
nodes:
- role: control-plane
  labels: {{ingress-ready: true}}
  kubeadmConfigPatches:
  - |
    kind: InitConfiguration
    nodeRegistration:
      kubeletExtraArgs:
        node-labels: zone=first
  extraMounts: &mounts
  - hostPath: ./policy.yaml
    containerPath: /etc/kubernetes/policies/policy.yaml
    readOnly: true
- &other
  role: control-plane
  kubeadmConfigPatches:
  - |
    kind: JoinConfiguration
    nodeRegistration:
      kubeletExtraArgs:
        node-labels: zone=other
  extraMounts: *mounts
- *other
"""
POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  resources: [{group: "", resources: [configmaps]}]
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Two nodes with limits, a Deployment with its Service, and a pod that counts."""
    cluster = TestCluster(NAME, tmp_path_factory.mktemp("life"))
    cluster.delete_quietly()
    cluster.before = host_before(NAME)
    file = cluster.folder / "cluster.yaml"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    text = CONFIG.replace("FOLDER", str(cluster.folder)).replace("PORT", port)
    file.write_text(text, encoding="utf-8")
    cluster.init(*asked(cluster))
    counter = manifests.pod("counter", cluster.image, WORKER, ["sh", "-c", COUNTER])
    last_word = manifests.pod("last-word", cluster.image, MASTER, ["python3", "-c", LAST_WORD])
    for each in (counter, last_word):
        each["spec"]["restartPolicy"] = "Always"
        each["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
        each["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    cluster.apply(
        manifests.deployment("web", cluster.image, 2),
        manifests.service("web", "web", type="NodePort"),
        counter,
        last_word,
    )
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    for name in ("counter", "last-word"):
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    yield cluster
    cluster.delete_quietly()


def asked(cluster: TestCluster) -> tuple[str, ...]:
    """What its init is given."""
    return ("--config", str(cluster.folder / "cluster.yaml"), "--dns", "127.0.0.1", *LIMITS)


def sykube(cluster: TestCluster, *arguments: str) -> str:
    """Run a command of a cluster; what it says on standard error."""
    return cluster.sykube(*arguments, "--name", cluster.name).stderr


def status_code(cluster: TestCluster) -> int:
    return cluster.sykube("status", "--name", cluster.name, check=False).returncode


def count(cluster: TestCluster) -> int:
    return int(cluster.in_pod("counter", "cat", "/data/count"))


def addresses(cluster: TestCluster) -> dict[str, str]:
    """Of nodes and Services."""
    nodes = cluster.get("nodes")["items"]
    services = cluster.get("services", "-A")["items"]
    return {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in nodes} | {
        s["metadata"]["name"]: s["spec"]["clusterIP"] for s in services
    }


def pods(cluster: TestCluster) -> dict[str, str]:
    """Each pod's name and UID."""
    found = cluster.get("pods", "-A")["items"]
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def web_answers(cluster: TestCluster, node: str = WORKER) -> bool:
    """Whether the Service answers the host on a node."""
    port = cluster.get("service", "web")["spec"]["ports"][0]["nodePort"]
    address = addresses(cluster)[node]
    done = subprocess.run(
        [sys.executable, "-c", "import sys,urllib.request as r; r.urlopen(sys.argv[1], timeout=5)",
         f"http://{address}:{port}/"],
        stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode == 0


def cgroup_value(instance: str, names: tuple[str, str]) -> str:
    """A limit of a node, by its file's name on cgroup v1 and v2."""
    root = Path("/sys/fs/cgroup")
    v2 = root / "sykube" / instance / names[1]
    if v2.exists():
        return v2.read_text().strip()
    (file,) = {path.resolve() for path in root.glob(f"*/sykube/{instance}/{names[0]}")}
    return file.read_text().strip()


# --- limits ---


def test_the_kernel_holds_nodes_to_their_limits(life: TestCluster) -> None:
    for node in (MASTER, WORKER):
        assert cgroup_value(node, ("memory.limit_in_bytes", "memory.max")) == str(MEMORY)
        quota = cgroup_value(node, ("cpu.cfs_quota_us", "cpu.max")).split()[0]
        assert quota == "150000"
        pids = "3100" if node == WORKER else "3000"
        assert cgroup_value(node, ("pids.max", "pids.max")) == pids


def test_the_scheduler_knows_the_limits(life: TestCluster) -> None:
    for node in life.get("nodes")["items"]:
        allocatable = node["status"]["allocatable"]
        assert allocatable["cpu"] in ("1500m", "1.5")
        assert MEMORY * 0.9 < parse_memory(allocatable["memory"]) <= MEMORY
    greedy = manifests.pod("greedy", life.image, "", ["sleep", "1000"])
    del greedy["spec"]["nodeName"]
    greedy["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1600m"}}
    life.apply(greedy)

    def refused() -> bool:
        conditions = life.get("pod", "greedy")["status"].get("conditions", [])
        return any("Insufficient cpu" in c.get("message", "") for c in conditions)

    eventually("the scheduler finds no node for it", refused)
    life.kubectl("delete", "pod", "greedy", "--wait=false")


def test_a_pod_without_limits_is_stopped_at_the_nodes(life: TestCluster) -> None:
    program = "b = bytearray(3 * 1024**3); import time; time.sleep(600)"
    life.apply(manifests.pod("hungry", life.image, WORKER, ["python3", "-c", program]))

    def killed() -> bool:
        return bool(life.get("pod", "hungry")["status"]["phase"] == "Failed")

    eventually("the kernel kills it", killed, timeout=120)
    (status,) = life.get("pod", "hungry")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"
    life.kubectl("delete", "pod", "hungry")
    eventually("the rest of the node is well", lambda: status_code(life) == 0)


# --- what the configuration file asks for ---


def test_nodes_have_their_labels_and_taints(life: TestCluster) -> None:
    master, worker = life.get("node", MASTER), life.get("node", WORKER)
    assert master["metadata"]["labels"]["tier"] == "front"
    assert "of-patch" not in master["metadata"]["labels"]
    wanted = {"tier": "back", "node-role.kubernetes.io/life": "", "of-patch": "yes"}
    assert worker["metadata"]["labels"].items() >= wanted.items()
    assert master["spec"]["taints"] == worker["spec"]["taints"] == [TAINT]


def test_kubelets_run_with_the_patch_and_the_feature_gate(life: TestCluster) -> None:
    for node in (MASTER, WORKER):
        configz = life.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz")
        config = json.loads(configz)["kubeletconfig"]
        assert config["maxPods"] == 77
        assert config["featureGates"]["HPAScaleToZero"] is True


def test_the_control_plane_runs_with_the_patches_and_the_feature_gate(life: TestCluster) -> None:
    def command(component: str) -> list[str]:
        selector = ("-n", "kube-system", "-l", f"component={component}")
        (pod,) = life.get("pods", *selector)["items"]
        return list(pod["spec"]["containers"][0]["command"])

    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert "--feature-gates=HPAScaleToZero=true" in command(component)
    assert "--runtime-config=api/alpha=false" in command("kube-apiserver")
    assert "--terminated-pod-gc-threshold=777" in command("kube-controller-manager")
    certificate = life.sykube(
        *("exec", "--name", NAME, "master", "openssl", "x509", "-noout", "-ext", "subjectAltName"),
        *("-in", "/etc/kubernetes/pki/apiserver.crt"),
    ).stdout
    assert "DNS:life.example" in certificate
    proxy = life.get("configmap", "-n", "kube-system", "kube-proxy")["data"]["config.conf"]
    assert "HPAScaleToZero: true" in proxy


def test_containerd_runs_pods_by_the_runtime_of_the_patch(life: TestCluster) -> None:
    runtime = {
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "patched"},
        "handler": "patched",
    }  # fmt: skip
    made = manifests.pod("patched", life.image, WORKER, ["sleep", "100000"])
    made["spec"]["runtimeClassName"] = "patched"
    life.apply(runtime, made)
    life.kubectl("wait", "pod/patched", "--for=condition=Ready", "--timeout=120s")
    life.kubectl("delete", "pod/patched", "runtimeclass/patched")


def test_a_node_has_folders_and_ports_of_its_own(life: TestCluster) -> None:
    inside = ("exec", "--name", NAME, "node1", "ls", "/srv/of-the-worker")
    assert "cluster.yaml" in life.sykube(*inside).stdout.split()
    other = ("exec", "--name", NAME, "master", "ls", "/srv/of-the-worker")
    assert life.sykube(*other, check=False).returncode != 0
    assert ":30081@node1\n" in life.sykube("port", "list", "--name", NAME).stdout


# --- stop, start, pause ---


def test_stop_and_start_lose_nothing(life: TestCluster) -> None:
    before, where, counted = pods(life), addresses(life), count(life)
    life.kubectl("create", "configmap", "kept", "--from-literal=answer=42")
    sykube(life, "stop")
    assert status_code(life) == 3
    assert "stopped" in life.sykube("list").stdout
    assert not [i for i in instances() if i.startswith(f"{NAME}-")]
    assert not Path(f"/sys/class/net/sk-{NAME}").exists()
    refused = life.sykube("kubectl", "--name", NAME, "get", "nodes", check=False)
    assert refused.returncode == 3
    assert f"sykube start --name {NAME}" in refused.stderr
    assert "was stopped already" in sykube(life, "stop")

    # Until its end the host's name is not that under which the nodes are started.
    life.prefix = launch.wrapper(hostname="e2e-renamed")
    sykube(life, "start")
    life.prefix = ()
    assert status_code(life) == 0
    assert life.sykube("exec", "--name", NAME, "node1", "hostname").stdout.strip() == WORKER
    assert pods(life) == before
    assert addresses(life) == where
    assert life.get("configmap", "kept")["data"] == {"answer": "42"}
    assert count(life) >= counted
    eventually("the Service answers", lambda: web_answers(life))
    # Pods end before the control plane does.
    assert life.in_pod("last-word", "cat", "/data/word") == "it was there"


def test_start_of_a_cluster_that_is_up_says_so(life: TestCluster) -> None:
    assert "as it was" in sykube(life, "start")


def test_pause_freezes_and_unpause_goes_on(life: TestCluster) -> None:
    restarts = life.get("pod", "counter")["status"]["containerStatuses"][0]["restartCount"]
    file = next(Path(f"/var/lib/sykube/{NAME}/nodes/{WORKER}/kubelet/pods").glob("*/**/data/count"))
    sykube(life, "pause")
    assert status_code(life) == 3
    frozen = file.read_text()
    time.sleep(2)
    assert file.read_text() == frozen, "it goes on counting"
    refused = life.sykube("pause", "--name", NAME, check=False)
    assert refused.returncode == 0, "pausing twice changes nothing"
    sykube(life, "unpause")
    assert status_code(life) == 0
    eventually("it goes on counting", lambda: count(life) > int(frozen))
    status = life.get("pod", "counter")["status"]["containerStatuses"][0]
    assert status["restartCount"] == restarts
    again = life.sykube("unpause", "--name", NAME, check=False)
    assert again.returncode == 1
    assert "is not paused" in again.stderr


def test_a_second_command_says_who_holds_the_lock(life: TestCluster) -> None:
    restart = subprocess.Popen(
        [sys.executable, "-m", "sykube", "restart", "--name", NAME],
        env=life.environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    lock = Path(f"/run/sykube/{NAME}.lock")
    eventually(
        "it holds the lock",
        lambda: lock.exists() and lock.read_text(encoding="utf-8") == str(restart.pid),
    )
    refused = life.sykube("stop", "--name", NAME, check=False)
    assert refused.returncode == 7
    assert f"process {restart.pid}" in refused.stderr
    assert restart.wait(timeout=300) == 0
    assert status_code(life) == 0


def test_the_systemd_unit_starts_and_stops_it(life: TestCluster) -> None:
    unit = Path(f"/etc/systemd/system/sykube-{NAME}.service")
    sykube(life, "autostart", "enable")
    sykube(life, "autostart", "enable")
    assert shutil.which("systemd-analyze"), "scripts/test-packages installs it"
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    commands = dict(
        re.findall(r"^(ExecStart|ExecStop)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    )
    wanted = unit.parent / "multi-user.target.wants" / unit.name
    assert wanted.is_symlink()
    for key, code in (("ExecStop", 3), ("ExecStart", 0)):
        subprocess.run(shlex.split(commands[key]), check=True, cwd="/", timeout=400,
                       env={"PATH": "/usr/bin:/bin"}, stderr=subprocess.DEVNULL)  # fmt: skip
        assert status_code(life) == code
    sykube(life, "autostart", "disable")
    assert not unit.exists() and not wanted.is_symlink()


# --- nodes that come and go ---


def test_workers_join_and_leave(life: TestCluster) -> None:
    assert "node2 joined" in sykube(life, "node", "add")
    assert status_code(life) == 0
    listed = json.loads(life.sykube("node", "list", "--name", NAME, "-o", "json").stdout)
    assert [node["name"] for node in listed] == ["master", "node1", "node2"]
    new = f"{NAME}-node2"
    assert life.get("node", new)["metadata"]["labels"]["of-patch"] == "yes"
    assert life.get("node", new)["status"]["capacity"]["pods"] == "77"
    life.apply(manifests.pod("far", life.image, new, ["sleep", "100000"]))
    life.kubectl("wait", "--for=condition=Ready", "pod/far", "--timeout=60s")
    for pod in life.get("pods", "-l", "app=web")["items"]:
        assert life.fetch("far", f"http://{pod['status']['podIP']}:8080/")
    assert web_answers(life, new), "kube-proxy works there"

    # A pod without a controller would be lost.
    refused = life.sykube("node", "delete", "node2", "--name", NAME, check=False)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert not life.get("node", new)["spec"].get("unschedulable")
    life.kubectl("delete", "pod", "far", "--grace-period=1")
    assert "node2 left" in sykube(life, "node", "delete", "node2")
    assert {node["metadata"]["name"] for node in life.get("nodes")["items"]} == {MASTER, WORKER}
    assert not Path(f"/var/lib/sykube/{NAME}/nodes/{new}").exists()
    routes = life.sykube("exec", "--name", NAME, "node1", "ip", "route").stdout
    assert "10.244.2.0/24" not in routes
    assert status_code(life) == 0
    unknown = life.sykube("node", "delete", "node7", "--name", NAME, check=False)
    assert unknown.returncode == 2
    master = life.sykube("node", "delete", "master", "--name", NAME, check=False)
    assert (master.returncode, "is a control plane" in master.stderr) == (2, True)


def test_a_cluster_is_as_asked_after_its_nodes_changed(life: TestCluster) -> None:
    again = life.sykube("init", "--name", NAME, *asked(life))
    assert "is up" in again.stderr


# --- clusters side by side ---


def test_clusters_made_at_the_same_time_live_side_by_side(life: TestCluster) -> None:
    others = [TestCluster(name, life.folder) for name in ("e2e-life2", "e2e-life3")]
    for other in others:
        other.delete_quietly()
    small = ("--workers", "0", "--ephemeral", "--dns", "127.0.0.1")
    try:
        inits = [
            subprocess.Popen(other.init_command(*small), env=other.environment) for other in others
        ]
        assert [init.wait(timeout=600) for init in inits] == [0, 0]
        everyone = [life, *others]
        assert [status_code(each) for each in everyone] == [0, 0, 0]
        listed = {
            c["name"]: c["state"] for c in json.loads(life.sykube("list", "-o", "json").stdout)
        }
        nodes = [
            node["status"]["addresses"][0]["address"]
            for each in everyone
            for node in each.get("nodes")["items"]
        ]
        assert len(set(nodes)) == len(nodes) == 4
        contexts = life.kubeconfig.read_text()
        for each in everyone:
            assert listed[each.name] == "running"
            assert f"name: {each.name}" in contexts
    finally:
        for other in others:
            other.sykube("delete", "--name", other.name, "--yes")
    assert status_code(life) == 0
    eventually("the Service answers", lambda: web_answers(life))


def test_delete_of_all_leaves_the_host_as_it_was(life: TestCluster) -> None:
    sykube(life, "autostart", "enable")
    life.sykube("delete", "--name", NAME, "--yes")
    assert life.before is not None
    leaks = leaks_since(life.before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
    assert not Path(f"/etc/systemd/system/sykube-{NAME}.service").exists()


# --- control planes that stand in for each other ---


@pytest.mark.long
def test_losing_a_control_plane_loses_nothing(tmp_path: Path) -> None:
    cluster = TestCluster("e2e-ha", tmp_path)
    cluster.delete_quietly()
    before = host_before(cluster.name)
    api_port = free_port()
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "kind.yaml").write_text(KIND_FILE.format(api_port=api_port))
    cluster.init("--config", "kind.yaml", "--dns", "127.0.0.1", "--ephemeral", cwd=tmp_path)
    acknowledged = []

    def write(number: int) -> bool:
        words = ("--request-timeout=5s", "create", "configmap", f"n-{number}")
        done = "created" in cluster.kubectl(*words, check=False)
        if done:
            acknowledged.append(f"n-{number}")
        return done

    try:
        cluster.apply(
            manifests.deployment("web", cluster.image, 2),
            manifests.service("web", "web", type="NodePort"),
        )
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
        for node in ("master", "master2", "master3"):
            eventually(
                f"{node} knows of a new Service",
                lambda node=node: web_answers(cluster, f"{cluster.name}-{node}"),  # type: ignore[misc]
            )
        for number in range(5):
            assert write(number)
        nodes_are_as_kinds_file_says(cluster)
        pid = instances()[f"{cluster.name}-master"]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        numbers = iter(range(5, 1000))
        eventually("another takes over", lambda: write(next(numbers)), timeout=60)
        assert all(write(next(numbers)) for _ in range(5))
        server = f"--server=https://127.0.0.1:{api_port}"
        assert cluster.kubectl(server, "get", "--raw", "/readyz") == "ok"
        found = cluster.sykube("status", "--name", cluster.name, check=False)
        assert found.returncode == 4
        assert re.search(r"^  master .*stopped", found.stdout, re.MULTILINE)
        eventually("names are answered", lambda: dns_answers(cluster), timeout=120)
        sykube(cluster, "start")
        assert status_code(cluster) == 0
        maps = {each["metadata"]["name"] for each in cluster.get("configmaps")["items"]}
        assert set(acknowledged) <= maps
        cluster.sykube("delete", "--name", cluster.name, "--yes")
        leaks = leaks_since(before)
        assert not leaks, "\n".join(str(leak) for leak in leaks)
    finally:
        cluster.delete_quietly()


def nodes_are_as_kinds_file_says(cluster: TestCluster) -> None:
    nodes = {each["metadata"]["name"]: each for each in cluster.get("nodes")["items"]}
    audited = ""
    for name, zone in (("master", "first"), ("master2", "other"), ("master3", "other")):
        node, inside = nodes[f"{cluster.name}-{name}"], ("exec", "--name", cluster.name, name)
        assert node["metadata"]["labels"]["zone"] == zone
        assert not node["spec"].get("taints")
        resolv_conf = cluster.sykube(*inside, "cat", "/etc/resolv.conf").stdout
        assert "search corp.example" in resolv_conf
        # containerd's metrics: port 1338 of loopback, which listens.
        sockets = cluster.sykube(*inside, "cat", "/proc/net/tcp").stdout
        assert " 0100007F:053A 00000000:0000 0A " in sockets
        # Each API server logs what it was asked itself; one may have been asked nothing.
        log = ("cat", "/var/log/kubernetes/audit.log")
        audited += cluster.sykube(*inside, *log, check=False).stdout
    assert nodes[f"{cluster.name}-master"]["metadata"]["labels"]["ingress-ready"] == "true"
    assert '"name":"n-0"' in audited


def dns_answers(cluster: TestCluster) -> bool:
    found = cluster.sykube("status", "--name", cluster.name, check=False)
    return "  DNS: healthy" in found.stdout


def instances() -> dict[str, int]:
    """Instances on this machine and their first processes."""
    from sykube.host import engines
    from sykube.node.engine import CommandLineEngine

    found = engines.find(Host())
    assert found
    engine = CommandLineEngine(Host(), found.binary, None, found.environment)
    return {name: each.pid for name, each in engine.instances().items()}
