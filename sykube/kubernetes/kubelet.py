"""A kubelet's own configuration, beside that of all kubelets of the cluster.

It goes with the node image, not with the API: an update brings it to each node with its new
kubelet, and an older one is never given what it does not know.

Source: https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/ (drop-in files)
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any

from sykube import documents
from sykube.image.versions import Minor

_CLIENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
_TYPE = frozenset({"apiVersion", "kind"})


def drop_in(minor: Minor, *, allow_cgroup_v1: bool, patched: Collection[str] = ()) -> str:
    """A drop-in file, to which kubelet-start adds the node's limits; empty where none is read.

    Args:
        minor: of the node's kubelet.
        allow_cgroup_v1: let it run on a host with cgroup v1 where it would refuse it.
        patched: fields that the user has set; they are not changed here.
    """
    if not minor.has_kubelet_drop_ins:
        return ""
    settings: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
    }
    if minor.verifies_pulled_images:
        # What was pulled is told from what was loaded by its ID alone: once a pod has pulled an
        # image of the same content by another name, those of the node image and of `image load`
        # would be asked for at registries that do not have them. A list of exceptions would have
        # to hold whatever a user loads. Source: pkg/kubelet/images/pullmanager of
        # kubernetes/kubernetes
        settings["imagePullCredentialsVerificationPolicy"] = "NeverVerify"
    if allow_cgroup_v1 and minor.refuses_cgroup_v1:
        settings["failCgroupV1"] = False
    return documents.dump({k: v for k, v in settings.items() if k not in {*patched} - _TYPE})


def client_config(server: str, ca: str) -> str:
    """The kubeconfig of a kubelet that has its client certificate, as one that was bootstrapped.

    Source: writeKubeconfigFromBootstrapping in kubernetes/kubernetes,
    pkg/kubelet/certificate/bootstrap/bootstrap.go

    Args:
        server: URL of the API server.
        ca: the cluster's CA, PEM.
    """
    cluster, user, context = "default-cluster", "default-auth", "default-context"
    authority = base64.b64encode(ca.encode()).decode()
    return documents.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {"certificate-authority-data": authority, "server": server},
                }
            ],
            "contexts": [
                {
                    "name": context,
                    "context": {"cluster": cluster, "namespace": "default", "user": user},
                }
            ],
            "current-context": context,
            "preferences": {},
            "users": [
                {"name": user, "user": {"client-certificate": _CLIENT, "client-key": _CLIENT}}
            ],
        }
    )
