"""Pods of kube-system of which a kubelet has put off what it knows to be next."""

from __future__ import annotations

import time
from typing import Any

from sykube.kubernetes.api import Api

_PODS = "/api/v1/namespaces/kube-system/pods"
# What the kubelet says of a pod that it meets before its first list of Services has come:
# makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go.
_WITHOUT_SERVICES = "services have not yet been read at least once"
_ANNOTATION = "sykube.local/hastened"
_STATIC = "kubernetes.io/config.mirror"


def hasten(api: Api) -> None:
    """Have the kubelets look again at pods that they met too early.

    Before they knew the Services: by themselves they do so 10 to 15 s later (backOffPeriod in
    pkg/kubelet/kubelet.go, and half of it by chance in pod_workers.go). And at static pods whose
    containers have since passed their startup probe: they count as Ready only at the next sync
    (UpdatePodStatus in pkg/kubelet/prober/prober_manager.go). A change of the pod has them do it at
    once.

    Raises:
        ApiError: the API server refuses, or does not answer.
    """
    # A pod is changed once a second at most, however often this is called.
    now = str(int(time.time()))
    for pod in api.get(_PODS)["items"]:
        if _is_stalled(pod):
            api.request(
                "PATCH",
                f"{_PODS}/{pod['metadata']['name']}",
                {"metadata": {"annotations": {_ANNOTATION: now}}},
                content_type="application/merge-patch+json",
            )


def _is_stalled(pod: dict[str, Any]) -> bool:
    is_static = _STATIC in pod["metadata"].get("annotations", {})
    return any(
        _WITHOUT_SERVICES in (each["state"].get("waiting", {}).get("message") or "")
        or (is_static and each.get("started") and not each.get("ready"))
        for each in pod.get("status", {}).get("containerStatuses", [])
    )
