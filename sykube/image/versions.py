"""What node images are made of, in one place, with its reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import UsageError

# The registry that kubeadm 1.20 names by default; the images made from Debian carry its names.
IMAGE_REPOSITORY = "k8s.gcr.io"
# What the programs of sykube/incluster run in.
SYSTEM_IMAGE = "sykube.local/system:1"

_VERSION = re.compile(r"v?(\d+)\.(\d+)(\.\d+.*)?")


@dataclass(frozen=True)
class Minor:
    """A minor version of Kubernetes that sykube can make clusters of.

    Attributes:
        version: MAJOR.MINOR.
        sources: where its programs can come from, debian or upstream; the first where nothing says.
        kubeadm_api: version of kubeadm.k8s.io that its configuration is written in.
        end_of_life: the date upstream support ends or ended.
        containerd: the release for it, for the source upstream; Debian's is that of NODE_SUITE.
        runc: and of runc.
    """

    version: str
    sources: tuple[str, ...]
    kubeadm_api: str
    end_of_life: str
    containerd: str
    runc: str

    @property
    def number(self) -> int:
        """The MINOR of MAJOR.MINOR."""
        return int(self.version.split(".")[1])

    @property
    def has_dockershim(self) -> bool:
        """Whether the kubelet must be told not to use Docker.

        Its flag --container-runtime went with 1.27, where it is an error. Source:
        CHANGELOG/CHANGELOG-1.24.md and CHANGELOG-1.27.md of kubernetes/kubernetes.
        """
        return self.number < 24

    @property
    def has_coredns(self) -> bool:
        """Whether kubeadm's CoreDNS answers for its cluster's names; otherwise sykube's own DNS.

        Debian has none, and that of 1.20 is 1.7.0 of 2020 (kubernetes/kubernetes,
        cmd/kubeadm/app/constants/constants.go at v1.20.2), long without fixes. What all clusters
        of Debian's 1.20 are tested with serves those of upstream's as well.
        """
        return self.number > 20

    @property
    def has_sidecars(self) -> bool:
        """Whether initContainers that restart always run beside the others, and end after them.

        Source: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/: enabled by
        default from 1.29 on.
        """
        return self.number >= 29

    @property
    def refuses_cgroup_v1(self) -> bool:
        """Whether its kubelet ends at once on a host with cgroup v1, unless failCgroupV1 is false.

        Source: kubernetes/kubelet, config/v1beta1/types.go: the field is there from release-1.31
        on, and true by default from release-1.35 on.
        """
        return self.number >= 35

    @property
    def has_kubelet_drop_ins(self) -> bool:
        """Whether its kubelet reads further files of its configuration (--config-dir) for good.

        Source: https://www.kubernetes.dev/resources/keps/3983/: stable from 1.35 on.
        """
        return self.number >= 35

    @property
    def verifies_pulled_images(self) -> bool:
        """Whether its kubelet asks the registry whether a pod may use an image that is there.

        Source: kubernetes/kubernetes, pkg/features/kube_features.go: the feature
        KubeletEnsureSecretPulledImages is beta, and on, from 1.35 on.
        """
        return self.number >= 35

    @property
    def cron_jobs_api(self) -> str:
        """The API of CronJobs: batch/v1 came with 1.21, and v1beta1 went with 1.25.

        Source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/#cronjob-v125
        """
        return "batch/v1" if self.number >= 21 else "batch/v1beta1"


# Two containerds serve those that have support or had it lately, each a long-term release:
#   2.0 (maintained to March 2027) those up to 1.34, 2.3 (to April 2028) those from 1.35 on.
# RELEASES.md of containerd ("Kubernetes Support") lists for each minor the containerds that it was
# tested with, such as "2.2.0+, 2.1.5+" for 1.35, where + is "or later". 1.29 is listed with 1.x
# alone, so it is not here. That file did not know 1.37 yet when it was last read (2026-08); 2.3 is
# what it lists for the minor before. runc is the one that each containerd is tested with: its file
# script/setup/runc-version.
# The kubelet of 1.20 only speaks the CRI v1alpha2 (v1 came with 1.23), which containerd 1.7 has as
# the last one, and to its end: September 2026 (RELEASES.md, "Deprecated containerd and kubernetes
# versions" and "Current State").
_CONTAINERD_1_7 = {"containerd": "1.7.34", "runc": "1.3.6"}
_CONTAINERD_2_0 = {"containerd": "2.0.11", "runc": "1.3.6"}
_CONTAINERD_2_3 = {"containerd": "2.3.4", "runc": "1.4.3"}

# kubeadm reads v1beta2 from 1.15 to 1.26 (kubernetes/kubeadm#2459), v1beta3 from 1.22 to 1.36
# (kubernetes/kubernetes#101129, #136016) and v1beta4 from 1.31 on (kubernetes/kubernetes#125029).
# Ends of life: https://kubernetes.io/releases/patch-releases/, as endoflife-date/endoflife.date has
# them (products/kubernetes.md at a70eca337600e7d721dc48112c271f98661d208b); that of 1.37, which was
# planned for 2026-08-26 (kubernetes/sig-release, releases/release-1.37/README.md), is 14 months
# after it, as for every minor (https://kubernetes.io/releases/patch-releases/#support-period).
MINORS = (
    Minor("1.20", ("debian", "upstream"), "v1beta2", "2022-02-28", **_CONTAINERD_1_7),
    Minor("1.30", ("upstream",), "v1beta3", "2025-07-15", **_CONTAINERD_2_0),
    Minor("1.31", ("upstream",), "v1beta4", "2025-11-11", **_CONTAINERD_2_0),
    Minor("1.32", ("upstream",), "v1beta4", "2026-02-28", **_CONTAINERD_2_0),
    Minor("1.33", ("upstream",), "v1beta4", "2026-06-28", **_CONTAINERD_2_0),
    Minor("1.34", ("upstream",), "v1beta4", "2026-10-27", **_CONTAINERD_2_0),
    Minor("1.35", ("upstream",), "v1beta4", "2027-02-28", **_CONTAINERD_2_3),
    Minor("1.36", ("upstream",), "v1beta4", "2027-06-28", **_CONTAINERD_2_3),
    Minor("1.37", ("upstream",), "v1beta4", "2027-10-28", **_CONTAINERD_2_3),
)


def minor(version: str) -> Minor:
    """The minor version that a version of Kubernetes belongs to.

    Args:
        version: such as 1.36, 1.36.4 or v1.36.4.

    Raises:
        UsageError: sykube makes no clusters of it.
    """
    match = _VERSION.fullmatch(version)
    found = f"{match[1]}.{match[2]}" if match else ""
    for each in MINORS:
        if each.version == found:
            return each
    raise UsageError(
        f"sykube makes no clusters of Kubernetes {version!r}",
        details=f"there are: {', '.join(each.version for each in MINORS)}",
        resolution=f"Take another one, such as {MINORS[-1].version}, or a newer sykube.",
    )


@dataclass(frozen=True)
class DebianRelease:
    """Kubernetes as Debian's source package has it.

    Attributes:
        name: of the source.
        kubernetes_version: without the v.
        build_suite: Debian release whose source package and Go build it.
        package: version of the source package, up to its Debian revision.
        pause_version: of the pause image that kubeadm of this version names.
    """

    name: str
    kubernetes_version: str
    build_suite: str
    package: str
    pause_version: str


@dataclass(frozen=True)
class Published:
    """A file that upstream publishes, downloaded and verified.

    Attributes:
        path: where it is on this host.
        checksum: what upstream says of it, SHA-256 or SHA-512, in hexadecimal digits.
    """

    path: Path
    checksum: str


# The keys of Upstream.files; containerd is its archive, the others are programs.
PUBLISHED = ("kubeadm", "kubelet", "kubectl", "containerd", "runc")


@dataclass(frozen=True)
class Upstream:
    """Kubernetes as upstream releases it, with a containerd and runc that it supports.

    Attributes:
        kubernetes_version, containerd_version, runc_version: without a v.
        image_repository: the registry's host and folder that container images are pulled from;
            they keep its name.
        files: by the names of PUBLISHED.
        auth_file: credentials for the registry, as ~/.docker/config.json has them.
        authorities: PEM files of authorities that the registry may have, beside those of Debian.
    """

    kubernetes_version: str
    containerd_version: str
    runc_version: str
    image_repository: str
    files: Mapping[str, Published]
    auth_file: Path | None = None
    authorities: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return "upstream"


# Debian 12 is the last release whose source package `kubernetes` is the whole tree; later ones
# only carry kubectl.
DEBIAN = DebianRelease(
    name="debian",
    kubernetes_version="1.20.2",
    build_suite="bookworm",
    package="1.20.5+really1.20.2",
    pause_version="3.2",
)

# Debian 13's containerd 1.7 serves Kubernetes 1.20 (CRI v1alpha2); Debian 12's glibc is older.
# Upstream's containerd is linked with glibc (containerd's docs/getting-started.md).
NODE_SUITE = "trixie"
KUBERNETES_PROGRAMS = (
    *("kubeadm", "kubelet", "kubectl"),
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"),
)
CONTAINER_IMAGE_PACKAGES = (
    *("conntrack", "docker-registry", "etcd-server", "iptables", "kmod", "nftables", "openssl"),
    *("python3", "python3-dnspython", "unbound"),
)
NODE_PACKAGES = (
    *("conntrack", "containerd", "containernetworking-plugins", "crun", "ebtables", "etcd-client"),
    *(
        "ethtool",
        "iproute2",
        "iptables",
        "keepalived",
        "kmod",
        "mount",
        "nftables",
        "procps",
        "runc",
    ),
    *("socat", "supervisor", "util-linux"),
)
# Debian has it in sid alone, whose package runs on NODE_SUITE. For pods: docs/runtimes.md.
SID_PACKAGES = ("apptainer",)
# What runtime/ is built and tested with; nothing of it is in a node.
RUNTIME_BUILD_PACKAGES = ("gcc", "golang-go", "libc6-dev", "libseccomp-dev")
# With kube-proxy, etcd and CoreDNS in images of their own, what sykube/incluster needs is left.
# python3-minimal would lack http, ipaddress and others.
UPSTREAM_CONTAINER_IMAGE_PACKAGES = ("docker-registry", "nftables", "openssl", "python3")
# And this of its cluster DNS, where it is not CoreDNS.
DNS_PACKAGES = ("python3-dnspython", "unbound")
UPSTREAM_NODE_PACKAGES = tuple(
    name for name in NODE_PACKAGES if name not in ("containerd", "etcd-client", "runc")
)
# Of NODE_SUITE, too.
SLURM_PACKAGES = (
    *("slurmctld", "slurmd", "sackd", "slurm-client", "slurm-wlm-basic-plugins"),
    *("slurm-wlm-jwt-plugin", "openmpi-bin", "openssl", "libnss-extrausers", "munge", "procps"),
    *("tini", "slurmdbd", "mariadb-server-core", "slurmrestd"),
    # What programs need that the compilers of its login pod made, beside what is there.
    *("libatomic1", "libgfortran5"),
)
SLURM_IMAGE = "sykube.local/slurm"
# Of its login pod, where users compile: these, and all of the above.
SLURM_COMPILERS_PACKAGES = ("g++", "gcc", "gfortran", "libopenmpi-dev", "make")
SLURM_COMPILERS_IMAGE = "sykube.local/slurm-compilers"
# Of NODE_SUITE as well. OpenBLAS by OpenMP, so that OMP_NUM_THREADS is the number of its threads.
HPCC_PACKAGES = ("hpcc", "libopenblas0-openmp", "openmpi-bin")
HPCC_IMAGE = "sykube.local/hpcc"
STREAM_PACKAGES = ("nats-server", "python3-minimal", "valkey-server")
STREAM_IMAGE = "sykube.local/stream"
