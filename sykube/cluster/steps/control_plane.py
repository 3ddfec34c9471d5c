"""kubeadm init on the master."""

from __future__ import annotations

from sykube.cluster import pod_network, reborn
from sykube.cluster.cluster import DOMAIN, Cluster
from sykube.cluster.steps.nodes import renew
from sykube.host.files import write_atomically
from sykube.image.choice import DEBIAN
from sykube.kubernetes import kubeadm
from sykube.kubernetes.api import ApiError
from sykube.kubernetes.tokens import new_token

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
        # Its preflight needs crictl, which Debian lacks: node_checks has been in its place. The
        # cluster's DNS is a step of its own.
        options = ["--skip-token-print", "--skip-phases", "preflight,addon/coredns"]
        run_init(cluster, [], [*options, *kubeadm.patch_options(cluster.minor)])
        config = master.read("/etc/kubernetes/admin.conf", secret=True)
        write_atomically(cluster.paths.kubeconfig, config, mode=0o600)
        with cluster.api() as api:
            pod_network.set_pod_subnet(api, master)

    def undo(self, cluster: Cluster) -> None:
        """Nothing outside the nodes' folders, which go with the nodes."""


def run_init(cluster: Cluster, phase: list[str], options: list[str]) -> None:
    """Run kubeadm init, or one phase of it, on the master.

    Args:
        phase: such as ["phase", "addon", "coredns"]; none for all of it.

    Raises:
        CommandError: kubeadm failed or took more than 10 minutes.
    """
    master = cluster.master
    master.write(_CONFIG, kubeadm.init_configuration(settings(cluster)), mode="0600")
    try:
        command = ["kubeadm", "init", *phase, "--config", _CONFIG, *options]
        master.run(command, timeout=_TIMEOUT_S)
    finally:
        master.discard(_CONFIG)


def settings(cluster: Cluster) -> kubeadm.ControlPlaneSettings:
    """What kubeadm init is told of this cluster; the token is a new one."""
    state, master = cluster.state, cluster.master
    return kubeadm.ControlPlaneSettings(
        cluster=cluster.name,
        minor=cluster.minor,
        kubernetes_version=state.versions["kubernetes"].removeprefix("v"),
        image_repository=cluster.image.repository,
        # Debian's is none that kubeadm names; it leaves one alone in upgrades that it was told.
        etcd_tag=cluster.image.tag_of("etcd") if cluster.image.source == DEBIAN else "",
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
        alone=len(cluster.control_planes) == 1,
    )
