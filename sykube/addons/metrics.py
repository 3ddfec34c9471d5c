"""What nodes and pods use: `kubectl top`, and autoscaling by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sykube.addons.addon import Addon, AddonContext
from sykube.kubernetes.api import ApiError

_METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"
# Below a node's folder; node_steps binds it to /var/lib/kubelet.
_CERTIFICATE = "kubelet/pki/kubelet.crt"


@dataclass(frozen=True)
class Metrics(Addon):
    """metrics.k8s.io/v1beta1 over the kubelets' own metrics.

    A kubelet signs its serving certificate itself. sykube reads them on
    the host and writes them into the ConfigMap kube-system/kubelet-certificates.
    """

    def variables(self, context: AddonContext) -> dict[str, Any]:
        return {"domain": context.domain, "certificates": kubelet_certificates(context)}

    def sync_nodes(self, context: AddonContext) -> None:
        for each in self.objects(context):
            if each["kind"] == "ConfigMap":
                context.api.apply(each)

    def problem(self, context: AddonContext) -> str:
        if problem := super().problem(context):
            return problem
        try:
            found = context.api.get(_METRICS)["items"]
        except ApiError as error:
            return error.brief
        missing = {node.instance for node in context.nodes}
        missing -= {each["metadata"]["name"] for each in found}
        return f"no metrics of {', '.join(sorted(missing))}" if missing else ""


def kubelet_certificates(context: AddonContext) -> dict[str, str]:
    """What the kubelet of each node serves, by the node's name; a new node has none yet."""
    files = {node.instance: node.folder / _CERTIFICATE for node in context.nodes}
    return {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.exists()}


METRICS = Metrics(
    name="metrics",
    summary="kubectl top and HorizontalPodAutoscalers, by what nodes and pods use",
    template="metrics.yaml.j2",
    deployments=("kube-system/metrics",),
)
