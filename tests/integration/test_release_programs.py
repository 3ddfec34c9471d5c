"""scripts/release-programs, against sites and a registry on loopback."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.errors import ExitCode
from sykube.host.host import Host
from sykube.image import oci
from sykube.image.mirrors import SETTINGS
from sykube.image.upstream import Release
from tests import containers, releases
from tests.containers import Image, tar
from tests.e2e.registry import Registry
from tests.e2e.site import secured
from tests.releases import CONTAINERD, RUNC, STORE, Fault, Server
from tests.upstream import release

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/release-programs"
VERSION = "1.36.99"
TABLE = Release.of(VERSION)
# What it pulls, of the repository that it is given as the last word.
KUBEADM = """#!/bin/sh
for repository; do :; done
for name in etcd:3.6.8-0 coredns:v1.14.2 pause:3.10.2; do echo "$repository/$name"; done
"""
CONTENT = {name: f"this is {name}".encode() for name in (*release.PROGRAMS, "etcdutl")}
CONTENT["kubeadm"] = KUBEADM.encode()


@pytest.fixture
def server(tls: Path) -> Iterator[Server]:
    architecture = oci.machine(Host())
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name in release.CONTAINERD:
            member = tarfile.TarInfo(f"bin/{name}")
            member.size = len(CONTENT[name])
            archive.addfile(member, io.BytesIO(CONTENT[name]))
    programs = {name: CONTENT[name] for name in release.KUBERNETES}
    running = Server(
        releases.kubernetes(VERSION, programs, architecture)
        | releases.stable([VERSION])
        | releases.containerd(TABLE.containerd, made.getvalue(), architecture)
        | releases.runc(TABLE.runc, {architecture: CONTENT["runc"]}),
        certificate=tls,
    )
    yield running
    running.close()


@pytest.fixture
def registry(tls: Path) -> Iterator[Registry]:
    """One image stands for all: what a later layer has counts."""
    first = {f"usr/local/bin/{name}": CONTENT[name] for name in ("etcdctl", "etcdutl")}
    layers = [
        tar({"usr/local/bin/etcd": b"another", "pause": CONTENT["pause"], **first}),
        tar({"./usr/local/bin/etcd": CONTENT["etcd"], "./coredns": CONTENT["coredns"]}),
    ]
    image = Image(layers, {})
    parts = {containers.digest(each): each for each in image.blobs.values()}
    with Registry(("127.0.0.1", 0), parts, image.manifest, context=secured(tls)) as running:
        yield running


def fill(folder: Path, server: Server, registry: Registry, tls: Path, version: str) -> str:
    """Run the script; its standard error. Fails where it does."""
    assert shutil.which("skopeo"), "scripts/test-packages installs it"
    sites = {
        "kubernetes": server.url,
        "containerd": f"{server.url}{CONTAINERD}",
        "runc": f"{server.url}{RUNC}",
        "images": f"localhost:{registry.port}/kubernetes",
    }
    own = {SETTINGS[name].variable: at for name, at in sites.items()}
    own["SYKUBE_CACHE_DIR"] = str(folder.with_name("cache"))
    others = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    ended = subprocess.run(
        [SCRIPT, version, folder.name, "--ca-certificate", str(tls / "ca.pem")],
        cwd=folder.parent,
        env=others | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ended.returncode != 0:
        raise subprocess.CalledProcessError(ended.returncode, SCRIPT, stderr=ended.stderr)
    return ended.stderr


@pytest.mark.parametrize("version", [VERSION, "1.36"])
def test_it_fills_a_folder(
    version: str, tmp_path: Path, server: Server, registry: Registry, tls: Path
) -> None:
    folder = tmp_path / "release"
    fill(folder, server, registry, tls, version)
    for name, content in CONTENT.items():
        assert (folder / name).read_bytes() == content, name
        assert (folder / name).stat().st_mode & 0o777 == 0o755
    assert release.versions_of(folder) == {
        "kubernetes": VERSION,
        "containerd": TABLE.containerd,
        "runc": TABLE.runc,
        "etcd": "3.6.8",
        "coredns": "1.14.2",
        "pause": "3.10.2",
    }
    # Also where there is one already.
    fill(folder, server, registry, tls, version)
    assert {each.name for each in folder.iterdir()} == {*CONTENT, "versions.txt"}


def test_what_is_damaged_is_one_error_and_the_folder_is_none_of_a_release(
    tmp_path: Path, server: Server, registry: Registry, tls: Path
) -> None:
    folder = tmp_path / "release"
    fill(folder, server, registry, tls, VERSION)
    shutil.rmtree(tmp_path / "cache")
    scheduler = f"{STORE}/release/v{VERSION}/bin/linux/{oci.machine(Host())}/kube-scheduler"
    server.faults[f"{scheduler}?signed=Planted"].append(Fault(damaged=True))
    with pytest.raises(subprocess.CalledProcessError) as raised:
        fill(folder, server, registry, tls, VERSION)
    assert raised.value.returncode == ExitCode.FAILED
    assert raised.value.stderr.count("error:") == 1
    assert "it is damaged or was changed on the way" in raised.value.stderr


def test_an_image_that_cannot_be_had_is_one_error(
    tmp_path: Path, server: Server, registry: Registry, tls: Path
) -> None:
    folder = tmp_path / "release"
    registry.close()
    with pytest.raises(subprocess.CalledProcessError) as raised:
        fill(folder, server, registry, tls, VERSION)
    assert raised.value.returncode == ExitCode.FAILED
    assert raised.value.stderr.count("error:") == 1
    assert f"cannot pull the image localhost:{registry.port}/kubernetes/etcd" in raised.value.stderr
    with pytest.raises(release.ReleaseError, match=r"versions\.txt"):
        release.versions_of(folder)
