"""The cluster DNS of Kubernetes 1.20, and changes to kubeadm's CoreDNS of newer versions.

Unbound caches and forwards; sykube.incluster.dns beside it answers for the
cluster's own names.
"""

from __future__ import annotations

import re
from typing import Any

from sykube import resources
from sykube.image import versions
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
    # Not above: most commands read no YAML.
    from sykube import documents

    for object_ in documents.load_all(manifest):
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


def adjust_coredns(api: Api, deployment: str, *, apart: bool) -> None:
    """Let kubeadm's CoreDNS count as Ready as soon as it is, and not 10 s later.

    Args:
        apart: let no node have two of its pods, though it is the only one yet.
    """
    spec: dict[str, Any] = {
        "containers": [{"name": deployment, "readinessProbe": {"periodSeconds": 1}}]
    }
    if apart:
        others = {
            "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "topologyKey": "kubernetes.io/hostname",
        }
        spec["affinity"] = {
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [others]}
        }
    api.request(
        "PATCH",
        f"{_DEPLOYMENTS}/{deployment}",
        {"spec": {"template": {"spec": spec}}},
        content_type="application/strategic-merge-patch+json",
    )


def forward_nothing(api: Api) -> None:
    """Remove CoreDNS' forward plugin: it does not start where there is no resolver."""
    path = "/api/v1/namespaces/kube-system/configmaps/coredns"
    corefile = _FORWARD.sub("", api.get(path)["data"]["Corefile"])
    merge = "application/merge-patch+json"
    api.request("PATCH", path, {"data": {"Corefile": corefile}}, content_type=merge)
