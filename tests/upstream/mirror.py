"""What stands for upstream on loopback: its release sites and its registry, of this very machine.

The programs and container images are those that sykube has built of Debian's source, 1.20.2, laid
out as upstream's releases and put into Debian's docker-registry; containerd and runc are Debian's,
under the numbers that sykube's table has for 1.20. Debian has no CoreDNS, and none is there.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sykube.host import apt, engines
from sykube.image import build, container, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.image.upstream import Release
from tests import releases
from tests.containers import tar
from tests.e2e.site import make_authority
from tests.releases import CONTAINERD, RUNC, Server
from tests.upstream.registry import LOGIN, DebianRegistry, Image

VERSION = versions.DEBIAN.kubernetes_version
SITE_LOGIN = "me:secret-of-the-site"
# The node image is named after it: one that is cached is found again.
_PORT = 5443
HOST = f"localhost:{_PORT}"
REPOSITORY = f"{HOST}/kubernetes"
# Folders with the certificates of the one and the other, each of an authority of its own.
_SITE, _REGISTRY = "site", "registry"
_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "pause")
_PAUSE = versions.DEBIAN.pause_version
# What kubeadm names: cmd/kubeadm/app/constants/constants.go of v1.20.2.
_ETCD = "3.4.13-0"


@dataclass(frozen=True)
class Mirror:
    """The servers, and how a user names them."""

    server: Server
    registry: DebianRegistry
    folder: Path

    def options(
        self,
        *,
        repository: str = REPOSITORY,
        authorities: Sequence[str] = (_SITE, _REGISTRY),
        auth: str = "auth",
    ) -> tuple[str, ...]:
        """Of the commands that choose a Kubernetes."""
        trusted = [f"{self.folder}/{each}/ca.pem" for each in authorities]
        return (
            *("--source", "upstream", "--kubernetes-version", VERSION),
            *("--kubernetes-mirror", self.server.url),
            *("--containerd-mirror", f"{self.server.url}{CONTAINERD}"),
            *("--runc-mirror", f"{self.server.url}{RUNC}"),
            *("--image-repository", repository),
            *(word for file in trusted for word in ("--ca-certificate", file)),
            *("--registry-auth", str(self.folder / f"{auth}.json")),
        )

    @property
    def variables(self) -> dict[str, str]:
        """Of their environment."""
        return {"NETRC": str(self.folder / "netrc")}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing may show."""
        logins = (LOGIN, SITE_LOGIN)
        packed = (base64.b64encode(each.encode()).decode() for each in logins)
        return (*(each.partition(":")[2] for each in logins), *packed)

    def asked(self) -> tuple[list[str], list[str]]:
        """What the sites, and the registry, have been asked for since the last call."""
        found = self.server.asked, self.registry.asked
        self.server.requests.clear()
        self.registry.forget()
        return found


@contextmanager
def running(folder: Path) -> Iterator[Mirror]:
    """The mirror, made of the cached node image of Debian's source; nobody is asked for it."""
    node = build.cached(versions.DEBIAN, apt.Mirror(""))
    assert node, "first: make node-image"
    engine = engines.find()
    assert engine
    builder = Builder(engine.binary, {**os.environ, **engine.environment})
    archives = _archives(folder, builder)
    programs = _programs(node, folder, builder)
    for name in (_SITE, _REGISTRY):
        make_authority(folder / name, "localhost")
    _write_logins(folder)
    with ExitStack() as held:
        server = held.enter_context(
            closing(Server(_files(programs), certificate=folder / _SITE, login=SITE_LOGIN))
        )
        root = _root(archives / "system.tar", folder / "root")
        registry = held.enter_context(DebianRegistry(root, folder / _REGISTRY, _PORT))
        for name in _IMAGES:
            tag = _PAUSE if name == "pause" else f"v{VERSION}"
            registry.put(f"kubernetes/{name}", tag, Image.of(archives / f"{name}.tar"))
        etcdctl = tar({"usr/local/bin/etcdctl": programs["etcdctl"]})
        etcd = Image.of(archives / "etcd.tar").with_layer(etcdctl)
        registry.put("kubernetes/etcd", _ETCD, etcd)
        yield Mirror(server, registry, folder)


def _archives(folder: Path, builder: Builder) -> Path:
    """The OCI archives that the node image was made with."""
    sif = build._stage(build.layers(versions.DEBIAN, apt.Mirror(""))[-2])
    assert sif.exists(), "first: sykube node-image build --source debian --force"
    words: list[str | Path] = [
        builder.binary,
        "--silent",
        "build",
        "--sandbox",
        folder / "images",
        sif,
    ]
    subprocess.run(words, env=builder.environment, check=True, timeout=600)
    return folder / "images/opt/container-images"


def _programs(node: NodeImage, folder: Path, builder: Builder) -> dict[str, bytes]:
    """Programs of a node image, by their names."""
    (folder / "programs").mkdir()
    found = {}
    for path in (
        *("/usr/bin/kubeadm", "/usr/bin/kubelet", "/usr/bin/kubectl", "/usr/bin/etcdctl"),
        *("/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/bin/ctr"),
        "/usr/sbin/runc",
    ):
        target = folder / "programs" / Path(path).name
        build._extract(node.sif, path, target, builder)
        found[target.name] = target.read_bytes()
    return found


def _files(programs: dict[str, bytes]) -> dict[str, bytes]:
    """The release sites."""
    release, architecture = Release.of(VERSION), container.machine()
    archive = io.BytesIO()
    # As the target releases/%.tar.gz of containerd's Makefile packs it.
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as packed:
        for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
            member = tarfile.TarInfo(f"bin/{name}")
            member.size, member.mode = len(programs[name]), 0o755
            packed.addfile(member, io.BytesIO(programs[name]))
    own = {name: programs[name] for name in ("kubeadm", "kubelet", "kubectl")}
    return (
        releases.kubernetes(VERSION, own, architecture)
        | releases.stable([VERSION])
        | releases.containerd(release.containerd, archive.getvalue(), architecture)
        | releases.runc(release.runc, {architecture: programs["runc"]})
    )


def _root(archive: Path, root: Path) -> Path:
    """The root file system of an image's first layer."""
    image = Image.of(archive)
    layer = json.loads(image.manifest)["layers"][0]["digest"]
    root.mkdir()
    words: list[str | Path] = ["tar", "-x", "-C", root, "--exclude=./dev/*"]
    words += ["-z"] if image.blobs[layer][:2] == b"\x1f\x8b" else []
    subprocess.run(words, input=image.blobs[layer], check=True, timeout=300)
    return root


def _write_logins(folder: Path) -> None:
    user, _, password = SITE_LOGIN.partition(":")
    for name, text in (
        ("auth.json", _auth(LOGIN)),
        ("wrong.json", _auth(f"{LOGIN}-of-another")),
        ("netrc", f"machine localhost login {user} password {password}\n"),
    ):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)


def _auth(login: str) -> str:
    return json.dumps({"auths": {HOST: {"auth": base64.b64encode(login.encode()).decode()}}})
