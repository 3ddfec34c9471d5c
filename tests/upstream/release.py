"""A release of upstream's as programs in a folder, and the container images made of them.

The folder has the files of PROGRAMS, etcdutl where etcd has one, and `versions.txt` with a line NAME=VERSION for each of
VERSIONS; docs/testing-releases.md says how to fill one. An image holds what upstream's own has at
the same place, for the same user; kube-proxy's has Debian 13 below it for iptables and conntrack.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import containers
from tests.upstream.registry import Image

VERSIONS = ("kubernetes", "containerd", "runc", "etcd", "coredns", "pause")
VERSIONS_FILE = "versions.txt"
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
KUBERNETES = ("kubeadm", "kubelet", "kubectl", *CONTROL_PLANE, "kube-proxy")
_ETCD = ("etcd", "etcdctl")
# Upstream's image of an older etcd lacks it.
_ETCDUTL = "etcdutl"
_SITE_PROGRAMS = (*KUBERNETES, *CONTAINERD, "runc")
PROGRAMS = (*_SITE_PROGRAMS, *_ETCD, "coredns", "pause")
_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
# Those of distroless images, and of kubernetes/kubernetes, build/pause/Dockerfile.
_NONROOT, _PAUSE_USER = "65532:65532", "65535:65535"
# struct vfs_cap_data of linux/capability.h, revision 2, effective: CAP_NET_BIND_SERVICE (10).
_MAY_BIND = b"\1\0\0\2" + (1 << 10).to_bytes(4, "little") + bytes(12)


class ReleaseError(Exception):
    """The folder is none of a release."""


@dataclass(frozen=True)
class Release:
    """What a mirror has of one version.

    Attributes:
        kubernetes: its version, without the v.
        programs: those that the release sites have, by their names.
        images: by the last part of the name that kubeadm gives.
        versions: what the programs are, by VERSIONS; the first parts of a version may do.
    """

    kubernetes: str
    programs: Mapping[str, Path]
    images: Mapping[str, Image]
    versions: Mapping[str, str] = field(default_factory=dict)

    def names(self, repository: str) -> dict[str, str]:
        """What its kubeadm pulls, REGISTRY/PATH:TAG, by the names of images; those there are."""
        named = image_names(self.programs["kubeadm"], self.kubernetes, repository)
        return {name: reference for name, reference in named.items() if name in self.images}


def image_names(kubeadm: Path, version: str, repository: str) -> dict[str, str]:
    """What kubeadm pulls for a version, REGISTRY/PATH:TAG, by the last part before the tag."""
    words: list[str | Path] = [kubeadm, "config", "images", "list"]
    words += ["--kubernetes-version", f"v{version}", "--image-repository", repository]
    # The standard error has what it warns of.
    listed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return {each.rpartition("/")[2].partition(":")[0]: each for each in listed.stdout.split()}


def versions_of(folder: Path) -> dict[str, str]:
    """The versions that a folder of a release names.

    Raises:
        ReleaseError: it is none, with all that is missing.
    """
    try:
        lines = (folder / VERSIONS_FILE).read_text(encoding="utf-8").split()
    except OSError as error:
        raise ReleaseError(f"{folder} is no folder of a release: {error}") from error
    found = {
        name: version.removeprefix("v") for name, _, version in (x.partition("=") for x in lines)
    }
    missing = [f"{VERSIONS_FILE}: {name}=" for name in VERSIONS if not found.get(name)]
    missing += [name for name in PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(f"{folder} lacks {', '.join(missing)}; docs/testing-releases.md")
    return found


def of_folder(folder: Path, debian: bytes) -> Release:
    """The release in a folder.

    Args:
        debian: a layer with Debian, for kube-proxy.

    Raises:
        ReleaseError: the folder lacks something.
    """
    versions = versions_of(folder)
    images = {name: _image(_layer(folder, name)) for name in CONTROL_PLANE}
    images["kube-proxy"] = _image(debian, _layer(folder, "kube-proxy"))
    further = [_ETCDUTL] if (folder / _ETCDUTL).exists() else []
    images["etcd"] = _image(_layer(folder, *_ETCD, *further))
    # As its Dockerfile has it: not root, and yet port 53.
    coredns = _layer(folder, "coredns", where="", capability=_MAY_BIND)
    images["coredns"] = _image(coredns, Entrypoint=["/coredns"], User=_NONROOT)
    pause = _layer(folder, "pause", where="")
    images["pause"] = _image(pause, Entrypoint=["/pause"], User=_PAUSE_USER)
    programs = {name: folder / name for name in _SITE_PROGRAMS}
    return Release(versions["kubernetes"], programs, images, versions)


def _image(*layers: bytes, **config: Any) -> Image:
    made = containers.Image(layers, {"Env": _ENVIRONMENT, **config})
    blobs = {containers.digest(each): each for each in (*layers, made.configuration)}
    return Image(blobs, made.manifest)


def _layer(
    folder: Path, *names: str, where: str = "usr/local/bin/", capability: bytes = b""
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            member = tarfile.TarInfo(f"{where}{name}")
            member.size, member.mode = (folder / name).stat().st_size, 0o755
            if capability:
                member.pax_headers = {"SCHILY.xattr.security.capability": capability.decode()}
            with (folder / name).open("rb") as stream:
                archive.addfile(member, stream)
    return made.getvalue()
