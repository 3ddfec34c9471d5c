"""Certificates: read, warned about, and renewed without the API server's leave."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from sykube.cli import certs as command
from sykube.cluster.commands import lifecycle, power, renewal, status
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import certs, user_kubeconfig
from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.kubernetes import certificates
from tests.fakes import Answer, Injected, World
from tests.fakes.kubeconfig import admin_kubeconfig

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
# openssl req -x509 -not_before 20200102030405Z -not_after 20600102030405Z -set_serial 0xf1e2d3c4…
REAL = """-----BEGIN CERTIFICATE-----
MIIBjTCCATKgAwIBAgIJAPHi08S1ppeIMAoGCCqGSM49BAMCMCAxDzANBgNVBAoM
BnN5a3ViZTENMAsGA1UEAwwEdGVzdDAgFw0yMDAxMDIwMzA0MDVaGA8yMDYwMDEw
MjAzMDQwNVowIDEPMA0GA1UECgwGc3lrdWJlMQ0wCwYDVQQDDAR0ZXN0MFkwEwYH
KoZIzj0CAQYIKoZIzj0DAQcDQgAEApbdvpumhHE4eRf1BLkvhMxhT9NWY7StIqzE
GWScSj4bidgHEPeU1PD7IozioB+rnqTCEcua65vj68YgXdOR4KNTMFEwHQYDVR0O
BBYEFCJk05bEoVav686WyOnFM2BbA4vIMB8GA1UdIwQYMBaAFCJk05bEoVav686W
yOnFM2BbA4vIMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAL0L
24Zkzs4at302uUVTAi6vObmv0GNlmnbbn4L+s/t+AiEA4nnlLtjL6nyxZwusllzU
GigXY/GInWrw1fncgEKtioM=
-----END CERTIFICATE-----
"""


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


def pem(end: datetime, begin: datetime = NOW - timedelta(days=300), serial: int = 7) -> str:
    """As much of a certificate as sykube reads."""
    validity = [der(0x17, f"{when:%y%m%d%H%M%SZ}".encode()) for when in (begin, end)]
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    signed = der(
        0x30, der(0xA0, der(2, b"\2")), der(2, number), der(0x30), der(0x30), der(0x30, *validity)
    )
    body = base64.b64encode(der(0x30, signed, der(0x30, b"x" * 200))).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def kubeconfig(end: datetime) -> str:
    data = base64.b64encode(pem(end).encode()).decode()
    return admin_kubeconfig("https://10.11.11.254:6443").replace("Q0VSVA==", data)


def fill(cluster: Cluster, end: datetime) -> None:
    """Give a fake cluster the files that kubeadm makes."""
    for node in cluster.nodes:
        pki = node.pull("/var/lib/kubelet/pki")
        pki.mkdir(parents=True, exist_ok=True)
        (pki / "kubelet-client-2026.pem").write_text(pem(end))
        (pki / "kubelet-client-current.pem").symlink_to(
            "/var/lib/kubelet/pki/kubelet-client-2026.pem"
        )
        (pki / "kubelet.crt").write_text(pem(end))
    kubernetes = cluster.master.pull("/etc/kubernetes")
    (kubernetes / "pki/etcd").mkdir(parents=True)
    for name in ("apiserver", "etcd/server"):
        (kubernetes / "pki" / f"{name}.crt").write_text(pem(end))
    (kubernetes / "pki/ca.crt").write_text(pem(NOW + timedelta(days=3000)))
    for name in ("admin.conf", "controller-manager.conf", "scheduler.conf"):
        (kubernetes / name).write_text(kubeconfig(end))
    cluster.paths.kubeconfig.write_text(kubeconfig(end))


@pytest.fixture
def cluster(world: World) -> Cluster:
    made = lifecycle.init(
        world.host, ClusterSpec(name="fake", dns=("192.0.2.1",)), InitOptions(), world.ui()
    )
    assert made is not None
    return made


# --- reading ---


def test_a_real_certificate() -> None:
    found = certificates.parse(f"some words\n{REAL}")
    assert found.serial == 0xF1E2D3C4B5A69788
    assert found.not_before == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    # Beyond 2049 the year has four digits.
    assert found.not_after == datetime(2060, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_the_one_in_a_kubeconfig() -> None:
    assert certificates.parse(kubeconfig(NOW)).not_after == NOW


@pytest.mark.parametrize(
    "text",
    ["", "no certificate", REAL.replace("MIIBjTCC", "MIIB"), REAL[:200] + REAL[-30:],
     "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"],
)  # fmt: skip
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        certificates.parse(text)


# --- ends ---


def test_every_certificate_is_found(cluster: Cluster) -> None:
    fill(cluster, NOW + timedelta(days=60))
    found = [(one.node, one.name) for one in certs.find(cluster)]
    assert found == [
        ("master", "pki/apiserver.crt"),
        ("master", "pki/ca.crt"),
        ("master", "pki/etcd/server.crt"),
        ("master", "admin.conf"),
        ("master", "controller-manager.conf"),
        ("master", "scheduler.conf"),
        ("master", "kubelet-client"),
        ("master", "kubelet-server"),
        ("node1", "kubelet-client"),
        ("node1", "kubelet-server"),
        ("host", "kubeconfig"),
    ]
    assert [one.name for one in certs.find(cluster) if one.authority] == ["pki/ca.crt"]


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (31, ""),
        (
            29,
            "pki/apiserver.crt of master ends in 29 days and 9 more: sykube certs renew --name fake",
        ),
        (
            -3,
            "pki/apiserver.crt of master ended 3 days ago and 9 more: sykube certs renew --name fake",
        ),
    ],
)
def test_a_month_before_the_end_there_is_a_warning(cluster: Cluster, days: int, words: str) -> None:
    fill(cluster, NOW + timedelta(days=days))
    assert certs.warning(cluster, NOW) == (f"the certificate {words}" if words else "")


def test_start_warns_of_certificates_that_end_soon(cluster: Cluster, world: World) -> None:
    fill(cluster, datetime.now(UTC) + timedelta(days=3, hours=1))
    ui = world.ui()
    power.start(cluster.host, "fake", ui)
    assert any("ends in 3 days" in warning for warning in ui.warnings)
    assert "sykube certs renew --name fake" in status.collect(cluster).certificates


def test_start_refuses_certificates_past_their_end_and_names_the_cure(
    cluster: Cluster, world: World
) -> None:
    fill(cluster, datetime.now(UTC) - timedelta(days=2, hours=12))
    with pytest.raises(SykubeError, match="ended 3 days ago") as raised:
        power.start(cluster.host, "fake", world.ui())
    assert "sykube certs renew --name fake" in raised.value.resolution


def test_an_authority_alone_is_no_reason_to_renew(cluster: Cluster) -> None:
    fill(cluster, NOW + timedelta(days=300))
    ca = cluster.master.pull("/etc/kubernetes/pki/ca.crt")
    ca.write_text(pem(NOW - timedelta(days=1)))
    assert certs.warning(cluster, NOW) == ""


def run(host: Host, *arguments: str) -> Result:
    return CliRunner().invoke(command.certs, list(arguments), standalone_mode=False, obj=host)


def test_the_list_for_people_and_machines(cluster: Cluster) -> None:
    fill(cluster, datetime.now(UTC) + timedelta(days=60, hours=1))
    cluster.master.pull("/var/lib/kubelet/pki/kubelet.crt").write_text("broken")
    shown = run(cluster.host, "list", "--name", "fake").output
    assert "pki/apiserver.crt" in shown
    assert "60 days" in shown
    assert "there is no certificate in it" in shown
    listed = json.loads(run(cluster.host, "list", "--name", "fake", "-o", "json").output)
    assert listed[0]["serial"] == "7"
    assert listed[0]["daysLeft"] == 60
    assert [one["name"] for one in listed if "problem" in one] == ["kubelet-server"]


# --- renewing ---

RENEWED = admin_kubeconfig("https://10.11.11.254:6443").replace("Q0VSVA==", "TkVX")


@pytest.fixture
def renewing(world: World, cluster: Cluster) -> Iterator[list[tuple[str, str]]]:
    """A cluster whose nodes know what renewing asks of them; what they were asked, in order."""
    asked: list[tuple[str, str]] = []

    def answer(name: str, argv: list[str], stdin: str | None) -> Answer | None:
        match argv:
            case ["kubeadm", "certs", "renew", "all", *_]:
                asked.append((name, "renew"))
                world.instances[name].files["/etc/kubernetes/admin.conf"] = RENEWED
            case ["sh", "request-certificate", _]:
                asked.append((name, "request"))
                return 0, f"request of {name}", ""
            case ["sh", "sign-certificate"]:
                asked.append((name, "sign"))
                return 0, f"signed {stdin}", ""
            case ["sh", "install-certificate"]:
                assert stdin == f"signed request of {name}"
                asked.append((name, "install"))
            case ["sh", "stop-containers", "control-plane", _]:
                asked.append((name, "end"))
                world.kubernetes["fake"].started[name] = time.time()
            case _:
                return None
        return 0, "", ""

    world.node_programs.first = answer
    record = world.calls.record

    def recorded(kind: str, *words: object) -> None:
        record(kind, *words)
        if kind == "service":
            what, name, program = map(str, words)
            assert program == "kubelet"
            asked.append((name, what.removesuffix("Process")))

    world.calls.record = recorded  # type: ignore[method-assign]
    yield asked


# The second time, its kubelet looks for the API server, which is there by then.
MASTER = ["stop", "renew", "request", "sign", "install", "end", "start", "stop", "start"]


def test_renewing_goes_from_node_to_node(world: World, renewing: list[tuple[str, str]]) -> None:
    renewal.renew_certificates(world.host, "fake", world.ui())
    assert [what for name, what in renewing if name == "fake-master"] == [*MASTER, "sign"]
    assert [what for name, what in renewing if name == "fake-node1"] == [
        "stop", "request", "install", "start",
    ]  # fmt: skip
    assert ClusterPaths(world.host, "fake").kubeconfig.read_text() == RENEWED
    assert "/etc/kubernetes/kubeadm-renew.yaml" not in world.instances["fake-master"].files


def test_renewing_is_not_done_while_a_kubelet_is_not_back(
    world: World, renewing: list[tuple[str, str]]
) -> None:
    world.silent.add("fake-node1")
    with pytest.raises(SykubeError) as raised:
        renewal.renew_certificates(world.host, "fake", world.ui())
    assert "no sign of life of fake-node1" in raised.value.details


def test_renewing_starts_a_stopped_cluster_without_the_api(
    world: World, renewing: list[tuple[str, str]]
) -> None:
    for name in list(world.instances):
        world.instances.pop(name)
    renewal.renew_certificates(world.host, "fake", world.ui())
    assert sorted(world.instances) == ["fake-master", "fake-node1"]
    assert ("fake-master", "renew") in renewing


def test_a_failed_renewal_leaves_kubelets_running(
    world: World, renewing: list[tuple[str, str]]
) -> None:
    world.calls.fail(lambda call: "certs" in call.words)
    with pytest.raises(Injected):
        renewal.renew_certificates(world.host, "fake", world.ui())
    assert renewing == [("fake-master", "stop"), ("fake-master", "start")]
    renewal.renew_certificates(world.host, "fake", world.ui())


def test_a_paused_cluster_is_left_alone(world: World, renewing: list[tuple[str, str]]) -> None:
    power.pause(world.host, "fake", world.ui())
    with pytest.raises(SykubeError, match="is paused") as error:
        renewal.renew_certificates(world.host, "fake", world.ui())
    assert error.value.resolution == "sykube unpause --name fake"
    assert renewing == []


def test_the_new_credentials_keep_the_current_context(
    world: World, cluster: Cluster, tmp_path: Path
) -> None:
    user = Path(cluster.state.kubeconfig)
    config = yaml.safe_load(user.read_text(encoding="utf-8"))
    assert config["current-context"] == "fake"
    config["current-context"] = "work"
    user.write_text(yaml.safe_dump(config), encoding="utf-8")
    cluster.paths.kubeconfig.write_text(
        cluster.paths.kubeconfig.read_text().replace("S0VZ", "TkVXS0VZ")
    )
    user_kubeconfig.rewrite(cluster)
    config = yaml.safe_load(user.read_text(encoding="utf-8"))
    assert config["current-context"] == "work"
    users = {entry["name"]: entry["user"] for entry in config["users"]}
    assert users["fake"]["client-key-data"] == "TkVXS0VZ"
