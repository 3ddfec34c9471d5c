"""Comparing a cluster of sykube's with one of stock kubeadm's finds what must be the same."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from sykube.kubernetes.api import Api
from tests.e2e.stock_allowed import ALLOWED
from tests.e2e.stock_compare import Allowed, problems
from tests.e2e.stock_facts import facts, read_objects

Pair = tuple[dict[str, Any], dict[str, Any]]

DESCRIBE = Path(__file__).resolve().parents[1] / "e2e" / "describe-files"
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
Certificate:
    Data:
        Version: 3 (0x2)
        Serial Number: 8765432109876543210 (0x79a4d0e3d1b2c3ea)
        Signature Algorithm: sha256WithRSAEncryption
        Issuer: CN = kubernetes
        Validity
            Not Before: Nov 28 22:16:01 2026 GMT
            Not After : Nov 28 22:21:01 2027 GMT
        Subject: O = system:nodes, CN = system:node:NAME-node1
        Subject Public Key Info:
            Public Key Algorithm: rsaEncryption
                Public-Key: (2048 bit)
                Modulus:
                    00:c4:6b
        X509v3 extensions:
            X509v3 Key Usage: critical
                Digital Signature, Key Encipherment
            X509v3 Extended Key Usage:
                TLS Web Client Authentication
            X509v3 Authority Key Identifier:
                IDENTIFIER
            X509v3 Subject Alternative Name:
                DNS:NAME-node1, IP Address:NODE
    Signature Algorithm: sha256WithRSAEncryption
"""


def cluster(name: str, subnet: str, identifier: str) -> dict[str, Any]:
    """What `read` finds in a cluster; two of them differ only in what is their own."""
    master, node = f"{subnet}.2", f"{subnet}.22"
    kubelet = f"/var/lib/kubelet/pki/kubelet-client-2026-11-28-22-21-{identifier}.pem"
    certificate = CERTIFICATE.replace("NAME", name).replace("NODE", node)
    role = {"metadata": {"name": f"system:{name}", "uid": identifier}, "kind": "ClusterRole"}
    config = f"clusterName: {name}\ncontrolPlaneEndpoint: {subnet}.254:6443\nscheduler: {{}}\n"
    meta = {"name": "kubeadm-config", "namespace": "kube-system", "resourceVersion": identifier}
    owned = {
        "labels": {"controller-revision-hash": identifier},
        "ownerReferences": [{"kind": "DaemonSet", "name": "proxy"}],
    }
    return {
        "names": {
            name: "<cluster>", f"{name}-master": "<master>", f"{name}-node1": "<worker>",
            master: "<master-address>", node: "<worker-address>", f"{subnet}.254": "<endpoint>",
        },
        "objects": [
            role | {"rules": [{"verbs": ["get", "list"]}]},
            {"kind": "ConfigMap", "metadata": meta, "data": {"ClusterConfiguration": config}},
            {
                "kind": "Pod",
                "metadata": {"name": f"etcd-{name}-master", "namespace": "kube-system"},
                "spec": {
                    "containers": [
                        {"name": "etcd", "command": ["etcd", f"--name={name}-master", "--a=b"]}
                    ]
                },
                "status": {"hostIP": master},
            },
            {"kind": "ControllerRevision", "metadata": owned | {"name": f"proxy-{identifier}"}},
            {
                "kind": "Pod",
                "metadata": owned | {"name": "proxy-x", "generateName": "proxy-"},
                "spec": {"nodeName": f"{name}-node1"},
            },
        ],
        "files": {
            "master": f"==>\tf\t0600\troot:root\t/etc/kubernetes/admin.conf\t\nserver: {subnet}.254",
            "worker": f"==>\tf\t0600\troot:root\t{kubelet}\t\n"
            f"{certificate.replace('IDENTIFIER', ':'.join([identifier] * 20))}"
            "==>\tl\t0777\troot:root\t/var/lib/kubelet/pki/kubelet-client-current.pem\t"
            f"{kubelet}\n",
        },
    }  # fmt: skip


@pytest.fixture
def pair() -> Pair:
    return cluster("e2e-stock", "10.11.12", "01"), cluster("e2e", "10.11.1", "02")


def compared(pair: Pair, *allowed: Allowed, minor: int = 20) -> list[str]:
    stock, ours = map(facts, pair)
    return problems(stock, ours, allowed, minor)


def test_what_is_a_clusters_own_makes_no_difference(pair: Pair) -> None:
    assert compared(pair) == []
    found = facts(pair[0])["objects"]
    assert len(found) == 5
    assert {"ControllerRevision proxy-(hash)", "Pod proxy-(any) on <worker>"} < {*found}


def test_several_of_one_name_are_told_apart_by_what_they_are(pair: Pair) -> None:
    for ours, identifier in zip(pair, ("03", "04"), strict=True):
        again = copy.deepcopy(ours["objects"][-1])
        again["metadata"]["name"] = identifier
        ours["objects"].append(again)
        other = copy.deepcopy(again)
        other["spec"]["hostNetwork"] = True
        ours["objects"].insert(int(identifier) - 3, other)
    assert compared(pair) == []
    assert "Pod proxy-(any) on <worker> 2" in facts(pair[0])["objects"]


def _without_role(ours: dict[str, Any]) -> None:
    del ours["objects"][0]


def _another_object(ours: dict[str, Any]) -> None:
    ours["objects"].append(copy.deepcopy(ours["objects"][0]))
    ours["objects"][-1]["metadata"]["name"] = "mine"


def _replaced(place: str, before: str, after: str) -> Callable[[dict[str, Any]], None]:
    def change(ours: dict[str, Any]) -> None:
        assert before in ours["files"][place]
        ours["files"][place] = ours["files"][place].replace(before, after)

    return change


def _verbs(ours: dict[str, Any]) -> None:
    ours["objects"][0]["rules"][0]["verbs"].append("delete")


def _configuration(ours: dict[str, Any]) -> None:
    ours["objects"][1]["data"]["ClusterConfiguration"] += "featureGates: {A: true}\n"


def _argument(ours: dict[str, Any]) -> None:
    ours["objects"][2]["spec"]["containers"][0]["command"][2] = "--a=c"


_ADMIN = "master > /etc/kubernetes/admin.conf > "
_KUBELET = "worker > /var/lib/kubelet/pki/kubelet-client-(time).pem > content > "


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            _without_role,
            'objects > ClusterRole system:<cluster>: {"metadata": {}, "rules": [{"verbs": ["get", "list"]}]}'
            " -> absent",
        ),
        (
            _another_object,
            'objects > ClusterRole mine: absent -> {"metadata": {}, "rules": [{"verbs": ["get", "list"]}]}',
        ),
        (
            _verbs,
            'objects > ClusterRole system:<cluster> > rules: [{"verbs": ["get", "list"]}]'
            ' -> [{"verbs": ["get", "list", "delete"]}]',
        ),
        (
            _configuration,
            "objects > ConfigMap kube-system/kubeadm-config > data > ClusterConfiguration"
            ' > featureGates: absent -> {"A": true}',
        ),
        (
            _argument,
            "objects > Pod kube-system/etcd-<master> > spec > containers > etcd > command > --a:"
            ' "b" -> "c"',
        ),
        (_replaced("master", "\t0600", "\t0644"), f'{_ADMIN}mode: "0600" -> "0644"'),
        (_replaced("master", "root:root", "root:adm"), f'{_ADMIN}owner: "root:root" -> "root:adm"'),
        (_replaced("master", "==>\tf", "==>\tl"), f'{_ADMIN}type: "f" -> "l"'),
        (
            _replaced("master", "server: 10.11.1.254", "server: 10.11.1.2"),
            f'{_ADMIN}content > server: "<endpoint>" -> "<master-address>"',
        ),
        (
            _replaced("worker", "TLS Web Client", "TLS Web Server"),
            f'{_KUBELET}X509v3 Extended Key Usage: ["TLS Web Client Authentication"]'
            ' -> ["TLS Web Server Authentication"]',
        ),
        (
            _replaced("worker", "O = system:nodes, ", ""),
            f'{_KUBELET}Subject: "O = system:nodes, CN = system:node:<worker>"'
            ' -> "CN = system:node:<worker>"',
        ),
        (
            _replaced("worker", "IP Address:10.11.1.22", "IP Address:10.11.1.23"),
            f'{_KUBELET}X509v3 Subject Alternative Name: ["DNS:<worker>", "IP Address:<worker-address>"]'
            ' -> ["DNS:<worker>", "IP Address:10.11.1.23"]',
        ),
        (_replaced("worker", "2027 GMT", "2026 GMT"), f"{_KUBELET}days: 365 -> 0"),
        (
            _replaced("worker", "(2048 bit)", "(4096 bit)"),
            f'{_KUBELET}keys: ["Public-Key: (2048 bit)"] -> ["Public-Key: (4096 bit)"]',
        ),
        (
            _replaced("worker", ".pem\t/var/lib/kubelet/pki/", ".pem\t/run/"),
            "worker > /var/lib/kubelet/pki/kubelet-client-current.pem > target:"
            ' "/var/lib/kubelet/pki/kubelet-client-(time).pem" -> "/run/kubelet-client-(time).pem"',
        ),
    ],
)
def test_each_difference_is_found(
    pair: Pair, change: Callable[[dict[str, Any]], None], found: str
) -> None:
    change(pair[1])
    assert compared(pair) == [f"differs: {found}"]
    assert compared(pair, Allowed("a reason", (found,))) == []
    assert compared(pair, Allowed("a reason", (f"{found.partition(': ')[0]}: *",))) == []


def test_a_pattern_is_for_whole_lines_and_its_brackets_are_text(pair: Pair) -> None:
    _argument(pair[1])
    assert len(compared(pair, Allowed("a reason", ("*--a", '--a: "b" -> "c"')))) == 3
    assert compared(pair, Allowed("a reason", ('*--a: "[b]" -> "c"',)))[0].startswith("differs")
    assert compared(pair, Allowed("a reason", ('*> --a: "b" -> "*"',))) == []


def test_what_is_allowed_and_no_longer_differs_is_found_too(pair: Pair) -> None:
    assert compared(pair, Allowed("it was so", ("objects > *",))) == [
        "no longer differs: objects > * (it was so)"
    ]


def test_what_is_allowed_of_other_versions_counts_for_nothing(pair: Pair) -> None:
    newer = Allowed("a reason", ("objects > *",), since=24)
    assert compared(pair, newer) == []
    assert compared(pair, Allowed("a reason", ("objects > *",), before=20)) == []
    _argument(pair[1])
    assert len(compared(pair, newer)) == 1
    assert compared(pair, newer, minor=24) == []


def test_all_that_is_allowed_has_a_reason_of_its_own() -> None:
    reasons = [each.reason for each in ALLOWED]
    assert all(reasons)
    assert len({*reasons}) == len(reasons)
    patterns = [pattern for each in ALLOWED for pattern in each.patterns]
    assert len({*patterns}) == len(patterns)


class Answers:
    """An API server that has a Secret and, in two versions of their API, Ingresses."""

    def get(self, path: str) -> Any:
        def kind(name: str, verbs: str = "get list") -> dict[str, Any]:
            return {"name": name, "kind": name.title()[:-1], "verbs": verbs.split()}

        versions = [
            {"groupVersion": "networking.k8s.io/v1"},
            {"groupVersion": "networking.k8s.io/v1beta1"},
        ]
        item = {"metadata": {"name": "one", "uid": "1"}, "data": {"token": "c2VjcmV0"}}
        ingresses = {"resources": [kind("ingresses")]}
        return {
            "/apis": {"groups": [{"preferredVersion": versions[0], "versions": versions}]},
            "/api/v1": {"resources": [kind("secrets"), kind("secrets/x", "get"), kind("events")]},
            "/api/v1/secrets": {"items": [item]},
            "/apis/networking.k8s.io/v1": ingresses,
            "/apis/networking.k8s.io/v1beta1": ingresses,
            "/apis/networking.k8s.io/v1/ingresses": {"items": [{"metadata": {"name": "two"}}]},
        }[path]


def test_each_object_is_read_once_and_no_secret() -> None:
    found = read_objects(cast(Api, Answers()))
    assert [each["metadata"]["name"] for each in found] == ["one", "two"]
    assert found[0]["data"] == {"token": "(data)"}


def test_files_are_described_without_their_keys(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout

    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", "a.key")
    run("openssl", "req", "-x509", *key, "-subj", "/CN=e2e", "-out", "a.crt")
    secret = (tmp_path / "a.key").read_text()
    (tmp_path / "a.pem").write_text((tmp_path / "a.crt").read_text() + secret)
    run("openssl", "pkey", "-in", "a.key", "-pubout", "-out", "a.pub")
    encoded = run("base64", "-w0", "a.crt"), run("base64", "-w0", "a.key")
    (tmp_path / "a.conf").write_text(
        f"users:\n- name: me\n  user:\n    client-certificate-data: {encoded[0]}\n"
        f"    client-key-data: {encoded[1]}\n"
    )
    (tmp_path / "a.env").write_text('FLAGS="--a=b --c=d"\n')
    (tmp_path / "a.key").chmod(0o400)
    (tmp_path / "link").symlink_to("a.pem")
    described = run(str(DESCRIBE), ".")
    assert secret.splitlines()[1] not in described
    assert encoded[1] not in described
    read = {"names": {"e2e": "<cluster>"}, "objects": [], "files": {"master": described}}
    found = facts(read)["master"]
    rsa = {"parts": ["PRIVATE KEY"], "keys": ["Private-Key: (2048 bit, 2 primes)"]}
    assert found["./a.key"]["content"] == rsa
    assert found["./a.key"]["mode"] == "0400"
    assert found["./a.pub"]["content"]["keys"] == ["Public-Key: (2048 bit)"]
    assert found["./a.pem"]["content"]["parts"] == ["CERTIFICATE", "PRIVATE KEY"]
    assert found["./a.pem"]["content"]["Subject"] == "CN=<cluster>"
    assert found["./a.crt"]["content"]["days"] == 30
    assert found["./a.conf"]["content"]["users"]["me"]["user"] == {
        "client-certificate-data": "(data)", "client-key-data": "(data)",
    }  # fmt: skip
    assert found["./a.conf#client-certificate-data"]["content"]["Subject"] == "CN=<cluster>"
    assert found["./a.conf#client-key-data"]["content"]["keys"] == rsa["keys"]
    assert found["./a.env"]["content"] == {"FLAGS": {"--a": "b", "--c": "d"}}
    assert found["./link"] | {"owner": ""} == {
        "type": "l", "mode": "0777", "owner": "", "target": "a.pem", "content": "",
    }  # fmt: skip
    assert found["."]["type"] == "d"
