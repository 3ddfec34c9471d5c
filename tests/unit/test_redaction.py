"""No secret of any kind passes, and what is no secret stays."""

from __future__ import annotations

import base64
import json

import pytest

from sykube import redaction

BODY = "MIIEowIBAAKCAQEAyPlantedPlantedPlanted\nq83vASNFZ4mrze8BI0VniavN7wEjRWeJ"
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIDpublic\n-----END CERTIFICATE-----\n"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
HIDDEN = "hunter2-Planted"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "planted",
    [
        KEY,
        KEY.replace("RSA ", ""),
        KEY.replace("RSA ", "EC "),
        json.dumps({"key": KEY}),
        "".join(f"2026-01-02T03:04:05Z stdout F {line}\n" for line in KEY.splitlines()),
        # Cut at the end, as by a crash, and at the start, as by rotation.
        KEY.partition("-----END")[0],
        KEY.partition("-----BEGIN RSA PRIVATE KEY-----\n")[2],
    ],
)
def test_private_keys(planted: str) -> None:
    left = redaction.text(f"before\n{planted}")
    assert "Planted" not in left
    assert "q83vASNF" not in left


@pytest.mark.parametrize(
    "planted",
    [
        f"client-key-data: {encoded(KEY)}",
        f"tls.key: {encoded(KEY)}",
        f"the bytes {encoded(KEY)}",
        f"token: {JWT}",
        f"Authorization: Bearer {JWT}",
        f"got {JWT} from the server",
        f"token: {encoded(JWT)}",
        "kubeadm join --token abcdef.0123456789abcdef 10.0.0.1:6443",
        "the token abcdef.0123456789abcdef.",
        '{"id":"abcdef.0123456789abcdef"}',
    ],
)
def test_tokens_and_encoded_keys(planted: str) -> None:
    left = redaction.text(planted)
    for secret in (encoded(KEY), JWT, encoded(JWT), "0123456789abcdef"):
        assert secret[:30] not in left


@pytest.mark.parametrize(
    "planted",
    [
        f"http_proxy=http://me:{HIDDEN}@proxy.example:3128/",
        f"http://me:a/b?{HIDDEN}@proxy.example",
        f"https://{HIDDEN}@git.example/x.git",
        f"password: {HIDDEN}",
        f"password: true-{HIDDEN}",
        f"- password: two words {HIDDEN}",
        f"DB_PASSWORD={HIDDEN}",
        f'"dbPassword": "{HIDDEN}"',
        f'{{\\"password\\":\\"{HIDDEN}\\"}}',
        f"'api_key' = '{HIDDEN}'",
        f"aws_secret_access_key={HIDDEN}",
        f"curl -H 'Authorization: Basic {HIDDEN}'",
        f"mysql --password={HIDDEN}",
        f"mysql --password {HIDDEN}",
        f"tool --db-auth-token {HIDDEN} --verbose",
        f"?user=me&token={HIDDEN}",
        f"kubeadm join --certificate-key {HIDDEN}",
        f"token-secret: {HIDDEN}",
    ],
)
def test_named_secrets(planted: str) -> None:
    assert HIDDEN not in redaction.text(planted)


@pytest.mark.parametrize(
    "harmless",
    [
        CERTIFICATE,
        f"certificate-authority-data: {encoded(CERTIFICATE)}",
        "--service-account-private-key-file=/etc/kubernetes/pki/sa.key",
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
        "--use-service-account-credentials=true",
        "authorization: null",
        '"authorization:\\n  mode: Webhook"',
        'Name:"h2-master.18ea65226a6227fd"',
        "secretName: kube-proxy-token-x",
        "tokenExpirationSeconds: 3607",
        "automountServiceAccountToken:\n  defaultMode: 420",
        "secret:\n    defaultMode: 420",
        'image: "registry.example:5000/pause@sha256:0123456789abcdef"',
        "docker://registry.example:5000/pause@sha256:0123456789abcdef",
        "https://10.0.0.1:6443/healthz",
        "nodes/h2-master 10.11.11.2 k8s.io/api-server v1.20.2",
        'MountVolume.SetUp failed for volume "x" : secret "y" not found',
        "pod kube-proxy-4mtzn_33a3a7df-4e42-4cca-98c4-d26ee1793b55",
    ],
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    assert redaction.text(harmless) == harmless


def test_objects_of_the_api() -> None:
    left = redaction.structure(
        {
            "metadata": {
                "name": "app",
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": f'{{"x":"{HIDDEN}"}}',
                    "note": "kept",
                },
            },
            "spec": {
                "containers": [
                    {
                        "env": [
                            {"name": "DB_PASSWORD", "value": HIDDEN},
                            {"name": "PLACE", "value": "kept"},
                        ],
                        "args": ["--password", HIDDEN, "--verbose", f"--token={HIDDEN}"],
                        "securityContext": {"runAsUser": 0, "privileged": True},
                    }
                ],
                "volumes": [{"secret": {"secretName": "kept"}}],
            },
            "data": {"password": HIDDEN, "count": 3, "nothing": None},
        }
    )
    assert HIDDEN not in json.dumps(left)
    assert left["metadata"]["annotations"] == {"note": "kept"}
    assert left["spec"]["containers"][0]["env"][1] == {"name": "PLACE", "value": "kept"}
    assert left["spec"]["volumes"] == [{"secret": {"secretName": "kept"}}]
    assert left["spec"]["containers"][0]["securityContext"] == {"runAsUser": 0, "privileged": True}
    assert left["data"] == {"password": redaction.REDACTED, "count": 3, "nothing": None}
