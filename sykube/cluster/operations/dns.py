"""The cluster's DNS."""

from __future__ import annotations

from sykube.addons import dns
from sykube.cluster.model.cluster import DOMAIN, Cluster
from sykube.cluster.operations.control_plane import run_init, settings
from sykube.kubernetes import kubeadm
from sykube.kubernetes.api import Api

# What kubeadm's own add-on is called.
COREDNS = "coredns"


def deployment(cluster: Cluster) -> str:
    """Name of the Deployment in kube-system that answers."""
    return COREDNS if cluster.minor.has_coredns else dns.DEPLOYMENT


def is_installed(cluster: Cluster) -> bool:
    with cluster.api() as api:
        return dns.is_installed(api, deployment(cluster))


def install(cluster: Cluster) -> None:
    """Install kubeadm's CoreDNS, or sykube's own where that Kubernetes has none."""
    if deployment(cluster) == COREDNS:
        documents = kubeadm.init_documents(settings(cluster))
        run_init(cluster.master, ["phase", "addon", "coredns"], documents)
        with cluster.api() as api:
            adjust(cluster, api)
        return
    subnets = cluster.state.subnets
    with cluster.api() as api:
        dns.install(
            api,
            cluster_ip=subnets.dns,
            domain=DOMAIN,
            reverse_cidrs=_reverse_cidrs(cluster),
            endpoint=cluster.endpoint,
            # Where a node may fail, names go on being answered.
            replicas=min(2, len(cluster.control_planes)),
        )


def adjust(cluster: Cluster, api: Api) -> None:
    """Change kubeadm's CoreDNS where sykube's clusters need more."""
    dns.adjust_corefile(
        api, reverse_cidrs=_reverse_cidrs(cluster), forwards=bool(cluster.state.resolvers)
    )
    # After it, since new pods read it. kubeadm's two would both begin on the one node that is there
    # yet, and stay.
    dns.adjust_coredns(api, COREDNS, apart=len(cluster.control_planes) > 1)


def _reverse_cidrs(cluster: Cluster) -> tuple[str, ...]:
    subnets = cluster.state.subnets
    return str(subnets.services), str(subnets.pods)
