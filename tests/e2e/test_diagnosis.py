"""A real cluster is looked at, broken in known ways, reported on, and gets new certificates."""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.model import lookup
from sykube.host.host import Host
from sykube.network.bridge import Bridge
from sykube.ui import Ui
from tests.e2e.cluster import TestCluster, eventually
from tests.e2e.resolver import Resolver

NAME = "e2e-diag"
# A pod that says and holds what no report may show.
PLANTED = {
    "password": "hunter2-planted-by-the-test",
    "bootstrap": "zq81pl.0123456789abcdef",
    "jwt": "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJwbGFudGVkIn0.cGxhbnRlZC1zaWduYXR1cmU",
    "url": "planted-in-a-url",
    "pem": "MIIEplantedplantedplantedplantedplantedplanted",
}
# A caller with what nodes must have nothing of.
CALLER = (
    *("nohup", "nice", "-n", "5"),
    *("sh", "-c", 'umask 027 && ulimit -Sn 1024 && exec "$@"', "sh"),
)
PAST = r"""
set -eu
sign() {  # AUTHORITY: a certificate of the past for a request
    openssl x509 -req -CA $1.crt -CAkey $1.key -copy_extensions copyall \
        -not_before 20200101000000Z -not_after 20200102000000Z 2> /dev/null
}
again() {  # AUTHORITY CERTIFICATE
    openssl x509 -x509toreq -in $2.crt -signkey $2.key -copy_extensions copyall 2> /dev/null |
        sign $1 > $2.new
    mv $2.new $2.crt
}
cd /etc/kubernetes
for name in apiserver apiserver-kubelet-client; do again pki/ca pki/$name; done
for name in server peer healthcheck-client; do again pki/etcd/ca pki/etcd/$name; done
again pki/etcd/ca pki/apiserver-etcd-client
again pki/front-proxy-ca pki/front-proxy-client
umask 077
for name in admin controller-manager scheduler; do
    awk '/client-certificate-data/ { print $2 }' $name.conf | base64 -d > pki/tmp.crt
    awk '/client-key-data/ { print $2 }' $name.conf | base64 -d > pki/tmp.key
    again pki/ca pki/tmp
    data=$(base64 -w0 pki/tmp.crt)
    sed -i "s/client-certificate-data: .*/client-certificate-data: $data/" $name.conf
done
cd /var/lib/kubelet/pki
key=$(grep -l 'PRIVATE KEY' kubelet-client-*.pem | grep -v current | tail -n 1)
openssl x509 -in "$key" > /etc/kubernetes/pki/tmp.crt
openssl pkey -in "$key" > /etc/kubernetes/pki/tmp.key
again /etc/kubernetes/pki/ca /etc/kubernetes/pki/tmp
cat /etc/kubernetes/pki/tmp.crt /etc/kubernetes/pki/tmp.key > kubelet-client-past.pem
ln -sfn /var/lib/kubelet/pki/kubelet-client-past.pem kubelet-client-current.pem
rm /etc/kubernetes/pki/tmp.*
"""


@pytest.fixture(scope="module")
def diag(resolver: Resolver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Two nodes with a resolver that answers, whatever this machine has."""
    made = TestCluster(NAME, tmp_path_factory.mktemp("diag"))
    made.delete_quietly()
    resolv_conf = made.folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {resolver.address}\n")
    made.prefix = CALLER
    made.init("--workers", "1", "--yes", resolv_conf=resolv_conf)
    made.prefix = ()
    yield made
    made.delete_quietly()


def findings(cluster: TestCluster) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code of doctor, and what is not well with the cluster.

    Without the warning of a disk that other things on this machine have nearly filled.
    """
    done = cluster.sykube("doctor", "--name", NAME, "-o", "json", check=False)
    found = json.loads(done.stdout)["cluster"]["findings"]
    bad = {each["what"]: each for each in found if each["level"] != "ok"}
    if bad.get("disk", {}).get("level") == "warning":
        del bad["disk"]
    return done.returncode, bad


def assert_gets_well(cluster: TestCluster) -> None:
    found: tuple[int, dict[str, dict[str, str]]] = (-1, {})

    def well() -> bool:
        nonlocal found
        found = findings(cluster)
        return found == (0, {})

    try:
        eventually("the cluster is well", well)
    except AssertionError as error:
        raise AssertionError(f"{error}: {found}") from None


def certificates(cluster: TestCluster) -> dict[tuple[str, str], dict[str, Any]]:
    listed = json.loads(cluster.sykube("certs", "list", "--name", NAME, "-o", "json").stdout)
    return {(each["node"], each["name"]): each for each in listed}


def private_keys() -> list[str]:
    """Some of every private key of the cluster, as its files have it."""
    keys = []
    root = Path("/var/lib/sykube") / NAME
    for path in [root / "kubeconfig", *root.glob("nodes/*/overlay/upper/etc/kubernetes/*.conf")]:
        keys += re.findall(r"client-key-data: (\S+)", path.read_text())
    for path in root.rglob("nodes/*/*/**/pki/**/*"):
        if path.is_file() and path.suffix in (".key", ".pem"):
            bodies = re.findall(r"PRIVATE KEY-----\n(.+?)-----END", path.read_text(), re.DOTALL)
            keys += [line for body in bodies for line in body.split()]
    return [key[:64] for key in keys if len(key) >= 40]


# --- logs ---


def test_the_logs_of_a_node(diag: TestCluster) -> None:
    shown = diag.sykube("logs", "node1", "--service", "kubelet", "--name", NAME).stdout
    assert "kubelet" in shown
    assert re.search(r"^[IWE]\d{4} ", shown, re.MULTILINE), "klog's lines, without a prefix"
    everything = diag.sykube("logs", "--name", NAME, "--tail", "5").stdout
    starts = {line.split("]")[0] for line in everything.splitlines()}
    assert {"[master/kubelet", "[node1/containerd", "[node1/supervisord"} <= starts


def test_following_goes_on_until_it_is_interrupted(diag: TestCluster) -> None:
    command = [sys.executable, "-m", "sykube", "logs", "node1", "--name", NAME, "-f"]
    log = Path(f"/var/lib/sykube/{NAME}/nodes/{NAME}-node1/log/sykube/supervisord.log")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        time.sleep(2)
        with log.open("a", encoding="utf-8") as file:
            file.write("a new line of the test\n")
        assert run.stdout is not None
        for line in run.stdout:
            if "a new line of the test" in line:
                break
        assert line == "[node1/supervisord] a new line of the test\n"
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=20)
    assert run.returncode == 130
    assert errors == ""


# --- export ---


@pytest.fixture(scope="module")
def report(diag: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pem = f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED['pem']}\n-----END RSA PRIVATE KEY-----"
    words = f"token {PLANTED['bootstrap']} {PLANTED['jwt']} http://me:{PLANTED['url']}@proxy/"
    diag.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "talks"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "main",
                        "image": diag.image,
                        "command": ["sh", "-c", f"echo '{words}'; echo '{pem}'; sleep 3600"],
                        "env": [{"name": "DB_PASSWORD", "value": PLANTED["password"]}],
                    }
                ],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "planted"},
            "stringData": {"password": PLANTED["password"]},
        },
        # Since 1.24 no account has one that nobody asked for.
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "planted-token",
                "annotations": {"kubernetes.io/service-account.name": "default"},
            },
            "type": "kubernetes.io/service-account-token",
        },
    )
    diag.kubectl("wait", "--for=condition=Ready", "pod/talks", "--timeout=60s")
    folder = tmp_path_factory.mktemp("report") / "bug"
    diag.sykube("logs", "--name", NAME, "--export", str(folder))
    return folder


def test_a_report_holds_what_is_needed(report: Path) -> None:
    names = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    for node in ("master", "node1"):
        for name in ("programs/kubelet.log", "processes.txt", "iptables.txt", "routes.txt"):
            assert f"nodes/{node}/{name}" in names
    kinds = ("nodes", "pods", "events", "services", "deployments", "configmaps")
    assert {f"kubernetes/{kind}.yaml" for kind in kinds} <= names
    assert {"state.json", "status.json", "doctor.json", "host/facts.json"} <= names
    assert "missing.txt" not in names, (report / "missing.txt").read_text()
    pod_logs = [name for name in names if "/pods/default_talks_" in name]
    assert pod_logs
    assert "name: talks" in (report / "kubernetes/pods.yaml").read_text()
    assert "kube-proxy" in (report / "nodes/node1/processes.txt").read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o700


def test_a_report_holds_no_secret(diag: TestCluster, report: Path) -> None:
    listed = diag.get("secrets", "--all-namespaces")["items"]
    tokens = [secret["data"]["token"] for secret in listed if "token" in secret.get("data", {})]
    keys = private_keys()
    assert len(keys) > 20
    assert tokens
    secrets = [*PLANTED.values(), *keys, *(token[:64] for token in tokens)]
    for path in report.rglob("*"):
        if path.is_file():
            text = path.read_text()
            held = [secret for secret in secrets if secret in text]
            assert not held, f"{path} holds {held}"
            assert "kind: Secret\n" not in text
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- doctor ---


def test_a_fresh_cluster_is_well(diag: TestCluster) -> None:
    code, bad = findings(diag)
    assert [each for each in bad.values() if each["level"] == "failure"] == []
    assert code == 0
    # However it was made.
    assert not [each for each in bad.values() if "what started it" in each["detail"]]


def flush(_: TestCluster) -> None:
    chain = Bridge(Host(), NAME).forward_chain
    subprocess.run(["iptables", "-w", "-F", chain], check=True, capture_output=True)


def unplug(_: TestCluster) -> None:
    instances = lookup.load(Host(), NAME, Ui(quiet=True)).engine.instances()
    pid = instances[f"{NAME}-node1"].pid
    index = Path(f"/proc/{pid}/root/sys/class/net/eth0/iflink").read_text(encoding="utf-8")
    links = Path("/sys/class/net").iterdir()
    link = next(link for link in links if (link / "ifindex").read_text() == index)
    subprocess.run(["ip", "link", "set", "dev", link.name, "nomaster"], check=True)


def stop_kubelet(cluster: TestCluster) -> None:
    cluster.sykube("exec", "--name", NAME, "node1", "supervisorctl", "stop", "kubelet")


def lose_routes(cluster: TestCluster) -> None:
    cluster.sykube("exec", "--name", NAME, "node1", "ip", "route", "flush", "proto", "static")


def cordon(cluster: TestCluster) -> None:
    cluster.kubectl("cordon", f"{NAME}-node1")


@pytest.mark.parametrize(
    ("breakage", "what", "words", "code"),
    [
        (flush, "iptables", "rules of the cluster are gone, such as", 4),
        (unplug, "node node1", "on no bridge", 4),
        (stop_kubelet, "node node1", "kubelet is STOPPED", 4),
        (lose_routes, "node node1", "route to the pods of", 4),
        (cordon, "node node1", "cordoned", 0),
    ],
)
def test_doctor_names_what_is_broken_and_its_cure_helps(
    diag: TestCluster,
    breakage: Callable[[TestCluster], None],
    what: str,
    words: str,
    code: int,
) -> None:
    breakage(diag)
    done = diag.sykube("doctor", "--name", NAME, check=False)
    lines = done.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if f"{what}: " in line and words in line)
    assert done.returncode == code
    cure = lines[at + 1].strip().removeprefix("→ ")
    assert cure.startswith("sykube ")
    diag.sykube(*cure.split()[1:])
    assert_gets_well(diag)


# --- certificates ---


def test_certificates_past_their_end_are_renewed(diag: TestCluster) -> None:
    """A cluster that was forgotten for a year: its API server refuses everybody."""
    before = certificates(diag)
    assert all(each["daysLeft"] >= 363 for each in before.values())
    diag.sykube("exec", "--name", NAME, "master", "sh", "-c", PAST)
    root = Path("/var/lib/sykube") / NAME
    admin = root / f"nodes/{NAME}-master/overlay/upper/etc/kubernetes/admin.conf"
    shutil.copyfile(admin, root / "kubeconfig")
    refused = diag.sykube("kubectl", "--name", NAME, "get", "nodes", check=False)
    assert refused.returncode != 0
    _, bad = findings(diag)
    assert bad["certificates"]["level"] == "failure"
    assert bad["certificates"]["cure"] == f"sykube certs renew --name {NAME}"

    diag.sykube("certs", "renew", "--name", NAME, timeout=500)
    after = certificates(diag)
    assert set(after) == set(before)
    for key, one in after.items():
        assert one["daysLeft"] >= 363, key
        changed = one["serial"] != before[key]["serial"] or one["begins"] != before[key]["begins"]
        assert changed is not one["authority"], key
    assert "talks" in diag.kubectl("get", "pods"), "pods go on"
    kubectl = lookup.load(Host(), NAME, Ui(quiet=True)).image.kubectl
    mine = [str(kubectl), "--kubeconfig", str(diag.kubeconfig), "--context", NAME]
    subprocess.run([*mine, "get", "nodes"], check=True, capture_output=True, timeout=60)
    assert_gets_well(diag)
