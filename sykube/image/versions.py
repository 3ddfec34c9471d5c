"""What node images are made of, in one place, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass

# The registry that kubeadm 1.20 names by default; the images in a node image carry its names.
IMAGE_REPOSITORY = "k8s.gcr.io"
# What the programs of sykube/incluster run in.
SYSTEM_IMAGE = "sykube.local/system:1"


@dataclass(frozen=True)
class Source:
    """Where Kubernetes comes from.

    Attributes:
        name: of the source.
        kubernetes_version: without the v.
        build_suite: Debian release whose source package and Go build it.
        package: version of the source package, up to its Debian revision.
        pause_version: of the pause image that kubeadm of this version names.
        past_end_of_life: the date upstream support ended, for the notice.
    """

    name: str
    kubernetes_version: str
    build_suite: str
    package: str
    pause_version: str
    past_end_of_life: str


# Debian 12 is the last release whose source package `kubernetes` is the whole tree; later ones
# carry kubectl alone. The end of support of 1.20 is the one of
# https://kubernetes.io/releases/patch-releases/#non-active-branch-history
DEBIAN = Source(
    name="debian",
    kubernetes_version="1.20.2",
    build_suite="bookworm",
    package="1.20.5+really1.20.2",
    pause_version="3.2",
    past_end_of_life="2022-02-28",
)

# Debian 13's containerd 1.7 serves every Kubernetes from 1.20 to 1.35; Debian 12's stops earlier.
NODE_SUITE = "trixie"

KUBERNETES_PROGRAMS = (
    "kubeadm",
    "kubelet",
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)
CONTAINER_IMAGE_PACKAGES = (
    "conntrack",
    "docker-registry",
    "etcd-server",
    "iptables",
    "kmod",
    "python3-dnspython",
    "python3-minimal",
    "unbound",
)
NODE_PACKAGES = (
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "crun",
    "ebtables",
    "etcd-client",
    "ethtool",
    "iproute2",
    "iptables",
    "keepalived",
    "kmod",
    "mount",
    "procps",
    "runc",
    "socat",
    "supervisor",
    "util-linux",
)
