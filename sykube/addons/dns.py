"""The cluster DNS of clusters that have no CoreDNS: those of the minor version of Debian's.

Unbound caches and forwards; sykube.incluster.dns beside it answers for the
cluster's own names.
"""

from __future__ import annotations

import re

from sykube import resources
from sykube.image import versions
from sykube.kubernetes import objects
from sykube.kubernetes.api import Api, ApiError

DEPLOYMENT = "cluster-dns"
# The plugin with its block: https://coredns.io/plugins/forward
_FORWARD = re.compile(r"^[ \t]*forward [^\n{]*(\{[^}]*\})?[ \t]*\n", re.MULTILINE)
_DEPLOYMENTS = "/apis/apps/v1/namespaces/kube-system/deployments"


def install(
    api: Api,
    *,
    cluster_ip: str,
    domain: str,
    reverse_cidrs: tuple[str, ...],
    endpoint: str,
    replicas: int,
) -> None:
    """Create or update its objects.

    Args:
        cluster_ip: address of the Service kube-dns.
        reverse_cidrs: ranges whose addresses have names in the cluster.
        endpoint: host:port of the API server.
        replicas: how many pods answer; they are spread over nodes.
    """
    manifest = resources.render(
        "manifests",
        "dns.yaml.j2",
        image=versions.SYSTEM_IMAGE,
        cluster_dns_ip=cluster_ip,
        cluster_domain=domain,
        reverse_cidrs=reverse_cidrs,
        api_server=f"https://{endpoint}",
        replicas=replicas,
    )
    for object_ in objects.read(manifest):
        api.apply(object_)


def is_installed(api: Api, deployment: str) -> bool:
    """Whether a Deployment of kube-system exists."""
    try:
        api.get(f"{_DEPLOYMENTS}/{deployment}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def spread(api: Api, deployment: str) -> None:
    """Let no node have two pods of a Deployment that answers, though it is the only one yet."""
    apart = {
        "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    api.request(
        "PATCH",
        f"{_DEPLOYMENTS}/{deployment}",
        {"spec": {"template": {"spec": {"affinity": rule}}}},
        content_type="application/strategic-merge-patch+json",
    )


def forward_nothing(api: Api) -> None:
    """Let CoreDNS know the cluster's names alone: it does not start where there is no resolver."""
    path = "/api/v1/namespaces/kube-system/configmaps/coredns"
    corefile = _FORWARD.sub("", api.get(path)["data"]["Corefile"])
    merge = "application/merge-patch+json"
    api.request("PATCH", path, {"data": {"Corefile": corefile}}, content_type=merge)
