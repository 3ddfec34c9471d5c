"""What people reach for in the first hour: volumes, folders and ports of the host, Services."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.model import lookup
from sykube.errors import ExitCode
from sykube.host.host import Host
from sykube.network.bridge import Bridge
from sykube.ui import Ui
from tests.e2e import manifests
from tests.e2e.cluster import TestCluster, eventually, free_port, host_before
from tests.hostdiff import leaks_since

NAME = "e2e-day"
NODE_PORT = 30080


@pytest.fixture(scope="module")
def host_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def day(host_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Two nodes that see a folder of the host, and a port of the host that leads to them."""
    made = TestCluster(NAME, tmp_path_factory.mktemp("day"))
    made.delete_quietly()
    made.before = host_before(NAME)
    home = made.folder / "home"
    home.mkdir()
    (home / "greeting").write_text("hello\n")
    made.init(
        *("--workers", "1", "--dns", "192.0.2.53", "--yes"),
        *("--port", f"{host_port}:{NODE_PORT}"),
        *("--mount", f"{home}:/home/of/the-host", "--mount", f"{home}:/srv/home:ro"),
    )
    yield made
    made.delete_quietly()


@pytest.fixture(scope="module")
def web(day: TestCluster) -> str:
    """A Deployment with a pod on each node, and a Service of each type for it."""
    day.apply(
        manifests.deployment("web", day.image, 2),
        manifests.service("inside", "web"),
        manifests.service("headless", "web", clusterIP="None"),
        manifests.service(
            "outside",
            "web",
            type="NodePort",
            ports=[{"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        ),
        manifests.service("balanced", "web", type="LoadBalancer"),
    )
    day.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    return "web"


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def answers(url: str) -> Callable[[], bool]:
    def check() -> bool:
        try:
            return bool(fetch(url))
        except OSError:
            return False

    return check


# --- volumes ---


def claim(name: str, size: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        }
        | spec,
    }


def pod_with(day: TestCluster, name: str, node: str, claim_name: str) -> dict[str, Any]:
    """A pod that sleeps, as an ordinary user, with a claim at /data."""
    made = manifests.pod(name, day.image, f"{NAME}-{node}", ["sleep", "3600"])
    spec = made["spec"]
    spec["securityContext"] = {"runAsUser": 12345, "runAsGroup": 12345}
    spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}]
    return made


def folders() -> set[str]:
    return {path.name for path in Path(f"/var/lib/sykube/{NAME}/volumes").iterdir()}


def test_a_claim_binds_without_further_ado_and_its_volume_outlives_pod_and_stop(
    day: TestCluster,
) -> None:
    day.apply(claim("data", "100Mi"), pod_with(day, "writer", "node1", "data"))
    day.kubectl("wait", "pod/writer", "--for=condition=Ready", "--timeout=120s")
    day.in_pod("writer", "sh", "-c", "echo kept > /data/file && sync")
    day.kubectl("delete", "pod", "writer")
    day.sykube("stop", "--name", NAME)
    day.sykube("start", "--name", NAME)
    # On the other node, too.
    day.apply(pod_with(day, "reader", "master", "data"))
    day.kubectl("wait", "pod/reader", "--for=condition=Ready", "--timeout=120s")
    assert day.in_pod("reader", "cat", "/data/file") == "kept\n"
    assert len(folders()) == 1


def test_a_volume_goes_with_its_claim(day: TestCluster) -> None:
    day.kubectl("delete", "pod/reader", "pvc/data")
    eventually("its folder is gone", lambda: folders() == set())
    eventually("its volume is gone", lambda: day.get("pv")["items"] == [])


def test_several_nodes_write_to_one_volume_of_the_class_for_it(day: TestCluster) -> None:
    many = {"accessModes": ["ReadWriteMany"], "storageClassName": "shared"}
    day.apply(
        claim("both", "10Mi", **many),
        pod_with(day, "one", "master", "both"),
        pod_with(day, "two", "node1", "both"),
    )
    day.kubectl("wait", "pod/one", "pod/two", "--for=condition=Ready", "--timeout=120s")
    day.in_pod("one", "sh", "-c", "echo from one > /data/one")
    day.in_pod("two", "sh", "-c", "cat /data/one > /data/two")
    assert day.in_pod("one", "cat", "/data/two") == "from one\n"
    day.kubectl("delete", "pod/one", "pod/two", "pvc/both")
    eventually("its folder is gone", lambda: folders() == set())


@pytest.mark.parametrize(
    ("size", "spec", "words"),
    [
        ("900Ti", {}, "MB free"),
        ("1Mi", {"accessModes": ["ReadWriteMany"]}, "storageClassName: shared"),
    ],
)
def test_a_claim_that_cannot_be_met_says_why_where_users_look(
    day: TestCluster, size: str, spec: dict[str, Any], words: str
) -> None:
    before = folders()
    day.apply(claim("refused", size, **spec))
    eventually("it says why", lambda: words in day.kubectl("describe", "pvc", "refused"))
    assert day.get("pvc", "refused")["status"]["phase"] == "Pending"
    assert folders() == before
    day.kubectl("delete", "pvc", "refused")


# --- folders of the host ---


def test_nodes_see_the_folders_of_the_host(day: TestCluster) -> None:
    for node in ("master", "node1"):
        done = day.sykube("exec", "--name", NAME, node, "cat", "/home/of/the-host/greeting")
        assert done.stdout == "hello\n"
    day.sykube("exec", "--name", NAME, "node1", "touch", "/home/of/the-host/written")
    assert (day.folder / "home/written").exists()
    refused = day.sykube("exec", "--name", NAME, "node1", "touch", "/srv/home/never", check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


# --- ports and Services ---


def test_a_port_of_the_host_leads_to_the_nodes_from_init_on(
    day: TestCluster, web: str, host_port: int
) -> None:
    eventually("it answers", answers(f"http://127.0.0.1:{host_port}/"))
    assert fetch(f"http://127.0.0.1:{host_port}/").startswith(web)


def test_ports_come_and_go_while_the_cluster_runs(day: TestCluster, web: str) -> None:
    port = free_port()
    text = f"0.0.0.0:{port}:{NODE_PORT}@node1"
    for _ in range(2):
        day.sykube("port", "add", text, "--name", NAME)
    assert text in day.sykube("port", "list", "--name", NAME).stdout.split()
    gateway = Bridge(Host(), NAME).addresses()[0].split("/")[0]
    for host in ("127.0.0.1", gateway):
        eventually(f"{host} answers", answers(f"http://{host}:{port}/"))
    day.sykube("port", "delete", str(port), "--name", NAME)
    assert text not in day.sykube("port", "list", "--name", NAME).stdout.split()
    assert not answers(f"http://127.0.0.1:{port}/")()
    again = day.sykube("port", "delete", str(port), "--name", NAME, check=False)
    assert (again.returncode, again.stdout) == (ExitCode.FAILED, "")


def rules() -> str:
    return subprocess.run(
        ["iptables-save"], capture_output=True, text=True, check=True
    ).stdout.split("# Completed")[0]


def test_a_port_that_is_in_use_is_refused_and_nothing_changes(
    day: TestCluster, host_port: int
) -> None:
    before = day.sykube("port", "list", "--name", NAME).stdout
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        for wanted, words in (
            (f"{taken}:{NODE_PORT}", "is in use on this host"),
            (f"{host_port}:{NODE_PORT}@node1", f"leads to the cluster {NAME}"),
            (f"{free_port()}:80@node7", "has no node 'node7'"),
            ("http:80", "is not [ADDRESS:]HOST:NODE"),
        ):
            done = day.sykube("port", "add", wanted, "--name", NAME, check=False)
            assert done.returncode in (ExitCode.USAGE, ExitCode.HOST_NOT_READY)
            assert words in done.stderr
    assert day.sykube("port", "list", "--name", NAME).stdout == before


def test_a_load_balancer_has_an_address_that_the_host_reaches(day: TestCluster, web: str) -> None:
    def ingress() -> list[dict[str, str]]:
        status = day.get("service", "balanced")["status"]
        found: list[dict[str, str]] = status.get("loadBalancer", {}).get("ingress", [])
        return found

    eventually("it has an address", ingress)
    address = ingress()[0]["ip"]
    assert address != day.get("service", "balanced")["spec"]["clusterIP"]
    eventually("it answers", answers(f"http://{address}/"))
    day.kubectl("patch", "service", "balanced", "-p", '{"spec": {"type": "ClusterIP"}}')
    eventually("its address is taken back", lambda: not ingress())
    day.kubectl("patch", "service", "balanced", "-p", '{"spec": {"type": "LoadBalancer"}}')


def test_a_load_balancer_holds_to_source_ranges_and_to_its_traffic_policy(
    day: TestCluster, web: str
) -> None:
    gateway = str(IPv4Interface(Bridge(Host(), NAME).addresses()[0]).ip)
    day.apply(
        manifests.service(
            "for-us", "web", type="LoadBalancer", loadBalancerSourceRanges=[f"{gateway}/32"]
        ),
        manifests.service(
            "for-others", "web", type="LoadBalancer", loadBalancerSourceRanges=["192.0.2.0/24"]
        ),
        manifests.service("local", "web", type="LoadBalancer", externalTrafficPolicy="Local"),
        manifests.service("elsewhere", "web", type="LoadBalancer", loadBalancerIP="192.0.2.1"),
    )

    def address(name: str) -> str:
        ingress = day.get("service", name)["status"]["loadBalancer"].get("ingress", [])
        return ingress[0]["ip"] if ingress else ""

    names = ("for-us", "for-others", "local")
    eventually("they have addresses", lambda: all(map(address, names)))
    eventually("who is named is let in", answers(f"http://{address('for-us')}/"))
    eventually("its pod is reached", answers(f"http://{address('local')}/"))
    # Its pod sees this host, and no node in its place.
    assert fetch(f"http://{address('local')}/").split()[1] == gateway
    with pytest.raises(OSError):
        fetch(f"http://{address('for-others')}/")

    def events() -> str:
        return day.kubectl("get", "events", "--field-selector", "involvedObject.name=elsewhere")

    eventually("a refusal is said", lambda: "192.0.2.1 is not one of" in events())
    assert not address("elsewhere")
    day.kubectl("delete", "service", *names, "elsewhere")


@pytest.mark.parametrize(
    ("service", "ways"),
    [
        ("inside", {"cluster address"}),
        ("outside", {"host port", "cluster address", "node port"}),
        ("balanced", {"load balancer", "node port"}),
    ],
)
def test_service_prints_addresses_that_work(
    day: TestCluster, web: str, service: str, ways: set[str]
) -> None:
    def look() -> list[dict[str, str]]:
        done = day.sykube("service", service, "--name", NAME, "-o", "json", check=False)
        found: list[dict[str, str]] = json.loads(done.stdout or "[]")
        return found

    eventually("all ways are there", lambda: {each["by"] for each in look()} == ways)
    urls = day.sykube("service", service, "--name", NAME).stdout.split()
    assert urls == [each["url"] for each in look()]
    assert all(fetch(url).startswith(web) for url in urls)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no Service 'nothing'"),
        (["web", "-n", "nowhere"], "in the namespace 'nowhere'"),
        (["headless"], "no address of the Service headless answers"),
    ],
)
def test_a_service_that_is_not_to_be_reached_is_said(
    day: TestCluster, web: str, arguments: list[str], words: str
) -> None:
    done = day.sykube("service", *arguments, "--name", NAME, check=False)
    assert done.returncode in (ExitCode.FAILED, ExitCode.DEGRADED)
    assert done.stdout == ""
    assert words in done.stderr


# --- cures of docs/troubleshooting.md ---


def test_a_file_goes_into_a_pod_whole(day: TestCluster, web: str) -> None:
    """containerd loses input of a command that closes its output; this one does not."""
    text = "0123456789abcdef" * 300_000
    pod = day.get("pods", "-l", f"app={web}")["items"][0]["metadata"]["name"]
    day.kubectl("exec", "-i", pod, "--", "sh", "-c", "cat > /tmp/file; true", stdin=text)
    found = day.in_pod(pod, "sha256sum", "/tmp/file").split()[0]
    assert found == hashlib.sha256(text.encode()).hexdigest()


def test_a_cron_job_goes_on_after_a_stop_of_two_days(day: TestCluster) -> None:
    container = {"name": "main", "image": day.image, "command": ["true"]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}
    cluster = lookup.load(Host(), NAME, Ui(quiet=True))
    version = cluster.minor.cron_jobs_api
    job = {"apiVersion": version, "kind": "CronJob", "metadata": {"name": "often"}, "spec": spec}
    day.apply(job)
    stopped = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with cluster.api() as api:
        api.request(
            "PATCH",
            f"/apis/{version}/namespaces/default/cronjobs/often/status",
            {"status": {"lastScheduleTime": stopped}},
            content_type="application/merge-patch+json",
        )
    about = ("get", "events", "--field-selector", "involvedObject.name=often")
    eventually("it is said", lambda: "too many missed start time" in day.kubectl(*about))
    day.kubectl("patch", "cronjob", "often", "-p", '{"spec":{"startingDeadlineSeconds":300}}')
    eventually("it starts a Job", lambda: "SuccessfulCreate" in day.kubectl(*about))
    day.kubectl("delete", "cronjob", "often")


def test_a_kubelet_that_starts_removes_what_is_left_of_a_pod(day: TestCluster) -> None:
    left = "/var/lib/kubelet/pods/11111111-2222-3333-4444-555555555555"
    inside = ("exec", "--name", NAME, "node1")
    day.sykube(*inside, "mkdir", "-p", f"{left}/volumes/kubernetes.io~empty-dir/cache")
    day.sykube(*inside, "supervisorctl", "restart", "kubelet")
    eventually("it is gone", lambda: day.sykube(*inside, "ls", left, check=False).returncode)
    day.kubectl("wait", "--for=condition=Ready", f"node/{NAME}-node1", "--timeout=60s")


# --- add-ons ---


def test_add_ons_go_off_and_on(day: TestCluster) -> None:
    assert day.sykube("addons", "list", "--name", NAME).stdout.split("\n")[0].split()[1] == "on"
    day.sykube("addons", "disable", "storage", "--name", NAME)
    assert day.get("storageclass")["items"] == []
    pods = ("get", "pods", "-n", "kube-system", "-o", "name")
    eventually("its pod is gone", lambda: "pod/storage-" not in day.kubectl(*pods))
    for words in ("storage is on.", "storage is on already."):
        done = day.sykube("addons", "enable", "storage", "--name", NAME)
        assert words in done.stderr + done.stdout
    assert len(day.get("storageclass")["items"]) == 2


def test_nothing_of_it_is_left(day: TestCluster) -> None:
    day.sykube("delete", "--name", NAME, "--yes")
    assert day.before is not None
    assert [str(leak) for leak in leaks_since(day.before, 10)] == []
