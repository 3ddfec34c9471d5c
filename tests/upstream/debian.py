"""What the mirror has of Debian: its root file system, and Kubernetes as sykube builds it.

The programs and container images of 1.20.2 are those that sykube has built of Debian's source;
containerd and runc are Debian's, and there is no CoreDNS.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

from sykube.host import apt, lock
from sykube.host.host import Host
from sykube.image import build, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from tests.containers import tar
from tests.upstream.registry import Image
from tests.upstream.release import Release

_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "pause")
# Of the registry, and of what kube-proxy starts.
_PACKAGES = ("ca-certificates", "conntrack", "docker-registry", "iptables", "kmod")


def mirror_cache() -> Path:
    """Where the mirror's files are: mirror below sykube's cache folder."""
    folder = Host().cache / "mirror"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def layer() -> bytes:
    """A root file system with _PACKAGES, a tar; from the cache, or by debootstrap."""
    key = hashlib.sha256(json.dumps([versions.NODE_SUITE, _PACKAGES]).encode()).hexdigest()[:16]
    kept = mirror_cache() / f"debian-{key}.tar"
    with lock.in_turn(mirror_cache()):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=mirror_cache()) as name:
                _bootstrap(Path(name) / "root")
                made = Path(name) / "made.tar"
                words = ["tar", "--numeric-owner", "--one-file-system", "-C", f"{name}/root"]
                words += [f"--exclude=./{each}/*" for each in ("proc", "sys", "dev", "run", "tmp")]
                words += ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*"]
                subprocess.run([*words, "-cf", made, "."], check=True, timeout=300)
                made.rename(kept)
    return kept.read_bytes()


def _bootstrap(root: Path) -> None:
    words = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    words += [versions.NODE_SUITE, str(root), apt.find_mirror(Host()).main]
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"debootstrap: {done.stdout[-2000:]}"


def unpack(layer: bytes, root: Path) -> Path:
    """The root file system that a layer has."""
    root.mkdir()
    words: list[str | Path] = ["tar", "-x", "-C", root, "--exclude=./dev/*"]
    words += ["-z"] if layer[:2] == b"\x1f\x8b" else []
    subprocess.run(words, input=layer, check=True, timeout=300)
    return root


def release(folder: Path, builder: Builder) -> tuple[Release, bytes]:
    """1.20.2, of sykube's cached images, and their layer of Debian; nobody is asked for it."""
    node = build.cached(Host(), versions.DEBIAN, apt.Mirror(""))
    assert node, "first: make node-image"
    archives, programs = _archives(), _programs(node, folder, builder)
    images = {name: Image.of(archives / f"{name}.tar") for name in _IMAGES}
    etcdctl = tar({"usr/local/bin/etcdctl": programs.pop("etcdctl").read_bytes()})
    images["etcd"] = Image.of(archives / "etcd.tar").with_layer(etcdctl)
    system = Image.of(archives / "system.tar")
    first = json.loads(system.manifest)["layers"][0]["digest"]
    version = versions.DEBIAN.kubernetes_version
    made = Release(version, programs, images, {"kubernetes": version, "containerd": "1.7"})
    return made, system.blobs[first]


def _archives() -> Path:
    """The OCI archives that the node image was made with."""
    made = build._stage(Host(), build.layers(Host(), versions.DEBIAN, apt.Mirror(""))[-2])
    assert made.exists(), "first: sykube node-image build --source debian --force"
    return made


def _programs(node: NodeImage, folder: Path, builder: Builder) -> dict[str, Path]:
    """Programs of a node image, by their names."""
    (folder / "programs").mkdir()
    found = {}
    for path in (
        *("/usr/bin/kubeadm", "/usr/bin/kubelet", "/usr/bin/kubectl", "/usr/bin/etcdctl"),
        *("/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/bin/ctr"),
        "/usr/sbin/runc",
    ):
        target = folder / "programs" / Path(path).name
        build.extract(Host(), node.sif, path, target, builder)
        found[target.name] = target
    return found
