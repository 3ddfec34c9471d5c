"""`sykube versions`: what can be had, with and without a release site, and what is cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.errors import ExitCode
from sykube.host.checksum import Checksum
from sykube.host.host import Host
from sykube.image import downloads, upstream
from tests import releases
from tests.e2e.site import make_authority
from tests.fakes.image import add_image
from tests.releases import Fault, Server
from tests.unit.helpers import Sykube

NEWEST = [f"{each}.4" for each in upstream.minors()]


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(releases.stable(NEWEST))
    monkeypatch.setenv("SYKUBE_KUBERNETES_MIRROR", made.url)
    yield made
    made.close()


def keep_download(host: Host) -> None:
    file = downloads.place(host, "kubernetes", "1.36.2", "amd64", "kubeadm")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a program" * 1_000_000)
    downloads.mark(file, Checksum.parse(hashlib.sha256(file.read_bytes()).hexdigest()))
    file.with_name(".kubelet.part").touch()


def test_the_newest_of_each_and_what_is_cached(host: Host, server: Server, sykube: Sykube) -> None:
    add_image(host.cache, "abc")
    keep_download(host)
    result = sykube("versions")
    assert result.code == 0
    for version in NEWEST:
        assert f" {version} " in result.out
    assert f"upstream ({server.url})" in result.out
    assert "1.20.2" in result.out
    assert "node image abc  1.20.2 (debian)  " in result.out
    assert "kubernetes 1.36.2 amd64  kubeadm  9 MB" in result.out
    assert "kubelet" not in result.out


def test_for_machines(host: Host, server: Server, sykube: Sykube) -> None:
    keep_download(host)
    del server.files["/release/stable-1.36.txt"]
    found = json.loads(sykube("versions", "--output", "json").out)
    assert (found["site"], found["problem"]) == (server.url, "")
    assert [each["newest"] or each["minor"] for each in found["upstream"]] == [
        version if not version.startswith("1.36.") else "1.36" for version in NEWEST
    ]
    assert found["debian"] == "1.20.2"
    assert found["nodeImages"] == []
    assert [each["project"] for each in found["downloads"]] == ["kubernetes"]


def test_without_a_release_site(server: Server, sykube: Sykube) -> None:
    server.fail("/release/stable-1.36.txt", Fault(503))
    result = sykube("versions")
    assert result.code == 0
    assert "the release site does not answer (cannot download" in result.out
    assert "stable-1.36.txt" in result.out
    assert "503" in result.out
    assert "1.36, 1.35" in result.out
    assert "cached: nothing" in result.out
    server.close()
    found = json.loads(sykube("versions", "-o", "json").out)
    assert "Connection refused" in found["problem"]
    assert {each["newest"] for each in found["upstream"]} == {""}


def test_a_release_site_that_says_nothing(server: Server, sykube: Sykube) -> None:
    server.fail("/release/stable-1.36.txt", Fault(stall=0))
    assert "does not answer" in sykube("versions", patience=0.03).out


def test_a_mirror_that_is_named_and_its_authority(
    sykube: Sykube, tmp_path: Path, server: Server
) -> None:
    authority = make_authority(tmp_path / "tls", "localhost")
    mirror = Server(releases.stable(NEWEST), certificate=tmp_path / "tls")
    try:
        asked = ("versions", "--kubernetes-mirror", f"{mirror.url}/")
        refused = sykube(*asked)
        assert "is not trusted" in refused.out
        taken = sykube(*asked, "--ca-certificate", str(authority))
    finally:
        mirror.close()
    assert taken.code == 0
    assert f"upstream ({mirror.url})" in taken.out
    assert server.asked == []


@pytest.mark.parametrize("url", ["mirror.example", "https://me:Planted@mirror.example"])
def test_a_mirror_that_is_none(
    server: Server, sykube: Sykube, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    result = sykube("versions", "--kubernetes-mirror", url)
    assert result.code == ExitCode.USAGE
    assert "error: --kubernetes-mirror" in result.err
    monkeypatch.setenv("SYKUBE_KUBERNETES_MIRROR", url)
    result = sykube("versions")
    assert result.code == ExitCode.USAGE
    assert "error: SYKUBE_KUBERNETES_MIRROR" in result.err
    assert "Planted" not in result.err
    assert server.asked == []
