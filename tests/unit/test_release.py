"""Folders of a release, and what the tests' mirror makes of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.containers import tar
from tests.e2e import release as of_the_tests
from tests.upstream import release

KUBEADM = """#!/bin/sh
for repository; do :; done
printf '%s\\n' "$repository/etcd:3.6.8-0" "$repository/coredns:v1.14.2" "$repository/other:1"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*release.PROGRAMS, "etcdutl"):
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "kubeadm").write_text(KUBEADM)
    (tmp_path / "kubeadm").chmod(0o755)
    lines = [f"{name}=v1.2.3\n" for name in release.VERSIONS]
    (tmp_path / "versions.txt").write_text("".join(lines))
    return tmp_path


def members(made: release.Release, name: str) -> dict[str, tarfile.TarInfo]:
    """The files of an image's last layer."""
    image = made.images[name]
    layer = json.loads(image.manifest)["layers"][-1]["digest"]
    with tarfile.open(fileobj=io.BytesIO(image.blobs[layer])) as archive:
        return {each.name: each for each in archive}


def configuration(made: release.Release, name: str) -> dict[str, object]:
    image = made.images[name]
    found = json.loads(image.blobs[json.loads(image.manifest)["config"]["digest"]])["config"]
    assert isinstance(found, dict)
    return found


def test_images_have_what_upstreams_have(folder: Path) -> None:
    made = release.of_folder(folder, tar({"usr/sbin/iptables": b"it"}))
    assert made.kubernetes == "1.2.3"
    assert {*members(made, "etcd")} == {f"usr/local/bin/etcd{end}" for end in ("", "ctl", "utl")}
    assert {*members(made, "kube-proxy")} == {"usr/local/bin/kube-proxy"}
    assert len(json.loads(made.images["kube-proxy"].manifest)["layers"]) == 2
    # CoreDNS is not root: without the capability of its file it has no port 53.
    assert configuration(made, "coredns")["User"] == "65532:65532"
    headers = members(made, "coredns")["coredns"].pax_headers
    assert headers["SCHILY.xattr.security.capability"].encode()[4:8] == b"\0\4\0\0"
    assert configuration(made, "pause")["Entrypoint"] == ["/pause"]


def test_an_etcd_without_etcdutl_will_do(folder: Path) -> None:
    (folder / "etcdutl").unlink()
    made = release.of_folder(folder, tar({}))
    assert {*members(made, "etcd")} == {"usr/local/bin/etcd", "usr/local/bin/etcdctl"}


def test_images_are_named_as_its_kubeadm_names_them(folder: Path) -> None:
    made = release.of_folder(folder, tar({}))
    assert made.names("localhost:5443/kubernetes") == {
        "etcd": "localhost:5443/kubernetes/etcd:3.6.8-0",
        "coredns": "localhost:5443/kubernetes/coredns:v1.14.2",
    }


@pytest.mark.parametrize("name", ["runc", "versions.txt"])
def test_a_folder_that_lacks_something_is_none(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(release.ReleaseError, match=name):
        release.of_folder(folder, b"")


def test_all_that_a_folder_lacks_is_said(folder: Path) -> None:
    (folder / "versions.txt").write_text("kubernetes=1.36.2\nruncs=1\n")
    (folder / "pause").unlink()
    with pytest.raises(release.ReleaseError, match="runc=.*pause=.* pause"):
        release.versions_of(folder)


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        ("init --name e2e", "--allow-cgroup-v1 --kubernetes-version 1.36.2"),
        ("init --name e2e --local-image it.sif", "--allow-cgroup-v1"),
        ("init --name e2e --from saved", ""),
        ("bundle save it.sif", "--kubernetes-version 1.36.2"),
        ("node-image build", "--kubernetes-version 1.36.2"),
        ("node-image build --kubernetes-version 1.35.1", ""),
        ("node-image list", ""),
        ("status", ""),
        ("", ""),
    ],
)
def test_commands_that_choose_take_the_release_of_the_tests(
    arguments: str, added: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments.split()
    monkeypatch.delenv(of_the_tests.SERVED, raising=False)
    plain = of_the_tests.command(words)
    assert plain[1:] == ["-m", "sykube", *words]
    monkeypatch.setenv(of_the_tests.SERVED, "1.36.2")
    assert of_the_tests.command(words) == [*plain, *added.split()]
