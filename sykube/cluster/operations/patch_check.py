"""Tries users' patches of what kubeadm reads, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sykube.cluster.model import members
from sykube.cluster.model.cluster import DOMAIN
from sykube.cluster.model.spec import ClusterSpec
from sykube.image import versions
from sykube.image.versions import Minor
from sykube.kubernetes import kubeadm
from sykube.kubernetes.kubeadm_patches import KubeadmPatches


def check_patches(
    spec: ClusterSpec, kubernetes: str, warn: Callable[[str], None], names: Iterable[str] = ()
) -> None:
    """Refuse patches that cannot be applied; warn of those that are for nothing.

    Args:
        kubernetes: its version, without the v.
        names: of nodes; those of the spec, if there are none.

    Raises:
        UsageError: one cannot be applied; says where it was written.
    """
    minor = versions.minor(kubernetes)
    # Nodes that the spec does not name are alike.
    names = [*names] or [members.MASTER, "master2", "node1", *spec.named_nodes()]
    if not any(any(spec.kubeadm_patches(name)) for name in names):
        return
    for name in dict.fromkeys(names):
        patches = spec.kubeadm_patches(name)
        documents = _documents(spec, minor, kubernetes, name, patches)
        own = spec.named_nodes().get(name)
        if own:
            for target in own.kubeadm_patches.unused(documents):
                warn(f"{target}, which {name} does not read")
    every = [
        *_documents(spec, minor, kubernetes, members.MASTER, KubeadmPatches()),
        *_documents(spec, minor, kubernetes, "node1", KubeadmPatches()),
    ]
    for target in spec.kubeadm_patches("").unused(every):
        warn(f"{target}, which Kubernetes {minor.version} does not read")


def _documents(
    spec: ClusterSpec, minor: Minor, kubernetes: str, name: str, patches: KubeadmPatches
) -> list[dict[str, Any]]:
    """What kubeadm of a node will be given, but for addresses, names and tokens."""
    if name != members.MASTER:
        return [
            kubeadm.join_document(
                minor, name, "192.0.2.1",
                control_plane=members.is_control_plane(name), taint=spec.taint_master,
                patches=patches,
            )
        ]  # fmt: skip
    return kubeadm.init_documents(
        kubeadm.ControlPlaneSettings(
            cluster=spec.name, minor=minor, kubernetes_version=kubernetes, image_repository="",
            etcd_tag="", node_name=name, node_address="192.0.2.1", endpoint="192.0.2.1:6443",
            names=("192.0.2.1",), pod_subnet="", service_subnet="", dns="", domain=DOMAIN,
            token="", taint=spec.taint_master, is_single=spec.control_planes == 1,
            feature_gates=spec.feature_gates, runtime_config=spec.runtime_config, patches=patches,
        )
    )  # fmt: skip
