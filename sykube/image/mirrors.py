"""Where upstream publishes what a node is made of, and mirrors laid out like it.

Sources of the layouts:
Kubernetes: https://kubernetes.io/docs/tasks/tools/install-kubectl-linux/ and, for stable-1.N.txt,
kubernetes/kubernetes, cmd/kubeadm/app/util/version.go
containerd: https://github.com/containerd/containerd/blob/main/docs/getting-started.md, and its
Makefile for the checksums
runc: the same page, and opencontainers/runc, script/release_build.sh and release_sign.sh
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sykube.errors import UsageError

# https://github.com/distribution/reference: a host that may have a port, then a path.
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


@dataclass(frozen=True)
class Mirrors:
    """Base URLs of downloads, without a slash at the end, and where images are named after.

    Attributes:
        kubernetes: what holds release/.
        containerd, runc: what holds a folder vVERSION/ for each release.
        images: registry and path before the names of the control plane's images.
    """

    kubernetes: str = "https://dl.k8s.io"
    containerd: str = "https://github.com/containerd/containerd/releases/download"
    runc: str = "https://github.com/opencontainers/runc/releases/download"
    images: str = "registry.k8s.io"

    @property
    def kubernetes_is_mirrored(self) -> bool:
        """Whether the user has named a release site of Kubernetes."""
        return self.kubernetes != Mirrors.kubernetes

    def stable(self, minor: str = "") -> str:
        """The text with the newest release, of all or of one minor version such as 1.36."""
        return f"{self.kubernetes}/release/stable{f'-{minor}' if minor else ''}.txt"

    def kubernetes_program(self, version: str, architecture: str, name: str) -> str:
        """kubeadm, kubelet or kubectl; .sha256 and .sha512 at its end name the checksums."""
        return f"{self.kubernetes}/release/v{version}/bin/linux/{architecture}/{name}"

    def containerd_archive(self, version: str, architecture: str) -> str:
        """The tar archive with bin/containerd and its like; its checksum has .sha256sum more."""
        return f"{self.containerd}/v{version}/containerd-{version}-linux-{architecture}.tar.gz"

    def runc_program(self, version: str, architecture: str) -> str:
        return f"{self.runc}/v{version}/runc.{architecture}"

    def runc_checksums(self, version: str) -> str:
        """The signed list with the checksums of all files of a release."""
        return f"{self.runc}/v{version}/runc.sha256sum"


@dataclass(frozen=True)
class Setting:
    """How a user names one of the sites."""

    option: str
    variable: str
    help: str


# By the field of Mirrors.
SETTINGS: Mapping[str, Setting] = {
    "kubernetes": Setting(
        "--kubernetes-mirror",
        "SYKUBE_KUBERNETES_MIRROR",
        "Release site of Kubernetes, what holds release/.",
    ),
    "containerd": Setting(
        "--containerd-mirror",
        "SYKUBE_CONTAINERD_MIRROR",
        "Releases of containerd, what holds vVERSION/.",
    ),
    "runc": Setting(
        "--runc-mirror", "SYKUBE_RUNC_MIRROR", "Releases of runc, what holds vVERSION/."
    ),
    "images": Setting(
        "--image-repository",
        "SYKUBE_IMAGE_REPOSITORY",
        "Registry, and path, of the control plane's images.",
    ),
}


def chosen(asked: Mapping[str, str], environment: Mapping[str, str]) -> Mirrors:
    """The sites to use: each that was asked for, else the one of its variable, else upstream's.

    Args:
        asked: by the field of Mirrors; empty ones were not given.

    Raises:
        UsageError: with all that is wrong.
    """
    found, problems = {}, []
    for name, setting in SETTINGS.items():
        value = asked.get(name) or environment.get(setting.variable, "")
        where = setting.option if asked.get(name) else setting.variable
        if value:
            found[name] = value.rstrip("/")
            if wrong := problem(name, value):
                problems.append(f"{where} {wrong}")
    if problems:
        raise UsageError("\n".join(problems), resolution="Correct it and run the command again.")
    return dataclasses.replace(Mirrors(), **found)


def problem(name: str, value: str) -> str:
    """What is wrong with one of the sites, without saying it again: it may hold a password."""
    if name == "images":
        ok = _REPOSITORY.fullmatch(value.rstrip("/"))
        return "" if ok else "is no registry with a path, such as registry.example/kubernetes"
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not value.isprintable() or " " in value:
        return "is no http or https URL"
    if "@" in parts.netloc:
        return (
            "has a password in its URL, which everybody could read: put it into ~/.netrc, or the "
            "file that NETRC names"
        )
    return "is a URL with a query or fragment" if parts.query or parts.fragment else ""


def elsewhere(name: str) -> str:
    """What can be done where a site does not answer, for errors."""
    return f"Another site: {SETTINGS[name].option} URL"
