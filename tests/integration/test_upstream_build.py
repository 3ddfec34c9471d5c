"""A node image of upstream's releases, built by the real command from sites on loopback.

There is no upstream here. The programs of Kubernetes and the container images are those that
sykube has built of Debian's source, 1.20.2, and containerd and runc are of Debian's next release,
since 1.20's own does not read the configuration of containerd 2. They are served under
the numbers of a release that sykube knows: its table has no 1.20 of upstream's, because containerd
2 does not speak the CRI (v1alpha2) of that kubelet, and so no cluster can be made of this image.
Nor has Debian CoreDNS: the image of sykube's own programs bears its name here.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import ExitCode
from sykube.host import apt, engines
from sykube.host.paths import LOGS
from sykube.image import build, container, versions
from sykube.image.upstream import Release
from tests import releases
from tests.containers import descriptor, digest, tar
from tests.e2e.registry import Registry
from tests.e2e.site import make_authority, secured
from tests.releases import CONTAINERD, RUNC, Fault, Server

pytestmark = pytest.mark.integration

VERSION = "1.30.99"
RELEASE = Release.of(VERSION)
LOGIN = "me:secret-of-the-registry"
NAMES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "pause")
_BUILD_S = 1500.0


@dataclass(frozen=True)
class Image:
    blobs: Mapping[str, bytes]
    manifest: bytes

    @classmethod
    def of(cls, archive: Path) -> Image:
        """The image of an OCI archive."""
        with tarfile.open(archive) as opened:
            files = {
                each.name.removeprefix("./"): stream.read()
                for each in opened
                if (stream := opened.extractfile(each))
            }
        blobs = {digest(data): data for name, data in files.items() if name.startswith("blobs/")}
        return cls(blobs, blobs[json.loads(files["index.json"])["manifests"][0]["digest"]])

    def with_layer(self, layer: bytes) -> Image:
        """The same with one more layer."""
        manifest = json.loads(self.manifest)
        config = json.loads(self.blobs[manifest["config"]["digest"]])
        config["rootfs"]["diff_ids"].append(digest(layer))
        data = json.dumps(config).encode()
        manifest["config"] = descriptor(data, container.CONFIG)
        manifest["layers"].append(descriptor(layer, container.LAYER))
        return Image(
            {**self.blobs, digest(data): data, digest(layer): layer}, json.dumps(manifest).encode()
        )


class Images(Registry):
    """A registry of several images, each under any tag."""

    def __init__(self, images: Mapping[str, Image], **how: Any) -> None:
        self._images = images
        blobs = {name: data for each in images.values() for name, data in each.blobs.items()}
        super().__init__(("127.0.0.1", 0), blobs, b"", **how)

    def _found(self, path: str) -> tuple[bytes | None, str]:
        if "/manifests/" not in path:
            return super()._found(path)
        image = self._images.get(path.partition("/manifests/")[0].rpartition("/")[2])
        return image and image.manifest, container.MANIFEST


@dataclass(frozen=True)
class Upstream:
    """What stands for upstream: its release sites, its registry, and how a user names them."""

    server: Server
    registry: Images
    folder: Path

    def build(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "sykube", "node-image", "build", "--source", "upstream"),
                *("--kubernetes-version", VERSION, "--kubernetes-mirror", self.server.url),
                *("--containerd-mirror", f"{self.server.url}{CONTAINERD}"),
                *("--runc-mirror", f"{self.server.url}{RUNC}"),
                *("--image-repository", f"localhost:{self.registry.port}/kubernetes"),
                *("--ca-certificate", str(self.folder / "tls/ca.pem")),
                *("--registry-auth", str(self.folder / "auth.json"), "--output", "json", *more),
            ],
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )


def _packages(folder: Path) -> Path:
    """A tree with containerd 2 and runc, of which apt has checked the signatures."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={apt.KEYRING}] {apt.find_mirror().main} forky main\n")
    options = [
        f"-oDir::Etc::sourcelist={sources}",
        "-oDir::Etc::sourceparts=-",
        f"-oDir::State::lists={folder}/lists",
        f"-oDir::Cache={folder}/cache",
        "-oAPT::Sandbox::User=root",
    ]
    for words in (["update"], ["download", "containerd", "runc"]):
        subprocess.run(["apt-get", *options, "-q", *words], cwd=folder, check=True, timeout=300)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "tree"], check=True)
    return folder / "tree"


def _archive(tree: Path) -> bytes:
    """Laid out as containerd's own: script/release in its Makefile."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
            archive.add(tree / "usr/bin" / name, f"bin/{name}")
    return made.getvalue()


def _unpacked(sif: Path, folder: Path) -> Path:
    engine = engines.find_or_create(apt.find_mirror, print)
    words = [engine.binary, "--silent", "build", "--sandbox", folder, sif]
    subprocess.run(words, env=os.environ | engine.environment, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("upstream")
    mirror = apt.Mirror("")
    node = build.cached(versions.DEBIAN, mirror)
    assert node, "first: make node-image"
    root = _unpacked(node.sif, folder / "node")
    made = _unpacked(build._stage(build.layers(versions.DEBIAN, mirror)[-2]), folder / "images")
    archives = made / "opt/container-images"
    images = {name: Image.of(archives / f"{name}.tar") for name in NAMES}
    etcdctl = tar({"usr/local/bin/etcdctl": (root / "usr/bin/etcdctl").read_bytes()})
    images["etcd"] = Image.of(archives / "etcd.tar").with_layer(etcdctl)
    images["coredns"] = Image.of(archives / "system.tar")
    tree = _packages(folder / "packages")
    programs = {name: (root / "usr/bin" / name).read_bytes() for name in ("kubeadm", "kubelet")}
    programs["kubectl"] = (root / "usr/bin/kubectl").read_bytes()
    architecture = container.machine()
    server = Server(
        releases.kubernetes(VERSION, programs, architecture)
        | releases.containerd(RELEASE.containerd, _archive(tree), architecture)
        | releases.runc(RELEASE.runc, {architecture: next(tree.glob("usr/*bin/runc")).read_bytes()})
    )
    make_authority(folder / "tls", "localhost")
    registry = Images(images, login=LOGIN, context=secured(folder / "tls"))
    auth = base64.b64encode(LOGIN.encode()).decode()
    (folder / "auth.json").touch(mode=0o600)
    (folder / "auth.json").write_text(
        json.dumps({"auths": {f"localhost:{registry.port}": {"auth": auth}}})
    )
    yield Upstream(server, registry, folder)
    server.close()
    registry.close()


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of its own, with this machine's engine."""
    own = tmp_path_factory.mktemp("cache")
    engines.find_or_create(apt.find_mirror, print)
    root = engines.private().root
    with pytest.MonkeyPatch.context() as patch:
        if root.exists():
            (own / "apptainer").symlink_to(root)
        for name in ("http_proxy", "https_proxy", "NETRC"):
            patch.delenv(name, raising=False)
        yield own


def test_a_damaged_program_is_refused_before_anything_is_built(
    upstream: Upstream, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(cache))
    stored = f"{releases.STORE}/release/v{VERSION}/bin/linux/{container.machine()}/kubelet"
    upstream.server.faults[f"{stored}?signed=Planted"].append(Fault(damaged=True))
    ended = upstream.build()
    assert ended.returncode == ExitCode.FAILED, ended.stderr
    assert "it is damaged or was changed on the way" in ended.stderr
    assert not (cache / "node-images").exists()


def test_a_node_image_of_upstreams_releases(
    upstream: Upstream, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(cache))
    ended = upstream.build("--yes")
    assert ended.returncode == 0, ended.stderr
    assert (
        f"Kubernetes {VERSION} from Upstream (a release of {upstream.server.url})" in ended.stderr
    )
    found = json.loads(ended.stdout)
    prefix = f"localhost:{upstream.registry.port}/kubernetes"
    own = {name for name in found["containerImages"] if name.startswith(prefix)}
    assert {name.rpartition("/")[2].partition(":")[0] for name in own} == {
        *NAMES,
        "etcd",
        "coredns",
    }
    # What is in it says so itself.
    assert found["versions"]["kubernetes"] == f"v{versions.DEBIAN.kubernetes_version}"
    assert found["versions"]["containerd"].startswith("2.")
    assert upstream.registry.refused > 0, "the password was asked for"
    told = ended.stdout + ended.stderr + (LOGS / "node-image.log").read_text()
    for secret in (LOGIN, base64.b64encode(LOGIN.encode()).decode()):
        assert secret not in told

    upstream.server.requests.clear()
    upstream.registry.asked.clear()
    again = upstream.build()
    assert json.loads(again.stdout)["fingerprint"] == found["fingerprint"]
    assert (upstream.server.asked, upstream.registry.asked) == ([], [])
