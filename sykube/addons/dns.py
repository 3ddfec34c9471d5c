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
# kubeadm's, which asks the resolvers of the host for every address that it has no name of.
_REVERSE = re.compile(
    r"^([ \t]*kubernetes \S+) in-addr\.arpa ip6\.arpa (\{[^}]*?\n)"
    r"[ \t]*fallthrough in-addr\.arpa ip6\.arpa[ \t]*\n",
    re.MULTILINE,
)
# Of whoever asks, or of nobody. Source: RFC 6303, by which they are to be asked of nobody else.
_OF_NOBODY = ("0.0.0.0/8", "127.0.0.0/8")
_COREFILE = "/api/v1/namespaces/kube-system/configmaps/coredns"
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


def adjust_corefile(api: Api, *, reverse_cidrs: tuple[str, ...], forwards: bool) -> None:
    """Let kubeadm's CoreDNS ask nobody else for the cluster's own addresses.

    Of a peer that is no pod, as of a node's bridge, nobody knows a name, and a resolver that
    does not answer takes 4 s to say nothing: so long took each request of Slurm's.

    Args:
        reverse_cidrs: ranges whose addresses have names in the cluster.
        forwards: keep the forward plugin. It does not start where there is no resolver.
    """
    # Not above: most commands change no DNS.
    from sykube.incluster.dns.reverse import reverse_zones

    zones = " ".join(zone for cidr in (*reverse_cidrs, *_OF_NOBODY) for zone in reverse_zones(cidr))
    before = api.get(_COREFILE)["data"]["Corefile"]
    after = _REVERSE.sub(rf"\1 {zones} \2", before)
    if not forwards:
        after = _FORWARD.sub("", after)
    if after != before:
        merge = "application/merge-patch+json"
        api.request("PATCH", _COREFILE, {"data": {"Corefile": after}}, content_type=merge)
