"""kubeadm init on the master."""

from __future__ import annotations

from sykube.cluster import reborn
from sykube.cluster.cluster import DOMAIN, Cluster
from sykube.cluster.steps.nodes import renew
from sykube.host.files import write_atomically
from sykube.image import versions
from sykube.kubernetes import kubeadm
from sykube.kubernetes.api import Api, ApiError
from sykube.kubernetes.tokens import new_token
from sykube.node.node import Node

_CONFIG = "/etc/kubernetes/kubeadm-init.yaml"
_TIMEOUT_S = 600.0


class ControlPlane:
    name = "control-plane"
    title = "Starting the control plane (kubeadm init)"

    def is_done(self, cluster: Cluster) -> bool:
        try:
            with cluster.api() as api:
                return bool(api.get("/readyz") == "ok")
        except ApiError:
            return False

    def apply(self, cluster: Cluster) -> None:
        master, state = cluster.master, cluster.state
        if master.run(["test", "-e", "/etc/kubernetes/pki"], check=False).ok:
            renew(cluster, master)
        if state.spec.from_snapshot:
            reborn.forget(cluster)
        settings = kubeadm.ControlPlaneSettings(
            cluster=cluster.name,
            kubernetes_version=state.versions["kubernetes"].removeprefix("v"),
            image_repository=versions.IMAGE_REPOSITORY,
            etcd_tag=cluster.image.tag_of("etcd"),
            node_name=master.instance,
            node_address=master.address,
            endpoint=cluster.endpoint,
            names=(cluster.endpoint_address, "localhost", "127.0.0.1"),
            pod_subnet=str(state.subnets.pods),
            service_subnet=str(state.subnets.services),
            dns=state.subnets.dns,
            domain=DOMAIN,
            token=new_token(),
            taint=state.spec.taint_master,
        )
        master.write(_CONFIG, kubeadm.init_configuration(settings), mode="0600")
        # Its preflight needs crictl, which Debian lacks: node_checks has been in its place. The
        # cluster's DNS is sykube's own add-on.
        command = ["kubeadm", "init", "--config", _CONFIG, "--skip-token-print"]
        command += ["--skip-phases", "preflight,addon/coredns", *kubeadm.PATCHES]
        try:
            master.run(command, timeout=_TIMEOUT_S)
        finally:
            master.discard(_CONFIG)
        config = master.read("/etc/kubernetes/admin.conf", secret=True)
        write_atomically(cluster.paths.kubeconfig, config, mode=0o600)
        with cluster.api() as api:
            set_pod_subnet(api, master)

    def undo(self, cluster: Cluster) -> None:
        """Nothing outside the nodes' folders, which go with the nodes."""


def set_pod_subnet(api: Api, node: Node) -> None:
    """Tell Kubernetes which subnet a registered node's CNI configuration has."""
    api.request(
        "PATCH",
        f"/api/v1/nodes/{node.instance}",
        {"spec": {"podCIDR": node.pod_subnet, "podCIDRs": [node.pod_subnet]}},
        content_type="application/strategic-merge-patch+json",
    )
