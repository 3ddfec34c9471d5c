"""What fails at upstream's release sites, by the real command: before anything is built.

A node image of what they have, and a cluster of it: tests/upstream.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.errors import ExitCode
from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image import oci
from sykube.image.upstream import Release
from tests import releases
from tests.releases import CONTAINERD, RUNC, STORE, Fault, Server

pytestmark = pytest.mark.integration

VERSION = "1.34.99"
RELEASE = Release.of(VERSION)
PASSWORD = "secret-of-the-site"
_KUBELET = f"{STORE}/release/v{VERSION}/bin/linux/{oci.machine(Host())}/kubelet?signed=Planted"


@pytest.fixture
def server(tls: Path) -> Iterator[Server]:
    architecture = oci.machine(Host())
    programs = {name: name.encode() * 1000 for name in ("kubeadm", "kubelet", "kubectl")}
    made = Server(
        releases.kubernetes(VERSION, programs, architecture)
        | releases.containerd(RELEASE.containerd, b"containerd", architecture)
        | releases.runc(RELEASE.runc, {architecture: b"runc"}),
        certificate=tls,
        login=f"me:{PASSWORD}",
    )
    yield made
    made.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of its own, with this machine's engine."""
    engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)
    root, own = engines.private(Host()).root, tmp_path / "cache"
    own.mkdir()
    if root.exists():
        (own / "apptainer").symlink_to(root)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(own))
    return own


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("damaged", "it is damaged or was changed on the way"),
        ("password", "netrc"),
        ("authority", "--ca-certificate"),
        ("version", "there is no Kubernetes"),
    ],
)
def test_what_fails_at_a_site_is_one_error_and_nothing_is_built(
    server: Server,
    tls: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    expected: str,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.touch(mode=0o600)
    password = "another" if fault == "password" else PASSWORD
    netrc.write_text(f"machine localhost login me password {password}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    if fault == "damaged":
        server.faults[_KUBELET].append(Fault(damaged=True))
    if fault == "version":
        server.files |= releases.stable([VERSION])
    trusting = () if fault == "authority" else ("--ca-certificate", str(tls / "ca.pem"))
    asked = "1.34.98" if fault == "version" else VERSION
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "sykube", "node-image", "build", "--source", "upstream"),
            *("--kubernetes-version", asked, "--kubernetes-mirror", server.url),
            *("--containerd-mirror", f"{server.url}{CONTAINERD}"),
            *("--runc-mirror", f"{server.url}{RUNC}", *trusting),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == ExitCode.FAILED, ended.stderr
    assert ended.stderr.count("error:") == 1
    assert expected in ended.stderr
    assert password not in ended.stderr
    assert not (cache / "node-images").exists()
    assert not (cache / "build").exists()
