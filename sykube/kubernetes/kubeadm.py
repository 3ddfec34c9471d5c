"""kubeadm's configuration, as data. API: kubeadm.k8s.io/v1beta2 (Kubernetes 1.15 to 1.21)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

CRI_SOCKET = "unix:///run/containerd/containerd.sock"
API_PORT = 6443
# What is changed in the control plane's manifests; the node image has it.
PATCHES = ("--experimental-patches", "/usr/share/sykube/kubeadm-patches")
# kubeadm insists on a token of its own; workers get others (tokens.py).
_TOKEN_TTL = "1m0s"

# The election is also what waits for the API server: without it, the controller manager of 1.20
# ends itself when there is none within 10 s (WaitForAPIServer in CreateControllerContext), and the
# kubelet lets it wait for ever longer. The default looks again after 2 to 4 s.
_ELECTION = {"leader-elect-retry-period": "1s"}

# The default, but for the disk.
_EVICTION = {
    "memory.available": "100Mi",
    "nodefs.available": "0%",
    "nodefs.inodesFree": "0%",
    "imagefs.available": "0%",
}


@dataclass(frozen=True)
class ControlPlaneSettings:
    """What kubeadm init is told.

    Attributes:
        endpoint: host:port of the API server for every node and user, from the first day.
        names: further names and addresses in the API server's certificate.
        token: bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`.
    """

    cluster: str
    kubernetes_version: str
    image_repository: str
    etcd_tag: str
    node_name: str
    node_address: str
    endpoint: str
    names: tuple[str, ...]
    pod_subnet: str
    service_subnet: str
    dns: str
    domain: str
    token: str
    taint: bool


def init_configuration(settings: ControlPlaneSettings) -> str:
    """The YAML documents for `kubeadm init --config`."""
    init: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta2",
        "kind": "InitConfiguration",
        "bootstrapTokens": [
            {
                "token": settings.token,
                "ttl": _TOKEN_TTL,
                "usages": ["signing", "authentication"],
                "groups": ["system:bootstrappers:kubeadm:default-node-token"],
            }
        ],
        "localAPIEndpoint": {
            "advertiseAddress": settings.node_address,
            "bindPort": API_PORT,
        },
        "nodeRegistration": _registration(settings.node_name, settings.node_address),
    }
    if not settings.taint:
        init["nodeRegistration"]["taints"] = []
    cluster: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta2",
        "kind": "ClusterConfiguration",
        "clusterName": settings.cluster,
        "kubernetesVersion": f"v{settings.kubernetes_version}",
        "imageRepository": settings.image_repository,
        "controlPlaneEndpoint": settings.endpoint,
        "apiServer": {
            "certSANs": list(settings.names),
            # kubeadm's own 4 minutes are not enough on a machine that is emulated or overloaded.
            # It also gives the static pods that long to start.
            "timeoutForControlPlane": "9m0s",
        },
        # sykube gives each node its pod subnet. The allocator would hold up every controller that
        # starts after it for 10 s (listNodes, pkg/controller/nodeipam/ipam/cidr_allocator.go).
        "controllerManager": {"extraArgs": {"allocate-node-cidrs": "false", **_ELECTION}},
        "scheduler": {"extraArgs": _ELECTION},
        "etcd": {"local": {"dataDir": "/var/lib/etcd", "imageTag": settings.etcd_tag}},
        "networking": {
            "podSubnet": settings.pod_subnet,
            "serviceSubnet": settings.service_subnet,
            "dnsDomain": settings.domain,
        },
    }
    kubelet: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [settings.dns],
        "clusterDomain": settings.domain,
        # The node shares the host's memory: its swap is not the node's to judge.
        "failSwapOn": False,
        # Nor is its disk: a kubelet that finds 85 % of it used removes images, which no registry
        # gives back, and at 90 % it evicts pods. `sykube status` tells of it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": _EVICTION,
        "resolvConf": "/etc/resolv.conf",
        "rotateCertificates": True,
        # The pods of the control plane show up in the API at the first sync after it is there:
        # with the default of a minute, that is when init would end.
        "syncFrequency": "10s",
        "serverTLSBootstrap": False,
    }
    proxy: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clusterCIDR": settings.pod_subnet,
        "mode": "iptables",
        # The limits of connection tracking are the host's: a node may not set them.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return yaml.safe_dump_all([init, cluster, kubelet, proxy], sort_keys=False)


def join_configuration(
    node_name: str,
    node_address: str,
    endpoint: str,
    token: str,
    ca_hash: str,
    *,
    control_plane: bool = False,
    taint: bool = True,
) -> str:
    """The YAML document for `kubeadm join --config`.

    Args:
        ca_hash: `sha256:HEX` of the CA's public key; the node trusts no other.
        control_plane: the node gets a control plane of its own; the cluster's keys are there.
        taint: keep ordinary pods off a control plane.
    """
    join: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta2",
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": endpoint,
                "token": token,
                "caCertHashes": [ca_hash],
            }
        },
        "nodeRegistration": _registration(node_name, node_address),
    }
    if control_plane:
        api = {"advertiseAddress": node_address, "bindPort": API_PORT}
        join["controlPlane"] = {"localAPIEndpoint": api}
        if not taint:
            join["nodeRegistration"]["taints"] = []
    return yaml.safe_dump(join, sort_keys=False)


def _registration(name: str, address: str) -> dict[str, Any]:
    return {
        "name": name,
        "criSocket": CRI_SOCKET,
        "kubeletExtraArgs": {
            "node-ip": address,
            "container-runtime": "remote",
            "container-runtime-endpoint": CRI_SOCKET,
        },
    }
